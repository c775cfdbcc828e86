"""A graph in the precision asked for, with as few parts in a higher one as its answers need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_distil.errors import UserError
from exporters.encoder import PlainEncoder
from exporters.gate import Judge
from exporters.onnx.emulation import sensitivity
from exporters.onnx.plan import HIGHER, Plan, parts

# With more of its weights in a higher precision, a graph is no longer what was asked for.
_MOST_KEPT = 0.5
# So many texts tell which parts suffer; the judge says how many of those must be kept.
_PROBES = 16


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: the plan that holds, the judge's figures of it, and what the manifest says of the search."""

    plan: Plan
    figures: dict[str, float]
    search: dict[str, Any]


def fit(
    model: PlainEncoder,
    plan: Plan,
    court: Judge,
    measure: Callable[[Plan], dict[str, float]],
    samples: Sequence[np.ndarray],
    progress: Callable[[str], None],
) -> Fitted:
    """The plan, or one that keeps the parts in a higher precision without which the judge finds too much lost.

    `measure` writes the graph of a plan and returns the judge's figures of it; the last plan that it was called with is
    the one returned. Parts are ranked by how much each alone disturbs the logits for `samples`, token ids [1, L] each.
    The fewest that hold are looked for by doubling their number and then halving the gap. Raises `UserError` for a
    precision that has nothing higher to fall back to, and where half of the weights are not enough.
    """
    figures = measure(plan)
    fault = court.fault(plan.precision, figures)
    if fault is None:
        return Fitted(plan, figures, {})
    if plan.precision not in HIGHER:
        raise fault
    higher = HIGHER[plan.precision]
    sizes = parts(model)
    ranked = list(
        sensitivity(
            model,
            list(sizes),
            plan.precision,
            plan,
            samples[:_PROBES],
            lambda part: progress(f"measuring what {plan.precision} does to {part}"),
        )
    )
    tries: dict[int, dict[str, float]] = {0: figures}

    def keeping(count: int) -> Plan:
        return replace(plan, kept=dict.fromkeys(ranked[:count], higher))

    def holds(count: int) -> bool:
        progress(f"trying {plan.precision} with {count} of {len(ranked)} parts in {higher}")
        tries[count] = measure(keeping(count))
        return court.fault(plan.precision, tries[count]) is None

    allowed = _most_parts(ranked, sizes)
    fails, count = 0, 1
    while count < allowed and not holds(count):
        fails, count = count, 2 * count
    if count >= allowed:
        count = allowed
        if not count or not holds(count):
            best = tries[max(tries)]
            raise UserError(
                f"{fault.message}; with the {max(tries)} most sensitive parts of {len(ranked)} in {higher}, "
                f"half of the weights, it has " + ", ".join(f"{name} {value:.4g}" for name, value in best.items()),
                fault.hint,
            )
    while count - fails > 1:
        middle = (count + fails) // 2
        if holds(middle):
            count = middle
        else:
            fails = middle
    found = keeping(count)
    if max(tries, key=list(tries).index) != count:
        measure(found)  # so that what is written is what is returned
    search = {
        "kept": list(found.kept),
        "kept_in": higher,
        "kept_weights": round(sum(sizes[part] for part in found.kept) / sum(sizes.values()), 4),
        "tried": {str(number): of_try for number, of_try in sorted(tries.items())},
    }
    return Fitted(found, tries[count], search)


def _most_parts(ranked: Sequence[str], sizes: dict[str, int]) -> int:
    """How many of the parts, worst first, have no more than half of the weights together."""
    shares = np.cumsum([sizes[part] for part in ranked]) / sum(sizes.values())
    return int((shares <= _MOST_KEPT).sum())
