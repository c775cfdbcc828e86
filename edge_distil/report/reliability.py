"""How far scores can be taken at their word, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from edge_distil.tasks.decoding import Bin


def plot(bins: Sequence[Bin], path: Path) -> None:
    """Draw the share of right answers against their score, a bar for each bin, and below it how many there are.

    The dashed line is where a score is the probability of being right. Writes a PNG, whatever the file is called.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 4.2), layout="constrained")
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles, width = [(each.low + each.high) / 2 for each in bins], 0.9 * (bins[0].high - bins[0].low)
    shares.bar(middles, [each.accuracy for each in bins], width)
    shares.plot([0, 1], [0, 1], "k--", linewidth=1)
    shares.plot([each.score for each in bins], [each.accuracy for each in bins], "k.", markersize=4)
    shares.set(ylabel="right answers", xlim=(0, 1), ylim=(0, 1))
    drawn = counts.bar(middles, [each.count for each in bins], width)
    counts.bar_label(drawn, fontsize=6)
    counts.margins(y=0.3)
    counts.set(xlabel="score", ylabel="answers")
    for axes in (shares, counts):
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=120, format="png")
