"""Loss curves as a picture and as TensorBoard events, from the rows of `metrics.jsonl`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOSSES = {"loss": "sum", "ce": "soft targets", "mlm": "masked LM", "cos": "cosine", "mse": "logits' squared distance"}


def plot(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw every loss of a run against its steps, one panel each, as a PNG. `rows` hold `step` and the losses."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if "loss" in row]  # others are scores on dev data
    present = [name for name in LOSSES if name in rows[0]]
    figure = Figure(figsize=(3.2 * len(present), 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(present), squeeze=False)[0], present, strict=True):
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], linewidth=1)
        axes.set_title(LOSSES[name], fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=120)


def tensorboard(folder: Path) -> Callable[[Mapping[str, float]], None]:
    """A function that adds a row to TensorBoard's events in `folder`, or does nothing where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda row: None
    writer = SummaryWriter(str(folder))

    def add(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, int(row["step"]))
        writer.flush()

    return add
