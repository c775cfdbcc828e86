"""An ONNX export runs as it is where this toolkit is not: plain ONNX Runtime, transformers.js, WebAssembly, optimum.

The first needs nothing more than the toolkit does. The others install what `tests/elsewhere/` pins, 2 GB in a minute or
so, into the folder that EDGE_DISTIL_ELSEWHERE names, and are skipped without it: `make test-elsewhere` sets it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_distil import starter
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes.onnx import GRAPHS, OnnxRuntime
from edge_distil.tasks.squad import Question, windows
from edge_distil.tokenization import load_tokenizer, pad, special_tokens
from exporters import OnnxOptions, export

HERE = Path(__file__).parent / "elsewhere"
FOLDER = "EDGE_DISTIL_ELSEWHERE"
OLDEST_NODE = 20
# What transformers.js calls the graph of each name.
DTYPES = {
    "onnx/model.onnx": "fp32",
    "onnx/model_fp16.onnx": "fp16",
    "onnx/model_quantized.onnx": "q8",
    "onnx/model_q4.onnx": "q4",
}

Run = Callable[[str, dict[str, Any]], Any]


@pytest.fixture(scope="module")
def artifact(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's teacher, whose answers mean something, in every precision."""
    output = tmp_path_factory.mktemp("elsewhere") / "onnx"
    options = OnnxOptions(precisions=tuple(GRAPHS), target="web")
    export(starter.teacher_folder("question-answering"), output, format="onnx", questions=questions, onnx=options)
    return output


@pytest.fixture(scope="module")
def graphs(artifact: Path) -> dict[str, str]:
    """The path in the export of every graph there, by precision."""
    return {precision: graph for precision, graph in GRAPHS.items() if (artifact / graph).is_file()}


@pytest.fixture(scope="module")
def alone(artifact: Path, graphs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of the export for each precision that holds its graph and no other, so that no other can be taken."""
    copies = {}
    for precision, graph in graphs.items():
        copies[precision] = tmp_path_factory.mktemp("alone") / precision
        others = {Path(path).name for path in graphs.values()} - {Path(graph).name}
        shutil.copytree(artifact, copies[precision], ignore=shutil.ignore_patterns(*others))
    return copies


@pytest.fixture(scope="module")
def asked(questions: list[Question]) -> list[dict[str, str]]:
    return [{"question": question.question, "context": question.context} for question in questions]


@pytest.fixture(scope="module")
def expected(artifact: Path, graphs: dict[str, str], questions: list[Question]) -> dict[str, list[str]]:
    """The toolkit's own answers, by precision."""
    found = {}
    for precision in graphs:
        answers = QuestionAnswerer(OnnxRuntime(artifact, precision=precision)).ask_all(questions)
        found[precision] = [answers[question.id][0].text for question in questions]
    return found


def run_json(command: Sequence[str | Path], request: dict[str, Any], **options: Any) -> Any:
    """What a script writes to standard output when it reads a request from standard input, both JSON."""
    ended = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=300, **options)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def installed(pins: Path, install: Callable[[Path], None]) -> Path:
    """The folder that holds what `pins` lists; `install` fills it when it is new, or was left unfinished."""
    parent = os.environ.get(FOLDER)
    if not parent:
        pytest.skip(f"{FOLDER} names no folder to install {pins.name} into: `make test-elsewhere` does")
    # Named after the pins: other pins, another folder.
    folder = Path(parent).absolute() / f"{pins.stem}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    finished = folder / "finished"
    if not finished.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        finished.touch()
    return folder


def npm_install(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / name, folder / name)
    # No install scripts: all that is needed is in the packages, and onnxruntime-node's would fetch CUDA libraries.
    ended = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True
    )
    if any(code in ended.stderr for code in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT")):
        pytest.skip("npm reaches no registry here")
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def node() -> Run:
    """Runs a script of `tests/elsewhere/` under Node."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("Node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node {version} is older than {OLDEST_NODE}")
    folder = installed(HERE / "package-lock.json", npm_install)

    def run(script: str, request: dict[str, Any]) -> Any:
        # Beside the packages, which is where Node looks for them.
        shutil.copyfile(HERE / script, folder / script)
        return run_json(["node", folder / script], request)

    return run


def pip_install(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"]
    ended = subprocess.run(pip, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def optimum() -> Run:
    """Runs a script of `tests/elsewhere/` in the environment of `requirements.txt`."""
    folder = installed(HERE / "requirements.txt", pip_install)
    return lambda script, request: run_json([folder / "bin" / "python", "-I", HERE / script], request)


def test_readme_s_python_block_gives_the_same_answers_without_this_toolkit(artifact, graphs, asked, expected):
    request = {"graphs": graphs, "questions": asked}
    found = run_json([sys.executable, "-I", HERE / "plain_answers.py"], request, cwd=artifact)
    assert {precision: figures["answers"] for precision, figures in found.items()} == expected
    tokenizer = load_tokenizer(artifact)
    ids_BL, mask_BL = pad([tokenizer.encode("Who wrote it?", "Ada wrote it.").ids], special_tokens(tokenizer).pad)
    for precision in graphs:
        logits = OnnxRuntime(artifact, precision=precision)(ids_BL, mask_BL)
        for name, values_BL in found[precision]["outputs"].items():
            np.testing.assert_allclose(values_BL, logits[name], atol=1e-4)


def without_blanks(text: str) -> str:
    return "".join(text.split())


def as_decoded(tokenizer: Tokenizer, text: str) -> str:
    """A text as transformers.js gives it, not cut out of the context but put together from its tokens; its blanks,
    which it sets by rules of its own, are left out."""
    return without_blanks(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids))


def test_transformers_js_gives_the_same_answers(node, artifact, graphs, alone, asked, expected):
    folders = {DTYPES[graphs[precision]]: str(folder) for precision, folder in alone.items()}
    found = node("transformers_js_answers.mjs", {"folders": folders, "questions": asked})
    tokenizer = load_tokenizer(artifact)
    for precision, answers in expected.items():
        given = found[DTYPES[graphs[precision]]]
        decoded = [as_decoded(tokenizer, answer) for answer in answers]
        assert [without_blanks(each["answer"]) for each in given] == decoded
        assert all(0 < each["score"] <= 1 for each in given)


def test_webassembly_gives_the_same_logits(node, artifact, graphs, questions):
    """At 60 dB in fp32; in fewer bits two builds may round one value to neighbouring codes."""
    tokenizer = load_tokenizer(artifact)
    prepared = windows(questions[:: len(questions) // 3], tokenizer)
    ids_BL, mask_BL = pad([window.input_ids for window in prepared], special_tokens(tokenizer).pad)
    assert mask_BL.sum() < mask_BL.size  # some of it is padding
    inputs = {"input_ids": ids_BL.tolist(), "attention_mask": mask_BL.tolist()}
    paths = {precision: str(artifact / graph) for precision, graph in graphs.items()}
    found = node("wasm_logits.mjs", {"graphs": paths, "inputs": inputs})
    for precision in graphs:
        for name, expected_BL in OnnxRuntime(artifact, precision=precision)(ids_BL, mask_BL).items():
            signal = expected_BL[mask_BL == 1]
            noise = np.array(found[precision][name]).reshape(expected_BL.shape)[mask_BL == 1] - signal
            decibels = 10 * np.log10(np.square(signal).sum() / max(np.square(noise).sum(), 1e-30))
            assert decibels > (60 if precision == "fp32" else 30), f"{precision} {name}: {decibels:.1f} dB"


def test_optimum_gives_the_same_answers_at_the_same_places(optimum, graphs, alone, asked, expected):
    paths = {precision: str(folder / graphs[precision]) for precision, folder in alone.items()}
    found = optimum("optimum_answers.py", {"graphs": paths, "questions": asked})
    for precision, answers in expected.items():
        assert [each["answer"] for each in found[precision]] == answers
        for each, question in zip(found[precision], asked, strict=True):
            assert question["context"][each["start"] : each["end"]] == each["answer"]
