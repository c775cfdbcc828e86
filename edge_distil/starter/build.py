"""Rebuilds the starter teacher from nothing: `python -m edge_distil.starter.build`.

The encoder learns to answer first, because every question tells it where to look, while most masked words of a small
corpus can be guessed from their frequency; then it learns masked-language modelling without losing the way.
"""

import json
import time
from typing import Any

from transformers import BertForQuestionAnswering, PreTrainedModel, set_seed

from edge_distil import starter
from edge_distil.console import note
from edge_distil.corpus.blocks import pack
from edge_distil.distillation.pretraining import TrainedModel, new_teacher, pretrain
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.stages import STARTER, squad_questions, write_checkpoint
from edge_distil.tasks import Task
from edge_distil.tasks.evaluation import evaluate
from edge_distil.tasks.finetuning import finetune_squad
from edge_distil.tasks.squad import parse_squad

SEED = 0
SHAPE = {"layers": 6, "hidden_size": 128, "heads": 4, "positions": 512}
ANSWERING = {
    "passages": 6000,
    "epochs": 2.0,
    "max_steps": 0,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "warmup": 0.05,
    "dropout": 0.0,
}
MASKED_LM = {
    "block_length": 256,
    "epochs": 2.0,
    "max_steps": 0,
    "batch_size": 8,
    "learning_rate": 5e-4,
    "warmup": 0.05,
    "dropout": 0.0,
}


def main() -> None:
    """Train both heads, score them, and replace the packaged folders."""
    tokenizer = starter.build_tokenizer()
    set_seed(SEED)
    base = new_teacher(tokenizer, **SHAPE)
    answering = BertForQuestionAnswering(base.config)
    answering.bert.load_state_dict(base.bert.state_dict())

    note("learning to answer")
    begun = time.monotonic()
    options: dict[str, Any] = dict(ANSWERING)
    questions = parse_squad(starter.questions("train", options.pop("passages")), "starter set, train")
    result = finetune_squad(answering, tokenizer, questions, seed=SEED, **options)
    _save(result, "question-answering", ANSWERING, begun)
    folder = starter.teacher_folder("question-answering")
    answerer = QuestionAnswerer(TorchRuntime.load(folder, task="question-answering"))
    score = evaluate(answerer, squad_questions(None, "test"))

    note("learning masked-language modelling")
    begun = time.monotonic()
    options = dict(MASKED_LM)
    blocks = pack(starter.corpus("train"), tokenizer, options.pop("block_length"))

    def with_masked_lm_head() -> PreTrainedModel:
        base.bert.load_state_dict(answering.bert.state_dict())
        return base

    masked_lm = pretrain(with_masked_lm_head, tokenizer, blocks, seed=SEED, **options)
    _save(masked_lm, "masked-lm", MASKED_LM, begun)
    print(json.dumps({"question-answering": score, "masked-lm": masked_lm.metrics}))


def _save(result: TrainedModel, task: Task, options: dict[str, Any], begun: float) -> None:
    """Write a packaged folder in fp16, which halves it; loading gives fp32 back."""
    result.model.half()
    write_checkpoint(
        starter.teacher_folder(task),
        result,
        task,
        "starter.build",
        starter.build_tokenizer(),
        {**SHAPE, **options, "seed": SEED},
        {"data": STARTER},
        begun,
        overwrite=True,
    )
    result.model.float()


if __name__ == "__main__":
    main()
