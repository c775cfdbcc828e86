"""The starter set: small, generated data behind every command, so that each runs with no options and no network."""

from pathlib import Path

from edge_distil.starter.splits import corpus, example, excerpts, questions, texts
from edge_distil.starter.tokenizer import build_tokenizer

__all__ = ["build_tokenizer", "corpus", "example", "excerpts", "questions", "teacher_folder", "texts"]

TEACHERS = ("masked-lm", "question-answering")


def teacher_folder(kind: str) -> Path:
    """The packaged teacher, a Hugging Face model folder.

    `kind` is "masked-lm" for the pre-trained encoder or "question-answering" for the one fine-tuned on the questions of
    the starter set. Raises ValueError for any other kind.
    """
    if kind not in TEACHERS:
        raise ValueError(f"unknown teacher {kind!r}: choose one of {', '.join(TEACHERS)}")
    return Path(__file__).parent / "teacher" / kind
