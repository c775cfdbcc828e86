"""What every export must show before it is written: that it says what the checkpoint says, on real questions.

A check that fails raises `UserError` with the figure that was measured and the one that was expected; the caller writes
nothing then.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime
from edge_distil.tasks import Task
from edge_distil.tasks.classification import encode, predict_texts
from edge_distil.tasks.decoding import Answer, Decoding
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question
from edge_distil.tasks.texts import Example
from edge_distil.tokenization import load_tokenizer, special_tokens
from exporters.coreml.package import CONTROL_FLOW, Feature, Package
from exporters.encoder import PlainEncoder

# fp32 against fp32 differs by rounding alone, some 1e-5; a wrong weight, mask or position moves logits by far more.
LOGIT_TOLERANCE = 1e-3
# Of an int8 artifact where there are no gold answers to score: the share of same answers or words, in percent.
LEAST_AGREEMENT = 80.0
# Small vectors may be folded into the program or shared, so the weights on disk are a little fewer than the model's.
WEIGHT_BYTES_TOLERANCE = 0.02
_FP16_LARGEST = float(np.finfo(np.float16).max)
_REPORT = "this is a fault of the exporter, not of the checkpoint: please report it with the checkpoint's config.json"


class TracedRuntime:
    """A traced module of fixed length behind the interface of `edge_distil.runtimes.Runtime`."""

    name = "torch.jit"
    precision = "fp32"

    def __init__(
        self, traced: torch.jit.ScriptModule, outputs: tuple[str, ...], folder: Path, fixed_length: int
    ) -> None:
        self.outputs = outputs
        self.folder = folder
        self.fixed_length: int | None = fixed_length
        self._traced = traced

    @torch.inference_mode()
    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        # Row by row and in int32, exactly as the package will be called.
        ids_BL, mask_BL = torch.from_numpy(input_ids_BL).int(), torch.from_numpy(attention_mask_BL).int()
        rows = [self._traced(ids_BL[row : row + 1], mask_BL[row : row + 1]) for row in range(len(ids_BL))]
        return {
            name: torch.cat(values).numpy() for name, values in zip(self.outputs, zip(*rows, strict=True), strict=True)
        }


class _Recorded:
    """A runtime that keeps the logits of every real token, so that one pass gives both the answers and the logits."""

    def __init__(self, runtime: Runtime, fixed_length: int | None) -> None:
        self.name, self.precision, self.outputs = runtime.name, runtime.precision, runtime.outputs
        self.folder = runtime.folder
        self.fixed_length = fixed_length
        self._runtime = runtime
        self._logits: list[np.ndarray] = []

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        values = self._runtime(input_ids_BL, attention_mask_BL)
        self._logits += [values[name][attention_mask_BL == 1] for name in self.outputs]
        return values

    def logits(self) -> np.ndarray:
        return np.concatenate(self._logits)


def _check_finite(what: str, logits: np.ndarray, hint: str) -> None:
    bad = int((~np.isfinite(logits)).sum())
    if bad:
        raise UserError(
            f"the {what} gives {bad} logits of {logits.size} that are NaN or infinite, expected is none", hint
        )


def _check_logits(what: str, logits: np.ndarray, expected: np.ndarray, exact: bool) -> float:
    """The greatest difference of two arrays of logits. Refuses values that are not finite; if `exact`, differences."""
    _check_finite("checkpoint", expected, "the checkpoint itself is broken: train it again")
    _check_finite(what, logits, _REPORT)
    difference = float(np.abs(logits - expected).max())
    if exact and difference > LOGIT_TOLERANCE:
        raise UserError(
            f"the {what} differs from the checkpoint by {difference:.3g} in a logit, "
            f"at most {LOGIT_TOLERANCE:g} is expected",
            _REPORT,
        )
    return difference


def _check_agreement(what: str, agreement: float, exact: bool) -> None:
    least = 100.0 if exact else LEAST_AGREEMENT
    if agreement < least:
        raise UserError(
            f"the {what} agrees with the checkpoint on {agreement:.1f} % of outputs, at least {least:g} % is expected",
            _REPORT if exact else "train the checkpoint for longer: its outputs are too close to each other for int8",
        )


def _check_drop(what: str, expected_f1: float, f1: float, questions: int, max_drop: float) -> None:
    # One answer of n counts 100 / n points: no finer loss can be asked for. Scores are sums, so that much rounds.
    allowed = max(max_drop, 100 / questions)
    if expected_f1 - f1 > allowed + 1e-6:
        raise UserError(
            f"the {what} loses {expected_f1 - f1:.2f} points of F1 on {questions} questions "
            f"({expected_f1:.2f} to {f1:.2f}), at most {allowed:.2f} is expected",
            "give more questions to measure it better, or accept the loss with a larger --max-drop",
        )


def _same_answer(expected: Sequence[Answer], found: Answer) -> bool:
    """Whether the checkpoint ranks an answer first, or level with its first within what rounding does to logits."""
    scores = {(answer.start, answer.end): answer.score for answer in expected}
    # A span's logit is a sum of two, and each of the two spans compared may be off by as much.
    return scores.get((found.start, found.end), 0.0) >= expected[0].score * math.exp(-4 * LOGIT_TOLERANCE)


def _check_question_answering(
    reference: Runtime,
    artifacts: Mapping[str, Runtime],
    questions: Sequence[Question],
    max_length: int,
    max_drop: float,
) -> dict[str, Any]:
    fixed_length = next(iter(artifacts.values())).fixed_length
    with_gold = [question for question in questions if question.answers]

    def run(runtime: Runtime) -> tuple[np.ndarray, dict[str, list[Answer]], dict[str, float]]:
        recorded = _Recorded(runtime, fixed_length)
        # Without the temperature, which would stretch the differences that rounding may make between scores.
        answers = QuestionAnswerer(recorded, max_length=max_length, decoding=Decoding()).ask_all(questions)
        best = {identifier: ranked[0].text for identifier, ranked in answers.items()}
        return recorded.logits(), answers, score_squad(with_gold, best) if with_gold else {}

    expected_logits, expected_answers, expected_scores = run(reference)
    measured: dict[str, Any] = {"questions": len(questions), "checkpoint": expected_scores}
    for precision, runtime in artifacts.items():
        exact, what = runtime.precision == "fp32", f"{precision} model"
        logits, answers, scores = run(runtime)
        difference = _check_logits(what, logits, expected_logits, exact)
        same = sum(_same_answer(expected_answers[key], ranked[0]) for key, ranked in answers.items())
        agreement = 100 * same / len(questions)
        if exact or not with_gold:
            _check_agreement(what, agreement, exact)
        else:
            _check_drop(what, expected_scores["f1"], scores["f1"], len(with_gold), max_drop)
        measured[precision] = {"max_logit_difference": difference, "same_answers": agreement, **scores}
    return measured


def _check_masked_lm(
    reference: Runtime, artifacts: Mapping[str, Runtime], questions: Sequence[Question], max_length: int
) -> dict[str, Any]:
    tokenizer = load_tokenizer(reference.folder)
    special = special_tokens(tokenizer)
    texts = list(dict.fromkeys(question.context for question in questions))
    differences: dict[str, list[float]] = {precision: [] for precision in artifacts}
    same: dict[str, list[np.ndarray]] = {precision: [] for precision in artifacts}
    # One text at a time: logits over a vocabulary are large.
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        ids = [special.cls, *encoding.ids[: max_length - 2], special.sep]
        for precision, runtime in artifacts.items():
            padding = (runtime.fixed_length or len(ids)) - len(ids)
            ids_1L = np.array([ids + [special.pad] * padding])
            mask_1L = np.array([[1] * len(ids) + [0] * padding])
            expected_LV = reference(ids_1L, mask_1L)["logits"][0, : len(ids)]
            logits_LV = runtime(ids_1L, mask_1L)["logits"][0, : len(ids)]
            what = f"{precision} model"
            differences[precision].append(_check_logits(what, logits_LV, expected_LV, runtime.precision == "fp32"))
            same[precision].append(logits_LV.argmax(axis=1) == expected_LV.argmax(axis=1))
    measured: dict[str, Any] = {"texts": len(texts)}
    for precision in artifacts:
        agreement = 100 * float(np.concatenate(same[precision]).mean())
        _check_agreement(f"{precision} model", agreement, exact=False)
        measured[precision] = {"max_logit_difference": max(differences[precision]), "same_words": agreement}
    return measured


def _check_text_classification(
    reference: Runtime, artifacts: Mapping[str, Runtime], questions: Sequence[Question], max_length: int
) -> dict[str, Any]:
    tokenizer = load_tokenizer(reference.folder)
    contexts = list(dict.fromkeys(question.context for question in questions))
    examples = [Example(str(number), text, None, "") for number, text in enumerate(contexts)]
    examples += [Example(question.id, question.question, question.context, "") for question in questions]
    ids = encode(examples, tokenizer, max_length)
    expected_NC = predict_texts(reference, ids)
    measured: dict[str, Any] = {"texts": len(ids)}
    for precision, runtime in artifacts.items():
        exact, what = runtime.precision == "fp32", f"{precision} model"
        logits_NC = predict_texts(runtime, ids)
        measured[precision] = {"max_logit_difference": _check_logits(what, logits_NC, expected_NC, exact)}
        if logits_NC.shape[1] > 1:  # of a regression there is no label to agree on
            same = 100 * float((logits_NC.argmax(axis=1) == expected_NC.argmax(axis=1)).mean())
            _check_agreement(what, same, exact=False)
            measured[precision]["same_labels"] = same
    return measured


def check_outputs(
    reference: Runtime,
    artifacts: Mapping[str, Runtime],
    questions: Sequence[Question],
    *,
    task: Task,
    max_length: int,
    max_drop: float,
) -> dict[str, Any]:
    """Hold the artifacts, by precision, against the checkpoint on the same inputs, and return what was measured.

    fp32 must give the same logits, to `LOGIT_TOLERANCE`, and the same answers. int8 must not lose more than `max_drop`
    points of F1, nor more than one answer where that counts for more; without gold answers, and for models of another
    task, it must agree on `LEAST_AGREEMENT` per cent of the answers, words or labels. Masked language models run on the
    questions' contexts, text classifiers on those and on pairs of a question and its context. Raises `UserError` when a
    check fails.
    """
    if task == "question-answering":
        return _check_question_answering(reference, artifacts, questions, max_length, max_drop)
    if task == "text-classification":
        return _check_text_classification(reference, artifacts, questions, max_length)
    return _check_masked_lm(reference, artifacts, questions, max_length)


def check_package(package: Package, model: PlainEncoder, max_length: int) -> dict[str, Any]:
    """Hold a Core ML package, as read back from disk, against the model it was made from; return what was measured.

    Inputs, outputs and their shapes, no control flow, every constant within the range of fp16, all weights there.
    Raises `UserError` when a check fails.
    """
    shape = (1, max_length)
    inputs = {name: Feature(shape, "INT32") for name in ("input_ids", "attention_mask")}
    outputs = {name: Feature(tuple(model.output_shape(1, max_length)), "FLOAT32") for name in model.output_names}
    for what, found, expected in (("inputs", package.inputs, inputs), ("outputs", package.outputs, outputs)):
        if found != expected:
            raise UserError(f"the Core ML package has the {what} {found}, expected are {expected}", _REPORT)
    if control_flow := sorted(CONTROL_FLOW & package.operations.keys()):
        raise UserError(f"the Core ML package branches ({', '.join(control_flow)}), an encoder does not", _REPORT)
    for constant in package.constants:
        if not constant.largest <= _FP16_LARGEST:  # so written, it also holds for NaN
            raise UserError(
                f"the Core ML package's constant {constant.name} reaches {constant.largest}, "
                f"fp16 holds at most {_FP16_LARGEST:g}",
                "check the checkpoint's weights for NaN and for values that large",
            )
    # Positions beyond the fixed length are never read, so the converter leaves their rows out.
    unused = (model.config.max_position_embeddings - max_length) * model.config.hidden_size
    expected_bytes = 2 * (sum(parameter.numel() for parameter in model.parameters()) - unused)
    if abs(package.weight_bytes - expected_bytes) > WEIGHT_BYTES_TOLERANCE * expected_bytes:
        raise UserError(
            f"the Core ML package holds {package.weight_bytes} bytes of weights, expected are {expected_bytes} "
            f"within {WEIGHT_BYTES_TOLERANCE:.0%}",
            _REPORT,
        )
    return {
        "weight_bytes": package.weight_bytes,
        "expected_weight_bytes": expected_bytes,
        "largest_constant": max(constant.largest for constant in package.constants),
        "operations": dict(sorted(package.operations.items())),
    }
