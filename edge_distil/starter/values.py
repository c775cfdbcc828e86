"""What can stand in a slot of a template: a year, an amount, a name, one word of a list.

Each function returns a `Slot`, which draws a value given the slots of the same entity that were filled before it.
"""

from collections.abc import Callable, Mapping

from edge_distil.starter.names import Draw

Slot = Callable[[Draw, Mapping[str, str]], str]


def year(first: int, last: int) -> Slot:
    """A year from `first` to `last`, both included."""
    return lambda draw, entity: draw.unlike_before(lambda: str(draw.rng.randint(first, last)))


def years_after(slot: str, fewest: int, most: int) -> Slot:
    """A year from `fewest` to `most` years after the one in `slot`."""
    return lambda draw, entity: draw.unlike_before(lambda: str(int(entity[slot]) + draw.rng.randint(fewest, most)))


def amount(first: int, last: int, step: int = 1, unit: str = "") -> Slot:
    """A multiple of `step` from `first` to `last`, with thousands set off by commas and followed by its unit."""
    return lambda draw, entity: draw.unlike_before(
        lambda: f"{draw.rng.randrange(first, last + 1, step):,} {unit}".rstrip()
    )


def one_of(choices: str) -> Slot:
    """One of the comma-separated choices."""
    return lambda draw, entity: draw.unlike_before(lambda: draw.rng.choice(choices.split(", ")))


def name(*patterns: str) -> Slot:
    """An invented name after one of the patterns; see `Draw.name`."""
    return lambda draw, entity: draw.name(draw.rng.choice(patterns))


def person() -> Slot:
    """An invented given name and family name."""
    return name("{given} {family}")


def town() -> Slot:
    """An invented town."""
    return name("{town}")
