"""Downstream tasks: reading their data, preparing features, decoding, scoring, fine-tuning."""

from typing import Literal

# What a checkpoint or an artifact is for; also the names of its heads.
Task = Literal["masked-lm", "question-answering", "text-classification"]
