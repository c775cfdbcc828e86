"""Is a checkpoint or an artifact whole, and does it still work? Checked as it lies on disk, by anyone who was given it.

The gate of the exporters holds an export against its checkpoint before it is written. Here there is the folder alone:
its manifest, its files, and what its model does.

Shapes: B texts, L tokens, Q questions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil import starter
from edge_distil.checkpoints import MANIFEST, read_json, read_manifest, usable_positions
from edge_distil.errors import UserError
from edge_distil.models import load_config, resolve, task_of
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime, kind_of
from edge_distil.tasks import Task
from edge_distil.tasks.evaluation import predict
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import MAX_LENGTH, Question, parse_squad
from edge_distil.tokenization import check_belongs, load_tokenizer, pad, special_tokens

# Of a graph with the best one beside it, in percent: below it the two are hardly the same model.
LEAST_AGREEMENT = 60.0
# Of fp32 logits with and without padding. Rounding leaves 100 dB and more, a mask that is ignored some 15.
_LEAST_DECIBELS = 60.0
# What the logits of two texts differ by at least, as a share of their spread.
_LEAST_DIFFERENCE = 1e-3
# The texts of that check: so many, of at most so many tokens.
_TEXTS, _TOKENS = 3, 128
_PASSAGES = 20  # some hundred questions of the starter set
_INPUTS = ("input_ids", "attention_mask")
_COPY = "copy the folder again, or make it anew"
_REMAKE = "make it again: edge-distil export, or for a checkpoint the command that trained it"


@dataclass
class _Report:
    """The checks so far. `notes` says what could not be checked here, `measured` has figures by precision."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)

    def check(self, name: str, body: Callable[..., str], *arguments: Any) -> bool:
        """Run one check: `body` returns what it found, or raises `UserError`. Returns whether it passed."""
        try:
            self.checks.append({"check": name, "passed": True, "detail": body(*arguments)})
        except UserError as fault:
            self.checks.append({"check": name, "passed": False, "detail": fault.message, "hint": fault.hint})
        return bool(self.checks[-1]["passed"])


def verify(
    folder: Path,
    *,
    questions: Sequence[Question] | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Check a checkpoint or an export, as far as this machine can.

    `questions` are what a question answerer is asked, by default some hundred of the starter's test set.
    Core ML packages are run as `edge_distil.runtimes.mil` does; without coremltools they are not opened.
    `progress` is told each step as it starts.

    Returns `artifact`, `kind` ("checkpoint", "onnx", "openvino", "coreml"), `task`, `files` with `count` and `bytes`,
    `checks`, each with its name as `check`, `passed`, `detail` and, where it failed, a `hint`; `notes` on what was not
    checked; `measured`, what every graph scored; and `passed`. A folder whose files are not those of its manifest is
    looked at no further. Raises `UserError` only when there is no folder to check.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "give the folder of a checkpoint or of an export")
    report = _Report()
    progress("checksums")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    manifest: dict[str, Any] = {}
    whole = _check_files(folder, files, manifest, report)
    kind, task = manifest.get("kind") or kind_of(folder), manifest.get("task") or task_of(folder)
    # Each of these would fail, or mean nothing, after the one before it failed.
    if (
        whole
        and report.check("config.json", _config, folder, task)
        and report.check("tokenizer", _tokenizer, folder, task)
    ):
        measured = manifest.get("measured", {})
        _check_models(folder, kind, task, measured, questions, threads, report, progress)
    return {
        "artifact": str(folder),
        "kind": kind,
        "task": task,
        "files": {"count": len(files), "bytes": sum(path.stat().st_size for path in files)},
        "checks": report.checks,
        "notes": report.notes,
        "measured": report.measured,
        "passed": all(check["passed"] for check in report.checks),
    }


def _check_files(folder: Path, files: Sequence[Path], manifest: dict[str, Any], report: _Report) -> bool:
    """Hold the files against the manifest, which is put into `manifest`. Returns whether what it lists is there."""
    if not (folder / MANIFEST).is_file():
        report.notes.append(f"there is no {MANIFEST}: no file could be held against a checksum")
        return True

    def checksums() -> str:
        manifest.update(read_manifest(folder) or {})
        return f"{len(manifest['files'])} files match their SHA-256"

    if not report.check("checksums", checksums):
        return False
    listed = {folder / MANIFEST, *(folder / relative for relative in manifest["files"])}
    others = [path.relative_to(folder) for path in files if path not in listed]
    # What version control, downloads and file browsers leave behind: no runtime opens it.
    hidden = [path for path in others if any(part.startswith(".") for part in path.parts)]
    if hidden:
        report.notes.append(f"not in {MANIFEST} and not checked: {', '.join(map(str, hidden))}")
    report.check("no other files", _no_others, folder, [path for path in others if path not in hidden])
    return True


def _no_others(folder: Path, others: Sequence[Path]) -> str:
    if others:
        more = f", nor are {len(others) - 1} other files" if len(others) > 1 else ""
        raise UserError(
            f"{folder / others[0]}: is not in {MANIFEST}{more}", "a runtime may load it: move it out of the folder"
        )
    return f"every file is in {MANIFEST}"


def _starter_questions(passages: int | None = None) -> list[Question]:
    return parse_squad(starter.questions("test", passages=passages), "starter set, test")


def _config(folder: Path, task: Task) -> str:
    return f"of a {load_config(resolve(folder), task).model_type} model for {task}"


def _positions(folder: Path, task: Task) -> int:
    return usable_positions(load_config(folder, task).to_dict())


def _tokenizer(folder: Path, task: Task) -> str:
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(folder)
    special_tokens(tokenizer)
    check_belongs(tokenizer, load_config(folder, task).vocab_size, folder)
    path = folder / "tokenizer_config.json"
    read_json(path)
    # transformers makes its tokeniser from these settings too: where they say something else, it gives other ids.
    try:
        library = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as fault:  # whatever a wrong value runs into
        raise UserError(f"{path}: transformers makes no tokeniser of it: {str(fault).splitlines()[0]}", _COPY) from None
    for question in _starter_questions(passages=_TEXTS):
        for text in (question.question, question.context):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if library(text, add_special_tokens=False)["input_ids"] != ids:
                raise UserError(
                    f"{path}: by it transformers tokenises {text[:40]!r} otherwise than by tokenizer.json",
                    "copy both files from the model that the weights belong to",
                )
    return f"{tokenizer.get_vocab_size()} tokens, as the model has"


def _check_models(
    folder: Path,
    kind: str,
    task: Task,
    measured: Mapping[str, Any],
    questions: Sequence[Question] | None,
    threads: int | None,
    report: _Report,
    progress: Callable[[str], None],
) -> None:
    """Open, run and, where it answers questions, ask a checkpoint or every graph or package of an export."""
    progress("weights")
    open_packages = partial(_open_packages, measured=measured)
    openers: dict[str, Callable[..., dict[str, Runtime]]] = {
        "onnx": _open_onnx,
        "openvino": _open_openvino,
        "coreml": open_packages,
    }
    open_all = openers.get(kind, _open_checkpoint)
    positions = _positions(folder, task)
    running: dict[str, Runtime] = {}
    for precision, runtime in open_all(folder, task, threads, report).items():
        progress(f"running {precision}")
        if report.check(f"{precision}: logits", _logits, runtime, positions):
            running[precision] = runtime
    if task == "question-answering" and running:
        asked = questions if questions is not None else _starter_questions(passages=_PASSAGES)
        _ask(running, asked, min(MAX_LENGTH, positions), report, progress)


def _open_checkpoint(folder: Path, task: Task, threads: int | None, report: _Report) -> dict[str, Runtime]:
    from edge_distil.runtimes.torch import TorchRuntime

    opened: dict[str, Runtime] = {}

    def load() -> str:
        runtime = TorchRuntime.load(folder, task=task, threads=threads)
        weights = {name: tensor.numpy() for name, tensor in runtime.model.state_dict().items()}
        _check_finite(weights, folder)
        opened["fp32"] = runtime
        return f"loads, {sum(array.size for array in weights.values()):,} finite weights"

    report.check("fp32: weights", load)
    return opened


def _open_onnx(folder: Path, task: Task, threads: int | None, report: _Report) -> dict[str, Runtime]:
    import onnx

    from edge_distil.runtimes.onnx import GRAPHS, OnnxRuntime

    opened: dict[str, Runtime] = {}

    def load(precision: str, path: Path) -> str:
        runtime = OnnxRuntime(folder, precision=precision, threads=threads)
        graph = onnx.load(path).graph
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        _check_finite(weights, path)
        _check_names("inputs", [value.name for value in graph.input], _INPUTS, path)
        _check_names("outputs", runtime.outputs, _outputs(task), path)
        opened[precision] = runtime
        return f"opens, {sum(array.size for array in weights.values()):,} finite weights and scales"

    present = {precision: folder / graph for precision, graph in GRAPHS.items() if (folder / graph).is_file()}
    if not present:
        report.check("graphs", _no_graph, folder, "onnx")
    for precision, path in present.items():
        report.check(f"{precision}: graph", load, precision, path)
    others = sorted(path.name for path in set((folder / "onnx").glob("*.onnx")) - set(present.values()))
    if others:
        report.notes.append(f"graphs that take text, or of other precisions, were not opened: {', '.join(others)}")
    return opened


def _open_openvino(folder: Path, task: Task, threads: int | None, report: _Report) -> dict[str, Runtime]:
    from edge_distil.runtimes.openvino import MODELS, OpenVinoRuntime

    opened: dict[str, Runtime] = {}

    def load(precision: str, path: Path) -> str:
        runtime = OpenVinoRuntime(folder, precision=precision, threads=threads)
        _check_names("outputs", runtime.outputs, _outputs(task), path)
        opened[precision] = runtime
        return "opens"

    present = {precision: folder / model for precision, model in MODELS.items() if (folder / model).is_file()}
    if not present:
        report.check("graphs", _no_graph, folder, "openvino")
    for precision, path in present.items():
        report.check(f"{precision}: graph", load, precision, path)
    return opened


def _open_packages(
    folder: Path, task: Task, threads: int | None, report: _Report, *, measured: Mapping[str, Any]
) -> dict[str, Runtime]:
    """`measured` is what the manifest says of the export: the operations of every package are among it."""
    if not find_spec("coremltools"):
        report.notes.append("coremltools is not installed: no package was opened")
        return {}
    from edge_distil.runtimes.mil import PACKAGES, MilRuntime, find_package

    opened: dict[str, Runtime] = {}
    vocab_size = str(load_config(folder, task).vocab_size)
    positions = _positions(folder, task)

    def check(precision: str | None, path: Path) -> str:
        runtime = MilRuntime(folder, precision=precision, threads=threads)
        program = runtime.program
        _check_names("outputs", list(program.outputs), _outputs(task), path)
        for constant in program.constants:
            if not np.isfinite(largest := constant.largest):
                raise UserError(f"{path}: the constant {constant.name} reaches {largest}", _REMAKE)
        tokens = runtime.lengths[-1] if runtime.lengths else positions
        if tokens > positions:
            raise UserError(f"{path}: takes {tokens} tokens, config.json has {positions} positions", _COPY)
        if (named := program.metadata.get("vocab_size", vocab_size)) != vocab_size:
            raise UserError(f"{path}: was made for {named} tokens, config.json has {vocab_size}", _COPY)
        counted = measured.get(runtime.precision, {}).get("operations")
        if counted and counted != program.operation_counts:
            raise UserError(f"{path}: has other operations than {MANIFEST} lists", _COPY)
        opened[runtime.precision] = runtime
        return f"whole, {program.weight_bytes:,} bytes of weights, all finite; takes {tokens} tokens"

    present: dict[str | None, Path] = {key: folder / name for key, name in PACKAGES.items() if (folder / name).is_dir()}
    if not present and not report.check("package", lambda: find_package(folder, None)[0].name):
        return {}
    for precision, path in (present or {None: find_package(folder, None)[0]}).items():
        report.check(f"{path.name}: package", check, precision, path)
    if opened:
        report.notes.append(
            "packages were run operation by operation by torch, in fp16 where they say so: not by Core ML"
        )
    others = sorted(path.name for path in set(folder.glob("*.mlpackage")) - set(present.values())) if present else []
    if others:
        report.notes.append(f"packages of names that the toolkit does not write were not opened: {', '.join(others)}")
    return opened


def _no_graph(folder: Path, format: str) -> str:
    raise UserError(f"{folder / format}: holds no graph", f"export it: edge-distil export MODEL --format {format}")


def _outputs(task: Task) -> tuple[str, ...]:
    return ("start_logits", "end_logits") if task == "question-answering" else ("logits",)


def _check_names(what: str, found: Sequence[str], expected: Sequence[str], path: Path) -> None:
    if sorted(found) != sorted(expected):
        raise UserError(f"{path}: has the {what} {', '.join(found)}, expected are {', '.join(expected)}", _REMAKE)


def _check_finite(weights: Mapping[str, np.ndarray], path: Path) -> None:
    for name, array in weights.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UserError(f"{path}: {bad} of {array.size} values of {name} are NaN or infinite", _REMAKE)


def _decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    """The power of a signal over that of its noise, in decibels; infinite without noise."""
    power = float(np.square(noise, dtype=np.float64).sum())
    return 10 * float(np.log10(np.square(signal, dtype=np.float64).sum() / power)) if power else float("inf")


def _logits(runtime: Runtime, positions: int) -> str:
    """Run a few texts: their logits must be finite, differ from text to text, and not depend on padding."""
    tokenizer = load_tokenizer(runtime.folder)
    special = special_tokens(tokenizer)
    contexts = list(dict.fromkeys(question.context for question in _starter_questions(passages=_TEXTS)))
    room = min(positions, _TOKENS, runtime.lengths[-1] if runtime.lengths else _TOKENS) - 2
    # Each half as long as the one before, so that all but the first are padded when they run together.
    texts = [
        [special.cls, *encoding.ids[: room >> halvings], special.sep]
        for halvings, encoding in enumerate(tokenizer.encode_batch(contexts, add_special_tokens=False))
    ]
    # With another token than a text alone is padded with: one that takes a single length has padding there too.
    ids_BL, mask_BL = pad(texts, special.unk, runtime.lengths)
    together, unmasked = runtime(ids_BL, mask_BL), runtime(ids_BL, np.ones_like(mask_BL))
    # A classifier has one row of logits for each text, the others one for each token.
    by_token = together[runtime.outputs[0]].shape[:2] == ids_BL.shape
    tokens = [len(text) if by_token else None for text in texts]

    def real(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """The logits of a batch, without those of its padding."""
        parts = [batch[name][row, :length] for name in runtime.outputs for row, length in enumerate(tokens)]
        return np.concatenate([part.ravel() for part in parts])

    each = [runtime(*pad([text], special.pad, runtime.lengths)) for text in texts]
    alone = np.concatenate(
        [
            values[name][0, :length].ravel()
            for name in runtime.outputs
            for values, length in zip(each, tokens, strict=True)
        ]
    )
    for logits in (alone, real(together)):
        if bad := int((~np.isfinite(logits)).sum()):
            raise UserError(f"{runtime.folder}: {bad} of {logits.size} logits are NaN or infinite", _REMAKE)
    for name in runtime.outputs:
        # At the places that all texts have, so that their lengths make no difference.
        common = [values[name][0, : tokens[-1]] for values in each]
        if min(float(np.abs(one - other).max()) for one, other in pairwise(common)) <= _LEAST_DIFFERENCE * alone.std():
            raise UserError(f"{runtime.folder}: gives the same {name} for different texts", _REMAKE)
    decibels = _decibels(alone, real(together) - alone)
    # Few bits are shared by the range of a whole batch, so that one text moves another's logits a little. A graph that
    # does not hear its mask is moved by padding as much as if there were none.
    least = _LEAST_DECIBELS if runtime.precision == "fp32" else _decibels(alone, real(unmasked) - alone) + 3
    if decibels < least:
        raise UserError(
            f"{runtime.folder}: padding changes the {runtime.precision} logits, {decibels:.1f} dB where at least "
            f"{least:.1f} are expected",
            _REMAKE,
        )
    return f"{alone.size:,} finite logits of {len(texts)} texts, with padding and without"


def _ask(
    runtimes: Mapping[str, Runtime],
    questions: Sequence[Question],
    max_length: int,
    report: _Report,
    progress: Callable[[str], None],
) -> None:
    """Ask every graph the same questions. That in fp32, or else that with the best F1, is the others' measure."""
    answers: dict[str, dict[str, str]] = {}
    measured = report.measured
    for precision, runtime in runtimes.items():
        progress(f"asking {precision}")
        found = predict(QuestionAnswerer(runtime, max_length=max_length), questions)
        answers[precision] = {identifier: answer.text for identifier, answer in found.items()}
        measured[precision] = dict(score_squad(questions, answers[precision]))
    best = max(measured, key=lambda precision: (precision == "fp32", measured[precision]["f1"]))

    def agreement(precision: str) -> str:
        figures = measured[precision]
        same = sum(answers[precision][key] == text for key, text in answers[best].items())
        figures["same_answers"] = agreed = 100 * same / len(questions)
        scored = f"exact match {figures['exact_match']:.2f}, F1 {figures['f1']:.2f} on {len(questions):,} questions"
        if agreed < LEAST_AGREEMENT:
            raise UserError(
                f"the {precision} graph gives {agreed:.1f} % of the {best} one's answers, at least "
                f"{LEAST_AGREEMENT:g} % is expected ({len(questions)} questions)",
                "are they of one model? Export it again, in more bits where this one loses too much",
            )
        return scored if precision == best else f"{scored}, {agreed:.1f} % of {best}'s answers"

    for precision in runtimes:
        report.check(f"{precision}: answers", agreement, precision)
