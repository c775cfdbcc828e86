"""Size against quality of the precisions that a model was exported in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What an export is scored by, best first; the first that was measured is drawn.
_QUALITIES = ("f1", "score", "same_answers", "same_words", "same_labels")


def plot_family(measured: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw `megabytes` against the quality of every precision to a PNG file; nothing where no quality was measured."""
    from matplotlib.figure import Figure

    quality = next((name for name in _QUALITIES if all(name in row for row in measured.values())), None)
    if quality is None:
        return
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for name, row in measured.items():
        axes.scatter(row["megabytes"], row[quality], color="tab:blue")
        axes.annotate(name, (row["megabytes"], row[quality]), textcoords="offset points", xytext=(5, 5))
    axes.set(xlabel="megabytes", ylabel=quality.replace("_", " "), xlim=(0, None))
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=120)
