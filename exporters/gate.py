"""What every export must show before it is written: that it says what the checkpoint says, on real questions.

A check that fails raises `UserError` with the figure that was measured and the one that was expected; the caller writes
nothing then.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_distil.checkpoints import read_json
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime
from edge_distil.runtimes.mil import CONTROL_FLOW, MilRuntime, Operation, Program
from edge_distil.tasks import Task
from edge_distil.tasks.classification import decide, encode, predict_texts
from edge_distil.tasks.decoding import Answer, Decoding
from edge_distil.tasks.evaluation import labels_for, score_sets
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question
from edge_distil.tasks.texts import Example, TextTask
from edge_distil.tokenization import load_tokenizer, pad, special_tokens
from exporters.coreml.plan import CoreMLPlan, lengths_text
from exporters.coreml.program import Written, found_in
from exporters.encoder import PlainEncoder, TextClassificationHead

# fp32 against fp32 differs by rounding alone, some 1e-5; a wrong weight, mask or position moves logits by far more.
LOGIT_TOLERANCE = 1e-4
EXACT = ("fp32",)
# Of fewer bits where there are no gold answers to score: the share of same answers, words or labels, in percent.
LEAST_AGREEMENT = 80.0
# Logits of a package that is not rounded, against those of torch with the same weights.
LEAST_DECIBELS = 40.0
# Where activations are rounded to int8: those between two steps may go either way.
_LEAST_DECIBELS_ROUNDED = 20.0
_COMPARED = 4  # windows of that check
_FP16_LARGEST, _FP32_LARGEST = (float(np.finfo(kind).max) for kind in (np.float16, np.float32))
_MASKED_LM_TEXTS = 16  # each gives hundreds of tokens of a vocabulary's logits, which are kept
_REPORT = "this is a fault of the exporter, not of the checkpoint: please report it with the checkpoint's config.json"


class WatchedPackage:
    """A Core ML package that is run with an eye on every operation: none may give NaN or infinity.

    It rounds to fp16 after every operation, as a device does, where the package says fp16.
    """

    def __init__(self, runtime: MilRuntime) -> None:
        self.name, self.precision, self.outputs = runtime.name, runtime.precision, runtime.outputs
        self.folder, self.batch_size, self.lengths = runtime.folder, runtime.batch_size, runtime.lengths
        self._runtime = runtime

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        return self._runtime(input_ids_BL, attention_mask_BL, self._look)

    def _look(self, operation: Operation, name: str, value: torch.Tensor) -> None:
        # A sum of fp16 values is finite in fp32 unless one of them is not: one pass, and nothing is made.
        if value.is_floating_point() and not value.sum(dtype=torch.float32).isfinite():
            raise UserError(
                f"the {self.precision} package gives NaN or infinity at the operation {operation.type}, {name}",
                "check the checkpoint for weights that are very large, or export it with --precision fp32",
            )


class _Recorded:
    """A runtime that keeps the logits of every real token, so that one pass gives both the answers and the logits."""

    def __init__(self, runtime: Runtime, lengths: tuple[int, ...] | None) -> None:
        self.name, self.precision, self.outputs = runtime.name, runtime.precision, runtime.outputs
        self.folder, self.batch_size = runtime.folder, runtime.batch_size
        self.lengths = lengths
        self._runtime = runtime
        self._logits: list[np.ndarray] = []

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        values = self._runtime(input_ids_BL, attention_mask_BL)
        for row, mask_L in enumerate(attention_mask_BL):  # row by row: the order must not depend on the batch
            self._logits += [values[name][row, mask_L == 1] for name in self.outputs]
        return values

    def logits(self) -> np.ndarray:
        return np.concatenate(self._logits)


def _check_finite(what: str, logits: np.ndarray, hint: str) -> None:
    bad = int((~np.isfinite(logits)).sum())
    if bad:
        raise UserError(
            f"the {what} gives {bad} logits of {logits.size} that are NaN or infinite, expected is none", hint
        )


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    """Signal-to-noise ratio of all values together; at most 200, which stands for equal."""
    powers = [max(float(np.square(values, dtype=np.float64).sum()), 1e-20) for values in (signal, noise)]
    return min(10 * math.log10(powers[0] / powers[1]), 200.0)


def _agreement_fault(what: str, agreement: float, least: float) -> UserError | None:
    if agreement >= least:
        return None
    return UserError(
        f"the {what} agrees with the checkpoint on {agreement:.1f} % of outputs, at least {least:g} % is expected",
        _REPORT
        if least == 100.0
        else "train the checkpoint for longer: its outputs are too close to each other for so few bits",
    )


def _drop_fault(
    what: str, metric: str, expected: float, found: float, examples: int, max_drop: float
) -> UserError | None:
    # One answer of n counts 100 / n points: no finer loss can be asked for. Scores are sums, so that much rounds.
    allowed = max(max_drop, 100 / examples)
    if expected - found <= allowed + 1e-6:
        return None
    return UserError(
        f"the {what} loses {expected - found:.2f} points of {metric} on {examples} examples "
        f"({expected:.2f} to {found:.2f}), at most {allowed:.2f} is expected",
        "give more examples to measure it better, or accept the loss with a larger --max-drop",
    )


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Examples of a task about texts, whose labels an artifact is scored by."""

    task: TextTask
    examples: Sequence[Example]


class Judge(ABC):
    """Holds artifacts against a checkpoint on the same inputs, and remembers what the checkpoint said.

    `about` is what the manifest says of the measurement: on how much, and the checkpoint's own scores.
    """

    about: dict[str, Any]
    _expected: np.ndarray

    def measure(self, runtime: Runtime) -> dict[str, float]:
        """The figures of an artifact: `max_logit_difference`, `decibels` of its logits, and how well it does the task.

        Raises `UserError` where a logit of the checkpoint or the artifact is not finite.
        """
        logits, figures = self._run(runtime)
        _check_finite("checkpoint", self._expected, "the checkpoint itself is broken: train it again")
        _check_finite(f"{runtime.precision} model", logits, _REPORT)
        noise = logits - self._expected
        return {
            "max_logit_difference": float(np.abs(noise).max()),
            "decibels": decibels(self._expected, noise),
            **figures,
        }

    def fault(self, precision: str, figures: Mapping[str, float]) -> UserError | None:
        """Why an artifact with these figures must not be written; None where it may. fp32 must be exact."""
        what = f"{precision} model"
        difference = figures["max_logit_difference"]
        if precision not in EXACT:
            return self._loss(what, figures)
        if difference > LOGIT_TOLERANCE:
            return UserError(
                f"the {what} differs from the checkpoint by {difference:.3g} in a logit, "
                f"at most {LOGIT_TOLERANCE:g} is expected",
                _REPORT,
            )
        return self._difference(what, figures)

    @abstractmethod
    def _run(self, runtime: Runtime) -> tuple[np.ndarray, dict[str, float]]:
        """All logits in one array, and the figures of the task."""

    @abstractmethod
    def _difference(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        """Why an artifact whose logits are right is still not exact."""

    @abstractmethod
    def _loss(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        """Why an artifact of fewer bits loses too much."""


class _QuestionAnsweringJudge(Judge):
    """Asks the questions; with gold answers it is F1 that counts, without them the share of same answers."""

    def __init__(
        self,
        reference: Runtime,
        questions: Sequence[Question],
        max_length: int,
        max_drop: float,
        lengths: tuple[int, ...] | None,
    ) -> None:
        self._questions = questions
        self._with_gold = [question for question in questions if question.answers]
        self._max_length, self._max_drop, self._lengths = max_length, max_drop, lengths
        self._answers: dict[str, list[Answer]] = {}
        self._expected, self._answers, self._scores = self._ask(reference)
        self.about = {"questions": len(questions), "checkpoint": self._scores}

    def _ask(self, runtime: Runtime) -> tuple[np.ndarray, dict[str, list[Answer]], dict[str, float]]:
        recorded = _Recorded(runtime, self._lengths)
        # Without the temperature, which would stretch the differences that rounding may make between scores.
        answerer = QuestionAnswerer(recorded, max_length=self._max_length, decoding=Decoding())
        answers = answerer.ask_all(self._questions)
        best = {identifier: ranked[0].text for identifier, ranked in answers.items()}
        return recorded.logits(), answers, score_squad(self._with_gold, best) if self._with_gold else {}

    def _run(self, runtime: Runtime) -> tuple[np.ndarray, dict[str, float]]:
        logits, answers, scores = self._ask(runtime)
        same = sum(_same_answer(self._answers[key], ranked[0]) for key, ranked in answers.items())
        return logits, {"same_answers": 100 * same / len(self._questions), **scores}

    def _difference(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        return _agreement_fault(what, figures["same_answers"], 100.0)

    def _loss(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        if not self._with_gold:
            return _agreement_fault(what, figures["same_answers"], LEAST_AGREEMENT)
        return _drop_fault(what, "F1", self._scores["f1"], figures["f1"], len(self._with_gold), self._max_drop)


class _MaskedLMJudge(Judge):
    """Fills in every token of the questions' contexts."""

    def __init__(
        self,
        reference: Runtime,
        questions: Sequence[Question],
        max_length: int,
    ) -> None:
        tokenizer = load_tokenizer(reference.folder)
        self._special = special_tokens(tokenizer)
        texts = list(dict.fromkeys(question.context for question in questions))[:_MASKED_LM_TEXTS]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        self._ids = [[self._special.cls, *each.ids[: max_length - 2], self._special.sep] for each in encodings]
        self._expected = self._logits(reference)
        self.about = {"texts": len(texts)}

    def _logits(self, runtime: Runtime) -> np.ndarray:
        # One text at a time: logits over a vocabulary are large.
        rows = [runtime(*pad([ids], self._special.pad, runtime.lengths)) for ids in self._ids]
        return np.concatenate([row["logits"][0, : len(ids)] for row, ids in zip(rows, self._ids, strict=True)])

    def _run(self, runtime: Runtime) -> tuple[np.ndarray, dict[str, float]]:
        logits_TV = self._logits(runtime)
        same_T = logits_TV.argmax(axis=1) == self._expected.argmax(axis=1)
        return logits_TV, {"same_words": 100 * float(same_T.mean())}

    def _difference(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        return _agreement_fault(what, figures["same_words"], LEAST_AGREEMENT)

    _loss = _difference


class _TextJudge(Judge):
    """Classifies texts; with their labels it is the task's metric that counts, without them the share of same ones."""

    def __init__(
        self,
        reference: Runtime,
        questions: Sequence[Question],
        max_length: int,
        max_drop: float,
        labelled: LabelledTexts | None,
    ) -> None:
        self._labelled, self._max_drop = labelled, max_drop
        if labelled is not None:
            examples = list(labelled.examples)
            config = read_json(reference.folder / "config.json")
            self._labels = labels_for(labelled.task, config, reference.folder)
        else:
            contexts = list(dict.fromkeys(question.context for question in questions))
            examples = [Example(str(number), text, None, "") for number, text in enumerate(contexts)]
            examples += [Example(question.id, question.question, question.context, "") for question in questions]
        self._ids = encode(examples, load_tokenizer(reference.folder), max_length)
        self._expected = predict_texts(reference, self._ids)
        self._scores = self._score(self._expected)
        self.about = {"texts": len(examples), **({"checkpoint": self._scores} if self._scores else {})}

    def _score(self, logits_NC: np.ndarray) -> dict[str, float]:
        if self._labelled is None:
            return {}
        predicted = decide(logits_NC, self._labels)
        scores = score_sets(self._labelled.task, {"": self._labelled.examples}, predicted)
        return {name: value for name, value in scores.items() if name != "examples"}

    def _run(self, runtime: Runtime) -> tuple[np.ndarray, dict[str, float]]:
        logits_NC = predict_texts(runtime, self._ids)
        if logits_NC.shape[1] == 1:  # of a regression there is no label to agree on
            return logits_NC, self._score(logits_NC)
        same_N = logits_NC.argmax(axis=1) == self._expected.argmax(axis=1)
        return logits_NC, {"same_labels": 100 * float(same_N.mean()), **self._score(logits_NC)}

    def _difference(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        return _agreement_fault(what, figures.get("same_labels", 100.0), LEAST_AGREEMENT)

    def _loss(self, what: str, figures: Mapping[str, float]) -> UserError | None:
        if self._labelled is None:
            return self._difference(what, figures)
        name, found, examples = self._labelled.task.name, figures["score"], len(self._labelled.examples)
        return _drop_fault(what, f"{name} score", self._scores["score"], found, examples, self._max_drop)


def judge(
    reference: Runtime,
    questions: Sequence[Question],
    *,
    task: Task,
    max_length: int,
    max_drop: float,
    lengths: tuple[int, ...] | None = None,
    labelled: LabelledTexts | None = None,
) -> Judge:
    """The judge for a task, after it has run the checkpoint.

    fp32 must give the same logits, to `LOGIT_TOLERANCE`, and the same answers. Fewer bits must not lose more than
    `max_drop` points of F1 or of a task's score, nor more than one answer where that counts for more; without gold
    answers or labels they must agree on `LEAST_AGREEMENT` per cent of the answers, words or labels. Masked language
    models run on the questions' contexts, text classifiers on `labelled`, else on those contexts and on pairs of a
    question and its context. `lengths` are the input lengths that the artifacts take, None where any will do.
    """
    if task == "question-answering":
        return _QuestionAnsweringJudge(reference, questions, max_length, max_drop, lengths)
    if task == "text-classification":
        return _TextJudge(reference, questions, max_length, max_drop, labelled)
    return _MaskedLMJudge(reference, questions, max_length)


def check_outputs(court: Judge, artifacts: Mapping[str, Runtime]) -> dict[str, Any]:
    """Measure the artifacts, by name, and raise `UserError` for the first that must not be written."""
    measured = dict(court.about)
    for name, runtime in artifacts.items():
        measured[name] = court.measure(runtime)
        if fault := court.fault(runtime.precision, measured[name]):
            raise fault
    return measured


def _same_answer(expected: Sequence[Answer], found: Answer) -> bool:
    """Whether the checkpoint ranks an answer first, or level with its first within what rounding does to logits."""
    scores = {(answer.start, answer.end): answer.score for answer in expected}
    # A span's logit is a sum of two, and each of the two spans compared may be off by as much.
    return scores.get((found.start, found.end), 0.0) >= expected[0].score * math.exp(-4 * LOGIT_TOLERANCE)


@torch.inference_mode()
def check_computes(runtime: MilRuntime, twin: PlainEncoder, samples: Sequence[np.ndarray]) -> float:
    """Whether a package computes what a model with its weights does, and in decibels, how nearly.

    `runtime` does not round to fp16, and `twin` has the weights that the package unpacks: what is left between them is
    the order of sums. `samples` are token ids [1, L], which are padded as the package takes them. Raises `UserError`.
    """
    expected, found = [], []
    for ids_1L in samples[:_COMPARED]:
        ids_1P, mask_1P = pad([ids_1L[0].tolist()], 0, runtime.lengths)
        outputs = runtime(ids_1P, mask_1P)
        wanted = twin(torch.from_numpy(ids_1P), torch.from_numpy(mask_1P))
        of_tokens = not isinstance(twin.head, TextClassificationHead)
        for name, logits in zip(runtime.outputs, wanted, strict=True):
            kept = mask_1P == 1 if of_tokens else slice(None)
            expected.append(logits.numpy()[kept].ravel())
            found.append(outputs[name][kept].ravel())
    signal, noise = np.concatenate(expected), np.concatenate(found) - np.concatenate(expected)
    reached = decibels(signal, noise)
    least = _LEAST_DECIBELS_ROUNDED if runtime.precision == "w8a8" else LEAST_DECIBELS
    if not reached >= least:
        raise UserError(
            f"the {runtime.precision} package's logits are {reached:.1f} dB above their distance from torch's "
            f"with the same weights, at least {least:g} dB are expected",
            _REPORT,
        )
    return reached


def check_package(program: Program, model: PlainEncoder, plan: CoreMLPlan, written: Written) -> dict[str, Any]:
    """Hold a Core ML package, as read back from disk, against what was to be written; return what it holds.

    Every byte of its specification and every weight, its inputs and outputs and their lengths, no control flow, all
    constants finite and within the range of what they are in. Raises `UserError` when a check fails.
    """
    found = found_in(program)
    if found != written:
        what = "specification" if found.specification != written.specification else "weight file"
        raise UserError(
            f"the {what} of {program.path.name} is not what was written", "check the disk, then export again"
        )
    lengths = {name: feature.lengths() for name, feature in program.inputs.items()}
    if lengths != dict.fromkeys(("input_ids", "attention_mask"), tuple(plan.lengths)):
        raise UserError(f"the Core ML package takes {lengths}, expected are {lengths_text(plan.lengths)}", _REPORT)
    if list(program.outputs) != list(model.output_names):
        raise UserError(
            f"the Core ML package gives {', '.join(program.outputs)}, expected are {', '.join(model.output_names)}",
            _REPORT,
        )
    if control_flow := sorted(CONTROL_FLOW & program.operation_counts.keys()):
        raise UserError(f"the Core ML package branches ({', '.join(control_flow)}), an encoder does not", _REPORT)
    largest = {constant.name: constant.largest for constant in program.constants}
    for name, reached in largest.items():
        if not reached <= (_FP16_LARGEST if plan.precision != "fp32" else _FP32_LARGEST):  # so written, also for NaN
            raise UserError(
                f"the Core ML package's constant {name} reaches {reached}, {plan.precision} holds at most "
                f"{_FP16_LARGEST if plan.precision != 'fp32' else _FP32_LARGEST:g}",
                "check the checkpoint's weights for NaN and for values that large",
            )
    return {
        "weight_bytes": program.weight_bytes,
        "largest_constant": max(largest.values()),
        "operations": dict(sorted(program.operation_counts.items())),
    }
