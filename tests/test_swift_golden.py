"""The files that the Swift kit's tokeniser is made of and tested with are those that their scripts write today."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

APP = Path(__file__).parent.parent / "apps/ios-demo"


def script(name: str) -> ModuleType:
    """A script of apps/ios-demo/Scripts, as a module."""
    spec = importlib.util.spec_from_file_location(name, APP / f"Scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(script("write_golden_tokens").FILES))
def test_golden_tokens_are_what_the_tokeniser_makes(name):
    golden = script("write_golden_tokens")
    checked_in = (golden.GOLDEN / "Tokens" / name).read_text(encoding="ascii")
    assert golden.FILES[name]() == checked_in, "run apps/ios-demo/Scripts/write_golden_tokens.py and the Swift tests"


def test_unicode_tables_are_what_the_tokeniser_does():
    tables = script("write_unicode_tables")

    def without_version(source: str) -> str:
        return source[source.index("\nenum ") :]

    checked_in = tables.OUTPUT.read_text(encoding="utf-8")
    assert without_version(tables.source()) == without_version(checked_in), (
        "run apps/ios-demo/Scripts/write_unicode_tables.py and the Swift tests"
    )
