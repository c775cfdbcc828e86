"""Fine-tuning with and without a teacher, and the whole chain pretrain → train → finetune on a text file.

Shapes: B windows, L tokens of the longest of them.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, TrainerState

from edge_distil import cli, stages, training
from edge_distil.checkpoints import read_manifest
from edge_distil.distillation.corpus_trainer import CorpusTraining
from edge_distil.distillation.trainer import LossWeights
from edge_distil.errors import UserError
from edge_distil.models import load_model
from edge_distil.runtimes import torch as torch_runtime
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import finetuning
from edge_distil.tasks.finetuning import FineTuning, FineTuningTrainer, SecondDistillation, fine_tune
from edge_distil.tasks.spans import SpanFeatures, span_loss, span_soft_target_loss
from edge_distil.tasks.squad import Question, gold_span, windows

WINDOWS: Any = {"max_length": 64, "doc_stride": 24}
TRAINING = FineTuning(epochs=1.0, batch_size=4, learning_rate=2e-3, warmup=0.1, dropout=0.0, seed=0)


@pytest.fixture(scope="module", autouse=True)
def _fp32() -> Iterator[None]:
    """The same arithmetic on every machine."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (training, torch_runtime, finetuning):
            monkeypatch.setattr(module, "supports_bf16", lambda: False)
        yield


def log_softmax(row: np.ndarray) -> np.ndarray:
    return row - np.log(np.exp(row).sum())


def literal_span_loss(start: np.ndarray, end: np.ndarray, gold: list[list[int]], allowed: np.ndarray) -> float:
    """The mean negative log-probability of both gold positions, over the allowed positions alone."""
    total = 0.0
    for row, (first, last) in enumerate(gold):
        at = np.flatnonzero(allowed[row])
        total -= log_softmax(start[row, at])[at.tolist().index(first)] / 2
        total -= log_softmax(end[row, at])[at.tolist().index(last)] / 2
    return total / len(gold)


def literal_soft_loss(
    student: tuple[np.ndarray, np.ndarray], teacher: tuple[np.ndarray, np.ndarray], allowed: np.ndarray, t: float
) -> float:
    """T² KL(teacher ‖ student) over the allowed positions alone, mean over windows and over start and end."""
    total = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        for row in range(len(mine)):
            at = np.flatnonzero(allowed[row])
            p, q = log_softmax(theirs[row, at] / t), log_softmax(mine[row, at] / t)
            total += t**2 * (np.exp(p) * (p - q)).sum() / len(mine) / 2
    return total


ALLOWED = np.array([[1, 0, 0, 1, 1, 0], [1, 0, 1, 1, 1, 1]], dtype=bool)
GOLD = [[3, 4], [0, 0]]


def logits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    start, end = np.random.default_rng(seed).normal(scale=2, size=(2, 2, 6))
    return start, end


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    start, end = (torch.tensor(array, dtype=torch.float32) for array in pair)
    return start, end


def test_the_span_loss_is_the_formula_over_the_allowed_positions() -> None:
    ours = span_loss(*tensors(logits(0)), torch.tensor(GOLD), torch.tensor(ALLOWED))
    assert ours.item() == pytest.approx(literal_span_loss(*logits(0), GOLD, ALLOWED), rel=1e-5)


def test_the_span_loss_by_hand() -> None:
    # Two allowed positions with equal start logits, and end logits whose soft-max is 1/4 and 3/4.
    start, end = torch.zeros(1, 3), torch.tensor([[0.0, 99.0, np.log(3)]])
    loss = span_loss(start, end, torch.tensor([[0, 2]]), torch.tensor([[True, False, True]]))
    assert loss.item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_soft_target_loss_is_the_formula_over_the_allowed_positions(temperature: float) -> None:
    ours = span_soft_target_loss(tensors(logits(0)), tensors(logits(1)), torch.tensor(ALLOWED), temperature)
    assert ours.item() == pytest.approx(literal_soft_loss(logits(0), logits(1), ALLOWED, temperature), rel=1e-5)


def test_positions_that_are_not_allowed_change_no_loss_and_get_no_gradient() -> None:
    allowed = torch.tensor(ALLOWED)
    mine, theirs = tensors(logits(0)), tensors(logits(1))
    for logit in (*mine, *theirs):
        logit[~allowed] = 50.0
    mine[0].requires_grad_()
    gold = span_loss(*mine, torch.tensor(GOLD), allowed)
    soft = span_soft_target_loss(mine, theirs, allowed, 2.0)
    assert gold.item() == pytest.approx(literal_span_loss(*logits(0), GOLD, ALLOWED), rel=1e-5)
    assert soft.item() == pytest.approx(literal_soft_loss(logits(0), logits(1), ALLOWED, 2.0), rel=1e-5)
    (gold + soft).backward()
    assert mine[0].grad is not None
    assert (mine[0].grad[~allowed] == 0).all()
    assert (mine[0].grad[allowed] != 0).all()


@pytest.fixture
def features(questions: list[Question], tokenizer: Tokenizer) -> SpanFeatures:
    return SpanFeatures(questions, tokenizer, **WINDOWS)


def test_a_batch_holds_its_windows_padded_with_their_gold_and_allowed_positions(
    features: SpanFeatures, questions: list[Question]
) -> None:
    lengths = [len(window.input_ids) for window in features.windows]
    short = int(np.argmin(lengths))
    indices = [0, short, len(lengths) - 1]
    batch = features.collate([features[index] for index in indices])
    assert lengths[short] < 64
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (3, 64),
        "attention_mask": (3, 64),
        "allowed": (3, 64),
        "gold": (3, 2),
    }
    for row, index in enumerate(indices):
        window = features.windows[index]
        length = len(window.input_ids)
        assert batch["input_ids"][row].tolist() == window.input_ids + [0] * (64 - length)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (64 - length)
        context = range(window.context_start, window.context_end)
        assert batch["allowed"][row].nonzero().flatten().tolist() == [0, *context]
        assert batch["gold"][row].tolist() == list(gold_span(window, questions[window.question].answers[0]))


def test_every_window_keeps_its_own_teacher_logits(features: SpanFeatures, bert_qa: Path, tokenizer: Tokenizer) -> None:
    features.cache(TorchRuntime.load(bert_qa, task="question-answering"))
    teacher = AutoModelForQuestionAnswering.from_pretrained(bert_qa)
    indices = [5, 0, len(features) - 1]
    batch = features.collate([features[index] for index in indices])
    for row, index in enumerate(indices):
        window = features.windows[index]
        ids = torch.tensor([window.input_ids])
        types = (torch.arange(ids.shape[1]) >= window.context_start).long()[None]
        with torch.no_grad():
            alone = teacher(ids, token_type_ids=types)
        length = ids.shape[1]
        for kept_L, expected in zip(batch["teacher"][:, row], (alone.start_logits, alone.end_logits), strict=True):
            torch.testing.assert_close(kept_L[:length], expected[0], rtol=1e-3, atol=1e-3)
            assert (kept_L[length:] == 0).all()


def test_an_unanswerable_question_has_its_gold_at_cls(tokenizer: Tokenizer) -> None:
    question = Question("q", "Who?", "the bridge", ())
    assert SpanFeatures([question], tokenizer).gold == [(0, 0)]


@pytest.mark.parametrize(("alpha_ce", "alpha_gold", "temperature"), [(0.5, 0.5, 2.0), (0.9, 0.3, 1.0)])
def test_the_second_distillation_is_the_weighted_sum_of_both_losses(
    features: SpanFeatures,
    bert_qa: Path,
    distilbert_qa: Path,
    tmp_path: Path,
    alpha_ce: float,
    alpha_gold: float,
    temperature: float,
) -> None:
    teacher = TorchRuntime.load(bert_qa, task="question-answering")
    features.learn_from(SecondDistillation(teacher, temperature, alpha_ce, alpha_gold))
    student = load_model(distilbert_qa, "question-answering")
    trainer = FineTuningTrainer(
        student,
        training.training_arguments(
            str(tmp_path), epochs=1, max_steps=1, batch_size=2, learning_rate=1e-3, warmup=0.0, seed=0
        ),
        train_dataset=features,
    )
    batch = features.collate([features[0], features[7], features[len(features) - 1]])
    with torch.no_grad():
        loss = trainer.compute_loss(student, batch)
        output = student(batch["input_ids"], attention_mask=batch["attention_mask"])
    mine = output.start_logits.numpy().astype("f8"), output.end_logits.numpy().astype("f8")
    start_BL, end_BL = batch["teacher"].numpy().astype("f8")
    theirs = start_BL, end_BL
    allowed = batch["allowed"].numpy()
    gold = literal_span_loss(*mine, batch["gold"].tolist(), allowed)
    soft = literal_soft_loss(mine, theirs, allowed, temperature)
    assert loss.item() == pytest.approx(alpha_gold * gold + alpha_ce * soft, rel=1e-4)


def soft_loss_to(teacher: TorchRuntime, model: PreTrainedModel, features: SpanFeatures) -> float:
    """Of the first windows, the distance of a model's distributions to the teacher's."""
    features.cache(teacher)
    batch = features.collate([features[index] for index in range(16)])
    with torch.no_grad():
        output = model(batch["input_ids"], attention_mask=batch["attention_mask"])
    start_BL, end_BL = batch["teacher"]
    theirs = start_BL, end_BL
    return span_soft_target_loss((output.start_logits, output.end_logits), theirs, batch["allowed"], 2.0).item()


def test_fine_tuning_lowers_the_loss(bert_mlm: Path, questions: list[Question], tokenizer: Tokenizer) -> None:
    model = load_model(bert_mlm, "question-answering", new_head=True)
    result = fine_tune(model, SpanFeatures(questions, tokenizer, **WINDOWS), replace(TRAINING, max_steps=40))
    assert [row["step"] for row in result.curve] == [10, 20, 30, 40]
    assert result.curve[-1]["loss"] < 0.9 * result.curve[0]["loss"]
    prepared = windows(questions, tokenizer, **WINDOWS)
    assert result.metrics == {"loss": result.curve[-1]["loss"], "examples": len(prepared), "steps": 40}
    assert not result.model.training


def test_a_second_distillation_brings_the_student_nearer_to_its_teacher(
    features: SpanFeatures, bert_qa: Path, distilbert_qa: Path
) -> None:
    teacher = TorchRuntime.load(bert_qa, task="question-answering")
    student = load_model(distilbert_qa, "question-answering")
    before = soft_loss_to(teacher, student, features)
    weights = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    features.learn_from(SecondDistillation(teacher, alpha_ce=1.0, alpha_gold=0.0))
    fine_tune(student, features, replace(TRAINING, max_steps=40))
    assert soft_loss_to(teacher, student, features) < 0.8 * before
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_lower(
    bert_qa: Path, questions: list[Question], tokenizer: Tokenizer
) -> None:
    model = load_model(bert_qa, "question-answering")
    with torch.no_grad():
        model.qa_outputs.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"the loss is nan at step 10") as caught:
        fine_tune(model, SpanFeatures(questions, tokenizer, **WINDOWS), replace(TRAINING, max_steps=20))
    assert "--learning-rate" in caught.value.hint


# The whole chain, each stage once, two steps each

STEPS: dict[str, Any] = {
    "max_steps": 2,
    "epochs": 1.0,
    "batch_size": 2,
    "learning_rate": 5e-4,
    "warmup": 0.0,
    "dropout": 0.1,
    "seed": 3,
}
FILES = {
    "README.md",
    "command.yaml",
    "config.json",
    "edge_distil.json",
    "metrics.jsonl",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, squad_file: Path) -> dict[str, Any]:
    """What each stage returned."""
    runs = tmp_path_factory.mktemp("runs")
    corpus = {"corpus": [str(corpus_file)], "block_length": 64}
    teacher, student, qa = (str(runs / name) for name in ("teacher", "student", "qa"))
    sizes = {"layers": 4, "hidden_size": 32, "heads": 2}
    found = {}
    found["pretrain"] = stages.pretrain(
        Path(teacher),
        from_encoder=None,
        corpus=[corpus_file],
        tokenizer=None,
        block_length=64,
        training=CorpusTraining(**STEPS),
        config={"output": teacher, **corpus, **sizes, **STEPS},
        **sizes,
    )
    found["train"] = stages.train(
        Path(student),
        teacher=teacher,
        corpus=[corpus_file],
        block_length=64,
        weights=LossWeights(),
        training=CorpusTraining(**STEPS),
        config={"output": student, "teacher": teacher, **corpus, **STEPS},
    )
    found["finetune"] = stages.finetune(
        Path(qa),
        model=student,
        teacher=None,
        data=squad_file,
        version_2=False,
        temperature=2.0,
        options=FineTuning(**STEPS),
        **WINDOWS,
        config={"output": qa, "model": student, "data": str(squad_file), **STEPS, **WINDOWS},
    )
    return found


@pytest.mark.parametrize(
    ("stage", "task", "inputs"),
    [
        ("pretrain", "masked-lm", {"corpus"}),
        ("train", "masked-lm", {"corpus", "teacher"}),
        ("finetune", "question-answering", {"data", "model"}),
    ],
)
def test_each_stage_writes_a_whole_folder_that_matches_its_manifest(
    chain: dict[str, Any], stage: str, task: str, inputs: set[str]
) -> None:
    folder = Path(chain[stage]["output"])
    # Two steps of fine-tuning are too few for a curve.
    files = FILES if stage == "finetune" else FILES | {"loss.png"}
    assert {path.name for path in folder.iterdir()} == files
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest["kind"], manifest["task"], manifest["command"]) == ("checkpoint", task, f"edge-distil {stage}")
    assert manifest["files"].keys() == files - {"edge_distil.json"}
    assert manifest["inputs"].keys() == inputs
    assert manifest["measured"] == chain[stage]["metrics"]
    assert manifest["measured"]["steps"] == 2
    assert manifest["config"] == yaml.safe_load((folder / "command.yaml").read_text())
    assert f"edge-distil {stage}" in (folder / "README.md").read_text()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert load_model(folder, task)  # type: ignore[arg-type]
    assert not list(folder.parent.glob(".*"))


def test_the_student_has_half_of_the_teachers_layers_and_keeps_them_when_fine_tuned(chain: dict[str, Any]) -> None:
    teacher, student, qa = (json.loads(Path(chain[stage]["output"], "config.json").read_text()) for stage in chain)
    assert (teacher["model_type"], teacher["num_hidden_layers"]) == ("bert", 4)
    assert (student["model_type"], student["n_layers"]) == ("distilbert", 2)
    assert (qa["model_type"], qa["n_layers"]) == ("distilbert", 2)
    assert qa["architectures"] == ["DistilBertForQuestionAnswering"]


def test_fine_tuning_starts_from_the_students_encoder(chain: dict[str, Any]) -> None:
    student, qa = (load_file(Path(chain[stage]["output"], "model.safetensors")) for stage in ("train", "finetune"))
    encoder = [name for name in qa if name.startswith("distilbert.")]
    assert len(encoder) > 30
    for name in encoder:
        # Two steps at 5e-4 move a weight by 1e-3 at most; random ones would be 0.02 apart.
        torch.testing.assert_close(qa[name], student[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize("stage", ["pretrain", "train", "finetune"])
def test_the_saved_configuration_repeats_the_result_bit_by_bit(
    chain: dict[str, Any],
    stage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = Path(chain[stage]["output"]), tmp_path / "again"
    arguments = [stage, "--config", str(first / "command.yaml"), "--output", str(second), "--json"]
    monkeypatch.setattr(sys, "argv", ["edge-distil", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(second)
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    saved = yaml.safe_load((second / "command.yaml").read_text())
    given = yaml.safe_load((first / "command.yaml").read_text())
    assert {key: saved[key] for key in given} == given | {"output": str(second)}


def test_another_seed_gives_other_weights(
    chain: dict[str, Any], squad_file: Path, tmp_path: Path, make_finetune: Callable[..., Any]
) -> None:
    make_finetune(tmp_path / "qa", model=chain["train"]["output"], data=squad_file, seed=4)
    other = load_file(tmp_path / "qa" / "model.safetensors")
    first = load_file(Path(chain["finetune"]["output"], "model.safetensors"))
    assert not torch.equal(other["qa_outputs.weight"], first["qa_outputs.weight"])


@pytest.fixture
def make_finetune() -> Callable[..., Any]:
    def finetune(output: Path, *, model: str, data: Path, seed: int) -> Any:
        options = FineTuning(**STEPS | {"seed": seed})
        return stages.finetune(output, model=model, teacher=None, data=data, options=options, config={}, **WINDOWS)

    return finetune


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps what is freed")
def test_freed_memory_is_returned_while_batches_differ_in_length() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    training.keep_freed_memory()
    # Gaps between small tensors that stay: nothing at the heap's end can be given back.
    pieces = [(torch.ones(1_000_000), torch.ones(1_000)) for _ in range(100)]
    stay = [small for _, small in pieces]
    del pieces
    before = resident()
    training.return_freed_memory()
    assert before - resident() > 300_000_000
    assert len(stay) == 100


def test_means_of_old_gradients_are_forgotten_without_moving_a_weight() -> None:
    def weights(forget: bool) -> torch.Tensor:
        torch.manual_seed(0)
        table = torch.nn.Parameter(torch.randn(50, 8))
        optimizer = torch.optim.AdamW([table], lr=1e-2, fused=True)
        for step in range(900):
            # All rows at first, then the first one alone, as with tokens that no batch has had for long.
            table.grad = torch.zeros_like(table)
            table.grad[: 50 if step < 3 else 1] = torch.randn(8)
            optimizer.step()
            if forget and (step + 1) % 50 == 0:
                training.forget_old_gradients(optimizer)
        means = optimizer.state[table]["exp_avg"].abs()
        assert bool(((means > 0) & (means < torch.finfo(torch.float32).tiny)).any()) is not forget
        return table.detach()

    assert torch.equal(weights(True), weights(False))


def test_fine_tuning_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(training, "forget_old_gradients", told.append)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    watch = training._Watch(lambda *_, **__: None)
    for step in (49, 50, 51, 100):
        watch.on_step_end(Any, TrainerState(global_step=step), Any, optimizer=optimizer)
    assert told == [optimizer, optimizer]
