"""Runs that are told to stop: which signal does what, and that the handlers of before are back."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from edge_distil.signals import first_signal, postponed_signals

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def outer() -> Iterator[list[int]]:
    """The signals that the handlers of before get."""
    got: list[int] = []
    kept = {number: signal.signal(number, lambda number, _: got.append(number)) for number in NUMBERS}
    installed = [signal.getsignal(number) for number in NUMBERS]
    yield got
    assert [signal.getsignal(number) for number in NUMBERS] == installed
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("ignore_more", [True, False])
def test_the_first_signal_is_acted_on_and_those_after_it_are_not(outer: list[int], ignore_more: bool) -> None:
    acted: list[int] = []
    with first_signal(acted.append, ignore_more=ignore_more):
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert acted == [signal.SIGINT]
    assert outer == ([] if ignore_more else [signal.SIGINT, signal.SIGTERM])


def test_postponed_signals_come_after_the_block_even_after_an_error(outer: list[int]) -> None:
    def work() -> None:
        with postponed_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert outer == []
            raise ValueError("went wrong")

    with pytest.raises(ValueError, match="went wrong"):
        work()
    assert outer == [signal.SIGTERM]


def test_a_stop_that_was_postponed_ends_the_block_around_it(outer: list[int]) -> None:
    done = []

    def work() -> None:
        with first_signal(sys.exit, ignore_more=True):
            with postponed_signals():
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # no second exit: cleaning up is not disturbed
                done.append("started")
            done.append("went on")

    with pytest.raises(SystemExit) as ended:
        work()
    assert (done, ended.value.code, outer) == (["started"], signal.SIGTERM, [])
