"""SQuAD: reading and checking the files, and windows of token ids.

Rajpurkar et al., 2016 (v1.1) and 2018 (v2.0). All offsets are characters (code points) of the context as given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edge_distil.checkpoints import read_json
from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens

MAX_LENGTH = 384
DOC_STRIDE = 128
MAX_QUESTION_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one context. `answers` holds (text, start character) pairs, none where unanswerable."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One model input: `[CLS] question [SEP] part of the context [SEP]`.

    `question` is the index of its question; `context_start` the position of the first context token in `input_ids`;
    `offsets_C2` the first and one-past-last character of each of the C context tokens.
    """

    question: int
    input_ids: list[int]
    context_start: int
    offsets_C2: np.ndarray

    @property
    def context_end(self) -> int:
        """One past the position of the last context token."""
        return self.context_start + len(self.offsets_C2)


def read_squad(path: Path, *, version_2: bool = False) -> list[Question]:
    """The questions of a SQuAD file. Raises `UserError` as `parse_squad` does, or when the file is no JSON."""
    return parse_squad(read_json(path), str(path), version_2=version_2)


def parse_squad(document: Any, source: str, *, version_2: bool = False) -> list[Question]:
    """The questions of a SQuAD document, each field checked.

    Raises `UserError` that names the article, paragraph and question id: a missing field, an id given twice, an answer
    whose text is not at its `answer_start`, an unanswerable question when `version_2` is off, no question at all.
    """

    def field(value: Any, name: str, kind: type, where: str) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get(name), kind):
            raise UserError(
                f"{where}: field {name!r} is missing or not a {kind.__name__}", "give a SQuAD v1.1 JSON file"
            )
        return value[name]

    questions: list[Question] = []
    seen: set[str] = set()
    for article_index, article in enumerate(field(document, "data", list, source)):
        where = f"{source}: article {article_index}"
        for paragraph_index, paragraph in enumerate(field(article, "paragraphs", list, where)):
            where = f"{source}: article {article_index}, paragraph {paragraph_index}"
            context = field(paragraph, "context", str, where)
            for qa in field(paragraph, "qas", list, where):
                identifier = field(qa, "id", str, where)
                at = f"{where}, question {identifier!r}"
                if identifier in seen:
                    raise UserError(f"{at}: this id was given before", "make every id unique")
                seen.add(identifier)
                answers = tuple(
                    (field(answer, "text", str, at), field(answer, "answer_start", int, at))
                    for answer in field(qa, "answers", list, at)
                )
                if not answers and not version_2:
                    raise UserError(
                        f"{at}: has no answer, as in SQuAD v2.0",
                        "add --squad-v2 if the file holds unanswerable questions",
                    )
                for text, start in answers:
                    if not text or start < 0 or context[start : start + len(text)] != text:
                        raise UserError(
                            f"{at}: the answer {text!r} is not at character {start} of the context, "
                            f"which reads {context[max(start, 0) : max(start, 0) + len(text)]!r}",
                            "correct answer_start: it counts characters, not bytes, from 0",
                        )
                questions.append(Question(identifier, field(qa, "question", str, at), context, answers))
    if not questions:
        raise UserError(f"{source}: holds no question", "give a SQuAD v1.1 JSON file with at least one question")
    return questions


def windows(
    questions: Sequence[Question], tokenizer: Tokenizer, *, max_length: int = MAX_LENGTH, doc_stride: int = DOC_STRIDE
) -> list[Window]:
    """Cut every question and its context into windows of at most `max_length` tokens, in order.

    `doc_stride` is how many context tokens the next window starts after the last one (Devlin et al.'s meaning), never
    more than a window holds, so no token is skipped. Questions are cut to 64 tokens, and to half the window. Raises
    `UserError` for a question or a context without a single token.
    """
    special = special_tokens(tokenizer)
    # A context is shared by its questions, so each distinct text is tokenised once.
    contexts = {context: index for index, context in enumerate(dict.fromkeys(q.context for q in questions))}
    encoded = tokenizer.encode_batch(list(contexts), add_special_tokens=False)
    offsets = [np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encoded]
    asked = tokenizer.encode_batch([q.question for q in questions], add_special_tokens=False)
    result = []
    for index, (question, asking) in enumerate(zip(questions, asked, strict=True)):
        at = contexts[question.context]
        context_ids = encoded[at].ids
        if not context_ids or not asking.ids:
            empty = "question" if context_ids else "context"
            raise UserError(f"question {question.id!r}: its {empty} is empty", f"give a {empty} with some text in it")
        question_ids = asking.ids[: min(MAX_QUESTION_TOKENS, max_length // 2)]
        prefix = [special.cls, *question_ids, special.sep]
        room = max_length - len(prefix) - 1
        first = 0
        while True:
            part = context_ids[first : first + room]
            result.append(Window(index, [*prefix, *part, special.sep], len(prefix), offsets[at][first : first + room]))
            if first + room >= len(context_ids):
                break
            first += min(doc_stride, room)
    return result


def gold_span(window: Window, answer: tuple[str, int]) -> tuple[int, int]:
    """First and last token position of an answer in a window; (0, 0), the [CLS] token, where it is not whole in it.

    The span is the smallest run of tokens that covers every character of the answer.
    """
    text, start = answer
    end = start + len(text)
    starts_C, ends_C = window.offsets_C2[:, 0], window.offsets_C2[:, 1]
    touching = np.flatnonzero((ends_C > start) & (starts_C < end))
    # What no token covers inside a window, such as a blank or a combining mark at the answer's end, is no cut.
    if len(touching) == 0 or starts_C[0] > start or ends_C[-1] < end:
        return 0, 0
    return window.context_start + int(touching[0]), window.context_start + int(touching[-1])
