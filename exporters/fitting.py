"""An artifact in the precision asked for, with as few parts in a higher one as its answers need."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from edge_distil.errors import UserError
from exporters.encoder import PlainEncoder
from exporters.gate import Judge
from exporters.parts import logits_of, parts

# With more of its weights in a higher precision, an artifact is no longer what was asked for.
_MOST_KEPT = 0.5
# So many texts tell which parts suffer; the judge says how many of those must be kept.
_PROBES = 16


class Plan(Protocol):
    """What a format's plan says for all formats: a precision, and the parts that are `kept` in another one."""

    @property
    def precision(self) -> str: ...
    @property
    def kept(self) -> Mapping[str, Any]: ...


AnyPlan = TypeVar("AnyPlan", bound=Plan)
# The model with one part of it alone in a plan's precision, while the block runs.
Alone = Callable[[PlainEncoder, AnyPlan, str], AbstractContextManager[PlainEncoder]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: the judge's figures, and what the manifest says of the search."""

    figures: dict[str, float]
    search: dict[str, Any]


def sensitivity(
    model: PlainEncoder,
    names: Sequence[str],
    alone: Callable[[str], AbstractContextManager[PlainEncoder]],
    samples: Sequence[np.ndarray],
    progress: Callable[[str], None] = lambda part: None,
) -> dict[str, float]:
    """The mean squared change of the logits when one part is `alone` in few bits, by part, the worst first."""
    expected = logits_of(model, samples)
    errors = {}
    for part in names:
        progress(part)
        with alone(part) as changed:
            errors[part] = float((logits_of(changed, samples) - expected).square().mean())
    return dict(sorted(errors.items(), key=lambda entry: -entry[1]))


def fit(
    model: PlainEncoder,
    plan: AnyPlan,
    higher: str | None,
    court: Judge,
    measure: Callable[[AnyPlan], dict[str, float]],
    alone: Alone[AnyPlan],
    samples: Sequence[np.ndarray],
    progress: Callable[[str], None],
) -> Fitted:
    """Write the plan, or one that keeps the parts in a `higher` precision without which too much is lost.

    `measure` writes the artifact of a plan and returns the judge's figures of it; what it wrote last is what holds.
    Parts are ranked by how much each alone disturbs the logits for `samples`, token ids [1, L] each.
    The fewest that hold are looked for by doubling their number and then halving the gap. Raises `UserError` for a
    precision that has nothing higher to fall back to, and where half of the weights are not enough.
    """
    figures = measure(plan)
    fault = court.fault(plan.precision, figures)
    if fault is None:
        return Fitted(figures, {})
    if higher is None:
        raise fault
    sizes = parts(model)
    ranked = list(
        sensitivity(
            model,
            list(sizes),
            lambda part: alone(model, plan, part),
            samples[:_PROBES],
            lambda part: progress(f"measuring what {plan.precision} does to {part}"),
        )
    )
    tries: dict[int, dict[str, float]] = {0: figures}

    def keeping(count: int) -> AnyPlan:
        kept = dict.fromkeys(ranked[:count], higher)
        return replace(plan, kept=kept)  # type: ignore[type-var]  # every plan is a dataclass

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
    return Fitted(tries[count], search)


def _most_parts(ranked: Sequence[str], sizes: dict[str, int]) -> int:
    """How many of the parts, worst first, have no more than half of the weights together."""
    shares = np.cumsum([sizes[part] for part in ranked]) / sum(sizes.values())
    return int((shares <= _MOST_KEPT).sum())
