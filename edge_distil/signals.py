"""What happens to a run that is told to stop: SIGTERM from a scheduler or `timeout`, SIGINT from Ctrl-C.

For the main thread alone, as Python's handlers are.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def first_signal(act: Callable[[int], None], *, ignore_more: bool) -> Iterator[None]:
    """Call `act` with the number of the block's first signal.

    What comes after it is ignored until the block's end, or does what it did before the block.
    """

    def handle(number: int, before: dict[signal.Signals, Any]) -> None:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if ignore_more else handler)
        act(number)

    with _handled_by(handle):
        yield


@contextlib.contextmanager
def postponed_signals() -> Iterator[None]:
    """Let signals wait until the block's end: what was started in it can be ended then, for it is known."""
    waiting: list[int] = []
    try:
        with _handled_by(lambda number, _: waiting.append(number)):
            yield
    finally:
        for number in waiting:
            signal.raise_signal(number)


@contextlib.contextmanager
def _handled_by(handle: Callable[[int, dict[signal.Signals, Any]], None]) -> Iterator[None]:
    """`handle` is also told the handlers of before, which are back after the block."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: handle(number, before))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
