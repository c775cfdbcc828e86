"""Text in, answers out, over any runtime."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edge_distil.checkpoints import check_length
from edge_distil.errors import UserError
from edge_distil.runtimes import Runtime, open_runtime
from edge_distil.tasks.decoding import Answer, Decoding, Spans, best_spans
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, Question, Window, windows
from edge_distil.tokenization import fitting_length, load_tokenizer, pad, special_tokens

# Enough to put windows of like length into one batch.
_AT_ONCE = 512


def predict_windows(
    runtime: Runtime, prepared: Sequence[Window], pad_id: int, *, batch_size: int = 16
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Run windows in batches of like length, so that little is spent on padding, or as many at once as it asks for.

    Yields (index of the window, start logits [L], end logits [L]) with L its own number of tokens, in no fixed order.
    """
    by_length = sorted(range(len(prepared)), key=lambda index: -len(prepared[index].input_ids))
    batch_size = runtime.batch_size or batch_size
    for first in range(0, len(by_length), batch_size):
        indices = by_length[first : first + batch_size]
        logits = runtime(*pad([prepared[index].input_ids for index in indices], pad_id, runtime.lengths))
        for row, index in enumerate(indices):
            length = len(prepared[index].input_ids)
            yield index, logits["start_logits"][row, :length], logits["end_logits"][row, :length]


class QuestionAnswerer:
    """Answers questions about passages of any length, with character offsets into the passage as given."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        tokenizer: Tokenizer | None = None,
        max_length: int = MAX_LENGTH,
        doc_stride: int = DOC_STRIDE,
        unanswerable: bool = False,
        decoding: Decoding | None = None,
    ) -> None:
        """`runtime` must give `start_logits` and `end_logits`; its folder's tokeniser and `decoding.json` are used
        unless others are given. With `unanswerable` the empty answer is among the ranked.

        Raises `UserError` for a model without such logits, for a `max_length` that it has no positions for, and for a
        broken `decoding.json`.
        """
        if "start_logits" not in runtime.outputs:
            raise UserError(
                f"{runtime.folder}: has no question-answering head, it gives {', '.join(runtime.outputs)}",
                "give a model that was fine-tuned: edge-distil finetune --task squad",
            )
        self.runtime = runtime
        self.tokenizer = tokenizer or load_tokenizer(runtime.folder)
        # Windows fill the length that they would be padded to anyway.
        self.max_length = fitting_length(max_length, runtime.lengths)
        check_length(runtime.folder, self.max_length, "--max-length")
        self.doc_stride = doc_stride
        self.unanswerable = unanswerable
        self.decoding = decoding or Decoding.load(runtime.folder)
        self._pad_id = special_tokens(self.tokenizer).pad

    @classmethod
    def open(cls, folder: Path, **options: object) -> "QuestionAnswerer":
        """Over whatever a folder holds: a checkpoint or an export. `options` go to `open_runtime`."""
        return cls(open_runtime(folder, **options))  # type: ignore[arg-type]

    def ask(self, question: str, context: str, *, n_best: int = 1) -> list[Answer]:
        """The `n_best` answers to one question, best first."""
        return self.ask_all([Question("question", question, context, ())])["question"][:n_best]

    def ask_all(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int = 16,
        progress: Callable[[float], None] = lambda questions_done: None,
    ) -> dict[str, list[Answer]]:
        """Ranked answers by question id. `progress` is told how much more was run: each question counts 1 in all."""
        found = self.spans(questions, batch_size=batch_size, progress=progress)
        return {
            identifier: self.decoding.answers(spans, unanswerable=self.unanswerable)
            for identifier, spans in found.items()
        }

    def spans(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int = 16,
        progress: Callable[[float], None] = lambda questions_done: None,
    ) -> dict[str, Spans]:
        """The best spans by question id, before `decoding` makes answers of them. `progress` is as in `ask_all`.

        Questions are taken some hundred at a time, so that memory does not grow with their number.
        """
        found: dict[str, Spans] = {}
        for first in range(0, len(questions), _AT_ONCE):
            asked = questions[first : first + _AT_ONCE]
            prepared = windows(asked, self.tokenizer, max_length=self.max_length, doc_stride=self.doc_stride)
            counts = Counter(window.question for window in prepared)
            of_question: list[dict[int, tuple[Window, np.ndarray, np.ndarray]]] = [{} for _ in asked]
            for index, start_L, end_L in predict_windows(self.runtime, prepared, self._pad_id, batch_size=batch_size):
                window = prepared[index]
                of_question[window.question][index] = (window, start_L, end_L)
                progress(1 / counts[window.question])
            for question, of_windows in zip(asked, of_question, strict=True):
                in_order = [of_windows[index] for index in sorted(of_windows)]
                found[question.id] = best_spans(in_order, question.context)
        return found
