"""The starter set as the rest of the toolkit reads it: SQuAD v1.1 questions, and text for masked-language modelling."""

import random
import re
from collections.abc import Iterator
from typing import Any

from edge_distil.starter import generator
from edge_distil.starter.names import INVENTED, SPLITS

PASSAGES = {"train": 3000, "dev": 100, "test": 100}
DOCUMENTS = {"train": 6000, "dev": 200, "test": 200}
RESTATEMENTS = 4
# "Who first climbed …?", where the passage says it in other words.
EXAMPLE_PASSAGE, EXAMPLE_QUESTION = 47, 4


def questions(split: str, passages: int | None = None, seed: int = generator.SEED) -> dict[str, Any]:
    """Questions about generated passages, in the format of SQuAD v1.1.

    Returns `{"version": "1.1", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers":
    [{"text", "answer_start"}]}]}]}]}`, one article a passage. An id such as `starter-train-00012-founding_year-1` tells
    the split, the passage, the kind of question and its place among the questions of the passage.

    `split` is "train", "dev" or "test"; no invented name occurs in two of them. By default there are 3000, 100 and 100
    passages. Raises ValueError for an unknown split.
    """
    articles = []
    for index, passage in enumerate(_passages(split, passages, PASSAGES, seed)):
        qas = [
            _qa(f"starter-{split}-{index:05d}-{question.kind}-{number}", question.text, question.answer, question.start)
            for number, question in enumerate(passage.questions)
        ]
        articles.append({"title": passage.title, "paragraphs": [{"context": passage.text, "qas": qas}]})
    return {"version": "1.1", "data": articles}


def corpus(split: str, documents: int | None = None, seed: int = generator.SEED) -> list[str]:
    """Plain text for masked-language modelling.

    Returns documents of two paragraphs joined by a newline: a passage, then some of its facts told again as questions
    and answers, which a masked language model can only complete by looking them up. The first documents hold the
    passages of `questions`; by default twice as many documents as passages are made. To write a corpus file, join the
    documents with a blank line. Raises ValueError for an unknown split.
    """
    return [
        passage.text + "\n" + " ".join(f"{q.text} {q.reply}" for q in passage.questions[:RESTATEMENTS])
        for passage in _passages(split, documents, DOCUMENTS, seed)
    ]


def texts(split: str, passages: int | None = None, seed: int = generator.SEED) -> list[tuple[str, str]]:
    """Texts with a label: each passage of `questions` and what it is about, its domain.

    `split` and `passages` are as in `questions`.
    """
    return [(passage.text, passage.domain) for passage in _passages(split, passages, PASSAGES, seed)]


def example() -> tuple[str, str, str]:
    """A question, a passage of the test split that answers it, and the answer."""
    *_, passage = generator.passages("test", EXAMPLE_PASSAGE + 1)
    question = passage.questions[EXAMPLE_QUESTION]
    return question.text, passage.text, question.answer


def _passages(split: str, count: int | None, defaults: dict[str, int], seed: int) -> Iterator[generator.Passage]:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    return generator.passages(split, defaults[split] if count is None else count, seed)


def excerpts(split: str, passages: int | None = None, seed: int = generator.SEED) -> dict[str, Any]:
    """The questions of `questions`, each on only the sentences that hold its answer or a rival of it.

    Each excerpt is also asked which of its sentences names an invented word. Both are steps on the way to whole
    passages: a small model has to find out first that it must match a word of the question, then that what it looks for
    stands near that word, and it does so far sooner among thirty words than among a hundred. The starter teacher learns
    on these first. The form and the errors are those of `questions`.
    """
    articles = []
    for index, passage in enumerate(_passages(split, passages, PASSAGES, seed)):
        paragraphs = []
        for number, question in enumerate(passage.questions):
            identifier = f"starter-{split}-{index:05d}-{question.kind}-{number}-excerpt"
            context, start = _excerpt(passage.text, question)
            qas = [_qa(identifier, question.text, question.answer, start)]
            named = [word for word in re.findall(r"[A-Z][a-z]+", context) if INVENTED.fullmatch(word.lower())]
            if named:
                word = random.Random(f"{seed}/{identifier}").choice(named)
                sentence = next(match for match in re.finditer(r"[^. ][^.]*\.", context) if word in match[0])
                qas.append(_qa(f"{identifier}-names", f"Which sentence names {word}?", sentence[0], sentence.start()))
            paragraphs.append({"context": context, "qas": qas})
        articles.append({"title": passage.title, "paragraphs": paragraphs})
    return {"version": "1.1", "data": articles}


def _excerpt(text: str, question: generator.Question) -> tuple[str, int]:
    """The sentences that hold the answer or a rival, and the answer's first character in them."""
    context, start = "", 0
    for sentence in re.finditer(r"[^. ][^.]*\.", text):
        holds_answer = sentence.start() <= question.start < sentence.end()
        if holds_answer or any(rival in sentence[0] for rival in question.rivals):
            context += " " if context else ""
            if holds_answer:
                start = len(context) + question.start - sentence.start()
            context += sentence[0]
    return context, start


def _qa(identifier: str, question: str, answer: str, start: int) -> dict[str, Any]:
    return {"id": identifier, "question": question, "answers": [{"text": answer, "answer_start": start}]}
