"""Rebuilds the starter teacher from nothing: `python -m edge_distil.starter.build`.

Three lessons: excerpts, whole passages in rounds until the dev split says enough, masked-language modelling. The test
split is asked once, at the end. docs/starter-set.md tells what else was tried.
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import BertForQuestionAnswering, PreTrainedModel, set_seed

from edge_distil import starter
from edge_distil.console import note
from edge_distil.corpus.masking import Masking
from edge_distil.corpus.prepare import from_documents
from edge_distil.distillation.corpus_trainer import CorpusTraining
from edge_distil.distillation.pretraining import new_teacher, pretrain
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.stages import STARTER, squad_questions, write_checkpoint
from edge_distil.tasks import Task
from edge_distil.tasks.evaluation import evaluate
from edge_distil.tasks.finetuning import FineTuning, fine_tune
from edge_distil.tasks.spans import SpanFeatures
from edge_distil.tasks.squad import parse_squad
from edge_distil.training import TrainedModel
from edge_distil.unfinished import UnfinishedRun

SEED = 0
SHAPE = {"layers": 6, "hidden_size": 128, "heads": 4, "positions": 512}
EXCERPTS = FineTuning(
    max_steps=1700,
    batch_size=32,
    learning_rate=1e-3,
    warmup=0.03,
    dropout=0.0,
    # Two runs with a falling rate and grouped batches were stopped at a loss of 0.73; both were changed at once.
    schedule="constant_with_warmup",
    group_by_length=False,
    seed=SEED,
)
PASSAGES = FineTuning(max_steps=1400, batch_size=16, learning_rate=7e-4, warmup=0.05, dropout=0.0)
# Rounds of PASSAGES, each with its rate begun anew, end when F1 on the dev split is this high or at the last round.
ENOUGH_F1 = 97.0
ROUNDS = 6
BLOCK_LENGTH = 256
MASKED_LM = CorpusTraining(epochs=2.0, batch_size=8, learning_rate=5e-4, warmup=0.05, dropout=0.0, seed=SEED)


def main() -> None:
    """Train both heads, score them, and replace the packaged folders."""
    tokenizer = starter.build_tokenizer()
    set_seed(SEED)
    base = new_teacher(tokenizer, **SHAPE)
    answering = BertForQuestionAnswering(base.config)
    answering.bert.load_state_dict(base.bert.state_dict())

    begun = time.monotonic()
    note("learning to answer from excerpts")
    excerpts = parse_squad(starter.excerpts("train", 6000), "starter excerpts")
    fine_tune(answering, SpanFeatures(excerpts, tokenizer), EXCERPTS)
    passages = SpanFeatures(parse_squad(starter.questions("train", 6000), "starter set, train"), tokenizer)
    dev_f1: list[float] = []
    for number in range(1, ROUNDS + 1):
        note(f"learning to answer from passages, round {number}")
        result = fine_tune(answering, passages, replace(PASSAGES, seed=SEED + number))
        lessons = {"excerpts": asdict(EXCERPTS), "passages": asdict(PASSAGES), "round": number}
        _save(result, "question-answering", lessons, begun)
        dev_f1.append(_score("dev")["f1"])
        note(f"F1 on the dev split: {dev_f1[-1]:.1f}")
        if dev_f1[-1] >= ENOUGH_F1:
            break

    note("learning masked-language modelling")
    begun = time.monotonic()
    blocks = from_documents(starter.corpus("train"), tokenizer, BLOCK_LENGTH)

    def with_masked_lm_head() -> PreTrainedModel:
        base.bert.load_state_dict(answering.bert.state_dict())
        return base

    with TemporaryDirectory() as scratch:
        run = UnfinishedRun(Path(scratch) / "masked-lm")
        run.begin({}, {}, resume=False, overwrite=True)
        masked_lm = pretrain(with_masked_lm_head, blocks, Masking(tokenizer), MASKED_LM, run)
    _save(masked_lm, "masked-lm", {"block_length": BLOCK_LENGTH, **asdict(MASKED_LM)}, begun)
    print(json.dumps({"dev F1 by round": dev_f1, "test": _score("test"), "masked-lm": masked_lm.metrics}))


def _score(split: str) -> dict[str, Any]:
    """EM and F1 of the packaged question-answering teacher, as it was stored."""
    teacher = TorchRuntime.load(starter.teacher_folder("question-answering"), task="question-answering")
    return evaluate(QuestionAnswerer(teacher), squad_questions(None, split))


def _save(result: TrainedModel, task: Task, options: dict[str, Any], begun: float) -> None:
    """Write a packaged folder in fp16, which halves it. A model trained further goes on from the rounded weights."""
    result.model.half()
    write_checkpoint(
        starter.teacher_folder(task),
        result,
        task,
        "python -m edge_distil.starter.build",
        starter.build_tokenizer(),
        {**SHAPE, **options, "seed": SEED},
        {"data": STARTER},
        begun,
        overwrite=True,
    )
    result.model.float()


if __name__ == "__main__":
    main()
