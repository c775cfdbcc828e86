"""What commands import: seconds of every start, kept out by a list of what may be imported at all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from exporters.encoder import PlainEncoder
from exporters.onnx import plan_for, write_graph

# Top-level packages, the standard library's aside: the toolkit and what typer brings, pydantic where it is installed.
COMMAND_LINE = {
    *("edge_distil", "typer", "annotated_doc", "shellingham", "click", "typing_extensions"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
}
ONNX = COMMAND_LINE | {
    *("numpy", "onnxruntime", "tokenizers", "flatbuffers", "coloredlogs", "humanfriendly", "packaging"),
    *("rich", "pygments", "markdown_it", "mdurl", "colorama"),
}
# Run in a fresh Python: what the process had before, such as the finder of an editable install, does not count.
PROGRAM = """
import atexit, json, sys
before = set(sys.modules)
def report():
    found = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
    open(sys.argv[1], "w").write(json.dumps(sorted(found)))
atexit.register(report)
from edge_distil import cli
if len(sys.argv) > 2:
    sys.argv[1:], report_file = sys.argv[2:], sys.argv[1]
    atexit.unregister(report)
    atexit.register(lambda: (sys.argv.insert(1, report_file), report()))
    cli.main()
"""


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[int, set[str]]]:
    """The exit status of a command and the packages that it imported."""

    def run(*arguments: object) -> tuple[int, set[str]]:
        report = tmp_path / "imported.json"
        command = [sys.executable, "-c", PROGRAM, str(report), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        found = {name for name in json.loads(report.read_text()) if not name.startswith("_sysconfigdata")}
        return done.returncode, found

    return run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("bench", "--help"), ("ask", "--help")])
def test_help_imports_the_command_line_alone(
    imported: Callable[..., tuple[int, set[str]]], arguments: tuple[str, ...]
) -> None:
    status, found = imported(*arguments)
    assert status == 0
    assert found <= COMMAND_LINE, f"not allowed: {sorted(found - COMMAND_LINE)}"


def test_ask_on_an_onnx_export_imports_no_training_library(
    imported: Callable[..., tuple[int, set[str]]],
    save: Callable[[PreTrainedModel], Path],
    bert_qa: Path,
    tmp_path: Path,
) -> None:
    from edge_distil.models import load_model

    folder = save(load_model(bert_qa, "question-answering"))
    write_graph(
        PlainEncoder.from_library(load_model(bert_qa, "question-answering"), 3), folder, plan_for("int8", "x86")
    )
    (folder / "model.safetensors").unlink()
    passage = tmp_path / "passage.txt"
    passage.write_text("Mary wrote it in 1818.")
    status, found = imported("ask", folder, "Who wrote it?", "--context", passage)
    assert status == 0
    assert "onnxruntime" in found
    assert found <= ONNX, f"not allowed: {sorted(found - ONNX)}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "/nowhere"),
        ("evaluate", "--data", "/nowhere"),
        ("evaluate", "--task", "nothing"),
        ("export", "/nowhere"),
        ("export", "--format", "tflite"),
        ("verify", "/nowhere"),
        ("bench", "/nowhere"),
        ("bench", "--device", "tpu"),
        ("bench", "--import", "/nowhere"),
        ("finetune", "--model", "/nowhere"),
        ("finetune", "--teacher", "/nowhere"),
        ("finetune", "--precision", "fp8"),
        ("train", "--teacher", "/nowhere"),
        ("train", "--init", "elsewhere"),
        ("train", "--corpus", "/nowhere"),
        ("pretrain", "--from", "/nowhere"),
        ("pretrain", "--precision", "fp8"),
        ("pretrain", "--corpus", "/nowhere"),
        ("ask", "/nowhere", "Who?", "--context", __file__),
    ],
)
def test_slip_of_the_pen_is_told_before_torch_is_imported(
    imported: Callable[..., tuple[int, set[str]]], arguments: tuple[str, ...]
) -> None:
    status, found = imported(*arguments)
    assert status == 2
    heavy = {"torch", "transformers", "datasets", "pyarrow", "matplotlib", "coremltools", "onnx", "exporters"}
    assert not found & heavy, f"imported: {sorted(found & heavy)}"
