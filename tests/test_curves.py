"""Loss curves as a picture and as TensorBoard events."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edge_distil.report.curves import plot, tensorboard

ROWS = [{"step": 10 * n, "loss": 5.0 / n, "mlm": 3.0 / n, "cos": 0.5 / n} for n in range(1, 6)]


def test_each_loss_has_a_panel_and_scores_on_dev_data_change_nothing(tmp_path: Path) -> None:
    plot(ROWS, tmp_path / "loss.png")
    plot([ROWS[0], {"step": 15, "dev_f1": 88.0}, *ROWS[1:]], tmp_path / "with-scores.png")
    plot([{"step": row["step"], "loss": row["loss"]} for row in ROWS], tmp_path / "one.png")
    three, scored, one = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("loss", "with-scores", "one"))
    assert np.array_equal(three, scored)
    assert three.shape[0] == one.shape[0]
    assert three.shape[1] == 3 * one.shape[1]
    assert len(np.unique(one.reshape(-1, one.shape[-1]), axis=0)) > 2  # something is drawn


def test_tensorboard_reads_every_number_at_its_step(tmp_path: Path) -> None:
    add = tensorboard(tmp_path)
    for row in ROWS:
        add(row)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["cos", "loss", "mlm"]
    for name in ("cos", "loss", "mlm"):
        assert [event.step for event in events.Scalars(name)] == [row["step"] for row in ROWS]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in ROWS])
