"""Keeping foreign tools off the terminal, so that a command prints what it means to and no more."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from edge_distil.errors import UserError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow progress bars, prints, warnings and log lines below ERROR in the block. Exceptions pass."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def import_coremltools() -> Any:
    """The coremltools module, imported without the warnings that it prints off macOS.

    Raises `UserError` when it is not installed.
    """
    try:
        with quiet():
            import coremltools
    except ImportError:
        raise UserError("this needs coremltools, which is not installed", "pip install 'edge-distil[coreml]'") from None
    return coremltools
