"""What the user sees while a command runs: progress and notes on stderr, quiet when that is not a terminal."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Of the processes that `torchrun` starts the first one alone speaks.
stderr = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def note(message: str) -> None:
    """One line for the user about what happens now."""
    # As it is: a path may hold brackets, and a line that is wrapped cannot be searched for.
    stderr.print(message, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr. Gives `advance(steps=1, status="")`, where `status` is shown beside the bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total, status="")

        def advance(steps: float = 1, status: str = "") -> None:
            bar.update(task, advance=steps)
            if status:
                bar.update(task, status=status)

        yield advance
