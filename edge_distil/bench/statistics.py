"""What is said of the times of single calls: order statistics, and how far they can be trusted.

C contenders, T turns: a turn is one question, run by every contender one after the other.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np

DRAWS = 2000
LEVEL = 0.95
# On an idle machine nine calls in ten stay within a few percent of the median of calls of their length.
BUSY_SPREAD = 1.25
_LEAST_GROUP = 3
_LEAST_UNITS = 4


def units(turns: int, questions: int, one_length: bool) -> np.ndarray:
    """Which turns are drawn together when a measurement is resampled: indices int [U, K] of U units of K turns.

    Turns come as they are measured, one question after the other, over and over. Where every input has one length, a
    turn is as good as any other and is drawn by itself. Where lengths differ, the turns of one question are alike, and
    what decides the median is which questions were asked: a question is drawn with all its turns.
    """
    if one_length or questions < 1 or turns % questions:
        return np.arange(turns)[:, None]
    return np.arange(turns).reshape(-1, questions).T


def resampled_medians(times_T: Sequence[float], units_UK: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Medians [DRAWS] of the times with units drawn anew, as many as there are, with replacement.

    The same seed draws the same units: those of two contenders that took turns can be set against each other draw by
    draw, and what slowed a turn down for both then falls out of their ratio.
    """
    chosen_DU = np.random.default_rng(seed).integers(len(units_UK), size=(DRAWS, len(units_UK)))
    times = np.asarray(times_T, dtype=np.float64)
    return np.median(times[units_UK[chosen_DU].reshape(DRAWS, -1)], axis=1)


def interval(values_D: np.ndarray, units_UK: np.ndarray) -> list[float] | None:
    """The central 95 % of bootstrap draws: [low, high]. None for fewer than four units, which say nothing of spread."""
    if len(units_UK) < _LEAST_UNITS:
        return None
    tail = 50 * (1 - LEVEL)
    return [float(value) for value in np.percentile(values_D, [tail, 100 - tail])]


def percentile(times_T: Sequence[float], percent: float) -> float:
    """Linearly interpolated. Of fewer calls than it takes, such as 100 for p99, it lies between the two slowest."""
    return float(np.percentile(times_T, percent))


def spread(times_T: Sequence[float], tokens_T: Sequence[int]) -> float | None:
    """The 90th percentile of calls, each over the median of the calls of its own length.

    Near 1 on an idle machine, whatever the lengths. None where no length was run three times or more.
    """
    groups: dict[int, list[float]] = {}
    for seconds, tokens in zip(times_T, tokens_T, strict=True):
        groups.setdefault(tokens, []).append(seconds)
    relative = [
        seconds / middle
        for group in groups.values()
        if len(group) >= _LEAST_GROUP and (middle := median(group)) > 0
        for seconds in group
    ]
    return percentile(relative, 90) if relative else None
