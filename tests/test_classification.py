"""Texts and pairs of texts: their token ids, losses and teachers, and the training that all tasks share.

Shapes: N examples, B of a batch, C classes.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_command
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from edge_distil import stages, training
from edge_distil.models import load_model
from edge_distil.runtimes import torch as torch_runtime
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import finetuning
from edge_distil.tasks.classification import TextFeatures, decide, encode, predict_texts
from edge_distil.tasks.finetuning import (
    FineTuning,
    FineTuningTrainer,
    Judge,
    SecondDistillation,
    fine_tune,
    parameter_groups,
)
from edge_distil.tasks.texts import Example
from edge_distil.training import TrainedModel

LABELS = ["no", "yes", "maybe"]
FAST = FineTuning(epochs=1.0, batch_size=4, learning_rate=1e-3, warmup=0.0, dropout=0.0)


@pytest.fixture(scope="module", autouse=True)
def _fp32() -> Iterator[None]:
    """The same arithmetic on every machine."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (training, torch_runtime, finetuning):
            monkeypatch.setattr(module, "supports_bf16", lambda: False)
        yield


def examples(count: int, labels: Sequence[str | float] = LABELS, *, pairs: bool = False) -> list[Example]:
    """Texts of many lengths, with labels that take turns."""
    return [
        Example(
            str(number),
            "the bridge was built in stone " * (1 + number * 7 % 5),
            "who built the tower " * (1 + number * 3 % 4) + "?" if pairs else None,
            labels[number % len(labels)],
        )
        for number in range(count)
    ]


# Token ids


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    """Every letter between blanks is a token."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(ord("a"), ord("z") + 1))]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@pytest.mark.parametrize(
    ("max_length", "text", "pair", "expected"),
    [
        (8, "a b c d e f", None, "[CLS] a b c d e f [SEP]"),
        (7, "a b c d e f", None, "[CLS] a b c d e [SEP]"),
        (12, "a b c d e f", "p q r", "[CLS] a b c d e f [SEP] p q r [SEP]"),
        (11, "a b c d e f", "p q r", "[CLS] a b c d e [SEP] p q r [SEP]"),
        (9, "a b c d e f", "p q r", "[CLS] a b c [SEP] p q r [SEP]"),
        (8, "a b c d e f", "p q r", "[CLS] a b c [SEP] p q [SEP]"),
        (7, "a b c d e f", "p q r", "[CLS] a b [SEP] p q [SEP]"),
        (6, "a b c d e f", "p q r", "[CLS] a b [SEP] p [SEP]"),
        (11, "a b c", "p q r s t u", "[CLS] a b c [SEP] p q r s t [SEP]"),
        (8, "a b c", "p q r s t u", "[CLS] a b [SEP] p q r [SEP]"),
        (9, "a", "p q r s t u v", "[CLS] a [SEP] p q r s t [SEP]"),
        (9, "a b c d", "p q r s", "[CLS] a b c [SEP] p q r [SEP]"),
        (8, "a b c d", "p q r s", "[CLS] a b [SEP] p q r [SEP]"),
    ],
)
def test_of_a_pair_that_is_too_long_the_longer_text_is_cut(
    letters: Tokenizer, max_length: int, text: str, pair: str | None, expected: str
) -> None:
    (ids,) = encode([Example("1", text, pair, "no")], letters, max_length)
    assert [letters.id_to_token(token) for token in ids] == expected.split()


def test_texts_and_pairs_are_cut_as_the_library_cuts_them(letters: Tokenizer) -> None:
    """Token by token, the odd one included: what was trained on is what `transformers` gives the model later."""
    library = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(letters.to_str()), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    alphabet = list("abcdefgh")
    compared = 0
    for first, second, max_length in itertools.product(range(1, 9), range(9), range(5, 20)):
        text, pair = " ".join(alphabet[:first]), " ".join(alphabet[:second]) or None
        theirs = library(text, pair, truncation="longest_first", max_length=max_length)["input_ids"]
        assert encode([Example("1", text, pair, "no")], letters, max_length) == [theirs], (first, second, max_length)
        compared += len(theirs) == max_length
    assert compared > 500


# Losses

LOGITS = np.array([[1.5, -0.5, 0.2], [0.1, 2.0, -1.0]])
TEACHER = np.array([[0.3, 0.9, -2.0], [1.0, -1.0, 0.5]])
GOLD = [2, 1]


def log_softmax(logits_BC: np.ndarray) -> np.ndarray:
    return logits_BC - np.log(np.exp(logits_BC).sum(axis=1, keepdims=True))


def output(logits: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(logits=torch.tensor(logits, dtype=torch.float32))


def batch(gold: Sequence[float], teacher: np.ndarray) -> dict[str, torch.Tensor]:
    return {"gold": torch.tensor(gold), "teacher": torch.tensor(teacher, dtype=torch.float32)}


@pytest.fixture
def classes(tokenizer: Tokenizer) -> TextFeatures:
    return TextFeatures(examples(12), tokenizer, LABELS, 32)


@pytest.fixture
def scores(tokenizer: Tokenizer) -> TextFeatures:
    return TextFeatures(examples(12, [0.0, 2.5, 5.0], pairs=True), tokenizer, None, 32)


def test_the_gold_loss_of_classes_is_the_mean_negative_log_probability(classes: TextFeatures) -> None:
    expected = -np.mean([log_softmax(LOGITS)[row, label] for row, label in enumerate(GOLD)])
    assert classes.gold_loss(output(LOGITS), batch(GOLD, TEACHER)).item() == pytest.approx(expected, rel=1e-6)


def test_the_gold_loss_of_classes_by_hand(classes: TextFeatures) -> None:
    # Soft-max 1/4, 3/4 and next to 0; the label has 3/4.
    loss = classes.gold_loss(output(np.array([[0.0, np.log(3), -50.0]])), {"gold": torch.tensor([1])})
    assert loss.item() == pytest.approx(np.log(4 / 3))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_soft_loss_of_classes_is_t_squared_times_the_divergence(classes: TextFeatures, temperature: float) -> None:
    p, q = log_softmax(TEACHER / temperature), log_softmax(LOGITS / temperature)
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    ours = classes.soft_loss(output(LOGITS), batch(GOLD, TEACHER), temperature)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_the_losses_of_a_regression_are_mean_squared_distances(scores: TextFeatures) -> None:
    mine, theirs, gold = np.array([[1.0], [4.5]]), np.array([[2.0], [4.0]]), [2.5, 5.0]
    given = batch(gold, theirs)
    # (1.5² + 0.5²) / 2 and (1² + 0.5²) / 2
    assert scores.gold_loss(output(mine), given).item() == pytest.approx(1.25)
    assert scores.soft_loss(output(mine), given, 2.0).item() == pytest.approx(0.625)
    assert scores.soft_loss(output(mine), given, 1.0).item() == pytest.approx(0.625)


def test_a_fresh_regression_starts_at_the_mean_score_and_a_trained_one_stays(
    scores: TextFeatures, classes: TextFeatures, bert_mlm: Path
) -> None:
    model = load_model(bert_mlm, "text-classification", new_head=True)
    scores.start_head(model)
    assert model.classifier.bias.tolist() == [2.5]
    with torch.no_grad():
        model.classifier.bias.fill_(0.5)
    scores.start_head(model)
    assert model.classifier.bias.tolist() == [0.5]
    classifier = load_model(bert_mlm, "text-classification", new_head=True, labels=LABELS)
    classes.start_head(classifier)
    assert classifier.classifier.bias.tolist() == [0.0, 0.0, 0.0]


def test_labels_are_numbered_as_the_model_has_them_and_scores_stay(
    classes: TextFeatures, scores: TextFeatures, tokenizer: Tokenizer
) -> None:
    assert classes.collate([classes[index] for index in (4, 0, 2)])["gold"].tolist() == [1, 0, 2]
    other = TextFeatures(examples(3), tokenizer, ["maybe", "no", "yes"], 32)
    assert other.gold.tolist() == [1, 2, 0]
    assert scores.collate([scores[index] for index in (4, 0, 2)])["gold"].tolist() == [2.5, 0.0, 5.0]


def test_a_batch_is_padded_to_its_longest_text(classes: TextFeatures) -> None:
    indices = [5, 1, 2]
    made = classes.collate([classes[index] for index in indices])
    width = max(len(classes.ids[index]) for index in indices)
    assert made.keys() == {"input_ids", "attention_mask", "gold"}
    assert made["input_ids"].shape == made["attention_mask"].shape == (3, width)
    for row, index in enumerate(indices):
        ids = classes.ids[index]
        assert made["input_ids"][row].tolist() == ids + [0] * (width - len(ids))
        assert made["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (width - len(ids))


# Teachers


class Counter:
    """A runtime whose logits tell which text they belong to, and that counts the texts that it is given."""

    name, precision, outputs, lengths, batch_size = "counter", "fp32", ("logits",), None, None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[int, ...]] = []

    @staticmethod
    def logits(ids: Sequence[int]) -> list[float]:
        return [len(ids) / 8, ids[1] / 1000, sum(ids) / 10_000]

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        rows = [ids[mask == 1].tolist() for ids, mask in zip(input_ids_BL, attention_mask_BL, strict=True)]
        self.seen += map(tuple, rows)
        return {"logits": np.array([self.logits(ids) for ids in rows], dtype=np.float32)}


@pytest.fixture
def classifier(bert_mlm: Path) -> PreTrainedModel:
    return load_model(bert_mlm, "text-classification", new_head=True, labels=LABELS)


def test_the_teacher_reads_every_text_once_and_its_logits_stay_with_their_text(
    bert_mlm: Path, classifier: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    # Distinct texts of many lengths, more than one of the teacher's batches.
    words = ["bridge", "tower", "river", "stone", "built", "north", "old", "town", "king", "mill"]
    texts = [" ".join(words[: 1 + n % 7] + [words[n % 10]] * (n // 7)) for n in range(70)]
    given = [Example(str(n), text, None, LABELS[n % 3]) for n, text in enumerate(texts)]
    features = TextFeatures(given, tokenizer, LABELS, 64)
    teacher = Counter(bert_mlm)
    features.learn_from(SecondDistillation(teacher))  # type: ignore[arg-type]
    fine_tune(classifier, features, replace(FAST, epochs=2.0, batch_size=32))
    assert sorted(teacher.seen) == sorted(map(tuple, features.ids))
    assert len(set(teacher.seen)) > 60
    lengths = [len(ids) for ids in teacher.seen]
    assert lengths == sorted(lengths, reverse=True)  # like lengths in one batch: little padding
    indices = [69, 3, 40, 0]
    kept = features.collate([features[index] for index in indices])["teacher"]
    expected = [Counter.logits(features.ids[index]) for index in indices]
    np.testing.assert_allclose(kept.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("alpha_ce", "alpha_gold", "temperature"), [(0.5, 0.5, 2.0), (0.9, 0.3, 1.0)])
def test_with_a_teacher_the_loss_is_the_weighted_sum_of_both(
    classes: TextFeatures, bert_mlm: Path, alpha_ce: float, alpha_gold: float, temperature: float
) -> None:
    logits_BC = np.random.default_rng(0).normal(size=(3, 3))
    indices = [7, 0, 11]
    items = [classes[index] for index in indices]
    gold = -np.mean([log_softmax(logits_BC)[row, index % 3] for row, index in enumerate(indices)])
    assert classes.loss(output(logits_BC), classes.collate(items)).item() == pytest.approx(gold, rel=1e-5)
    classes.learn_from(SecondDistillation(Counter(bert_mlm), temperature, alpha_ce, alpha_gold))  # type: ignore[arg-type]
    teacher_BC = np.array([Counter.logits(classes.ids[index]) for index in indices])
    p, q = log_softmax(teacher_BC / temperature), log_softmax(logits_BC / temperature)
    soft = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    loss = classes.loss(output(logits_BC), classes.collate(items))
    assert loss.item() == pytest.approx(alpha_gold * gold + alpha_ce * soft, rel=1e-5)


def classifier_folder(
    folder: Path, save: Callable[[PreTrainedModel], Path], labels: Sequence[str] | None = LABELS
) -> Path:
    """A classifier whose head is wide enough for its answers to differ."""
    model = load_model(folder, "text-classification", new_head=True, labels=labels)
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(model.classifier.weight, std=1.0, generator=generator)
    return save(model)


def test_a_bert_teacher_gets_the_token_types_of_pairs_as_the_library_makes_them(
    bert_mlm: Path, save: Callable[[PreTrainedModel], Path], tokenizer: Tokenizer
) -> None:
    folder = classifier_folder(bert_mlm, save)
    given = examples(8, pairs=True)
    features = TextFeatures(given, tokenizer, LABELS, 30)
    features.learn_from(SecondDistillation(TorchRuntime.load(folder, task="text-classification")))
    library, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    kept = features.collate([features[index] for index in range(8)])["teacher"]
    for row, example in enumerate(given):
        inputs = library(example.text, example.pair, truncation="longest_first", max_length=30, return_tensors="pt")
        assert set(inputs["token_type_ids"].flatten().tolist()) == {0, 1}
        with torch.no_grad():
            expected = model(**inputs).logits[0]
            without = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
        torch.testing.assert_close(kept[row], expected, rtol=1e-3, atol=1e-3)
        assert (expected - without).abs().max() > 0.01


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_student_gets_token_types_where_it_has_them(
    bert_mlm: Path, distilbert_qa: Path, tokenizer: Tokenizer, family: str
) -> None:
    folder = bert_mlm if family == "bert" else distilbert_qa
    model = load_model(folder, "text-classification", new_head=True, labels=LABELS)
    features = TextFeatures(examples(4, pairs=True), tokenizer, LABELS, 30)
    given: list[dict[str, torch.Tensor]] = []
    model.register_forward_pre_hook(lambda _, __, inputs: given.append(inputs), with_kwargs=True)
    fine_tune(model, features, replace(FAST, max_steps=1))
    (inputs,) = given
    if family == "distilbert":
        assert inputs.keys() == {"input_ids", "attention_mask"}
        return
    assert inputs.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    for ids, mask, types in zip(*inputs.values(), strict=True):
        first = ids.tolist().index(3) + 1
        length = int(mask.sum())
        assert types[:length].tolist() == [0] * first + [1] * (length - first)


# The optimiser's groups


@pytest.mark.parametrize(
    ("family", "layers", "head"),
    [
        ("bert", 4, ["bert.pooler.dense.weight", "classifier.weight", "classifier.bias"]),
        ("distilbert", 2, ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight"]),
    ],
)
def test_learning_rates_fall_from_the_head_to_the_embeddings(
    bert_mlm: Path, distilbert_qa: Path, family: str, layers: int, head: list[str]
) -> None:
    folder = bert_mlm if family == "bert" else distilbert_qa
    model = load_model(folder, "text-classification", new_head=True, labels=LABELS)
    groups = parameter_groups(model, 0.01, 0.1, 0.5)
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(parameter) for parameter in model.parameters()}
    of = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    found = {name: of[id(parameter)] for name, parameter in model.named_parameters()}
    inside = f"{family}.encoder.layer" if family == "bert" else f"{family}.transformer.layer"
    for layer in range(layers):
        names = [name for name in found if name.startswith(f"{inside}.{layer}.")]
        assert len(names) == 16
        assert {found[name][0] for name in names} == {0.01 * 0.5 ** (layers - layer)}
    embeddings = [name for name in found if name.startswith(f"{family}.embeddings.")]
    assert len(embeddings) == (5 if family == "bert" else 4)
    assert {found[name][0] for name in embeddings} == {0.01 * 0.5 ** (layers + 1)}
    assert {found[name][0] for name in head} == {0.01}
    for name, (_, decay) in found.items():
        assert decay == (0.0 if name.endswith(".bias") or "norm" in name.lower() else 0.1), name


def test_without_layer_decay_all_learn_alike(classifier: PreTrainedModel) -> None:
    groups = parameter_groups(classifier, 0.01, 0.1, 1.0)
    assert sorted((group["lr"], group["weight_decay"]) for group in groups) == [(0.01, 0.0), (0.01, 0.1)]


def test_parameters_that_are_frozen_are_in_no_group(classifier: PreTrainedModel) -> None:
    classifier.bert.requires_grad_(False)
    groups = parameter_groups(classifier, 0.01, 0.1, 0.5)
    assert {id(each) for group in groups for each in group["params"]} == {
        id(each) for each in classifier.classifier.parameters()
    }


def test_fine_tuning_steps_with_the_groups(classifier: PreTrainedModel, classes: TextFeatures) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    fine_tune(classifier, classes, replace(FAST, max_steps=1, layer_decay=0.1, weight_decay=0.0))
    # AdamW's first step moves every weight that has a gradient by the learning rate.
    moved = {name: (value - before[name]).abs().max().item() for name, value in classifier.state_dict().items()}
    assert moved["classifier.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["bert.encoder.layer.3.output.dense.weight"] == pytest.approx(1e-4, rel=0.01)
    assert moved["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(1e-7, rel=0.3)


# Judging


class Script:
    """A judge that gives the scores it was told to, and keeps the weights that it was shown."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.shown: list[dict[str, torch.Tensor]] = []
        self.was_training: list[bool] = []

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        self.shown.append({name: value.clone() for name, value in model.state_dict().items()})
        self.was_training.append(model.training)
        return {"accuracy": float(len(self.shown)), "score": self.scores[len(self.shown) - 1]}


def judged(model: PreTrainedModel, features: TextFeatures, script: Script, **options: Any) -> TrainedModel:
    # 12 examples in batches of 4: an epoch is three steps.
    return fine_tune(model, features, replace(FAST, **options), Judge(script, "score"))


def holds(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ((10, 30, 20, 25, 99), 2, 4, 2),
        ((10, 30, 20, 40, 35, 30, 99), 2, 6, 4),
        ((30, 20, 99), 1, 2, 1),
        ((30, 30, 30, 99), 2, 3, 1),  # as good is no better
        ((0, -5, -9, 99), 2, 3, 1),
        ((10, 20, 30), 2, 3, 3),
    ],
)
def test_training_stops_after_patience_runs_out_and_the_best_weights_stay(
    classifier: PreTrainedModel,
    classes: TextFeatures,
    scores: tuple[float, ...],
    patience: int,
    epochs: int,
    best: int,
) -> None:
    script = Script(*scores)
    result = judged(classifier, classes, script, epochs=len(scores), patience=patience)
    assert len(script.shown) == epochs
    assert holds(result.model, script.shown[best - 1])
    for epoch, weights in enumerate(script.shown, start=1):
        assert holds(result.model, weights) == (epoch == best)
    measured = {name: value for name, value in result.metrics.items() if name != "loss"}
    assert measured == {"examples": 12, "steps": 3 * epochs, "dev_accuracy": best, "dev_score": scores[best - 1]}
    rows = [(row["step"], row["dev_score"]) for row in result.curve if "dev_score" in row]
    assert rows == [(3 * epoch, score) for epoch, score in enumerate(scores[:epochs], start=1)]
    assert [row["step"] for row in result.curve] == sorted(row["step"] for row in result.curve)


def test_without_patience_every_epoch_is_trained(classifier: PreTrainedModel, classes: TextFeatures) -> None:
    script = Script(5, 4, 3, 2, 1)
    result = judged(classifier, classes, script, epochs=5.0, patience=0)
    assert (len(script.shown), result.metrics["steps"]) == (5, 15)
    assert holds(result.model, script.shown[0])


@pytest.mark.parametrize(("max_steps", "looks"), [(1, [1]), (2, [2]), (3, [3]), (5, [3, 5])])
def test_a_run_that_ends_within_an_epoch_is_judged_once_at_its_end(
    classifier: PreTrainedModel, classes: TextFeatures, max_steps: int, looks: list[int]
) -> None:
    script = Script(10, 20)
    result = judged(classifier, classes, script, max_steps=max_steps)
    assert [row["step"] for row in result.curve if "dev_score" in row] == looks
    assert len(script.shown) == len(looks)
    assert holds(result.model, script.shown[-1])


def test_a_model_is_judged_without_dropout_and_trained_with_it(
    classifier: PreTrainedModel, classes: TextFeatures
) -> None:
    script = Script(10, 20)
    modes: list[tuple[bool, bool]] = []
    classifier.register_forward_pre_hook(lambda model, _: modes.append((model.training, model.dropout.training)))
    result = judged(classifier, classes, script, epochs=2.0, dropout=0.1)
    assert script.was_training == [False, False]
    assert modes == [(True, True)] * 6
    assert not result.model.training


def test_without_a_judge_the_last_weights_stay_and_there_is_no_dev_score(
    classifier: PreTrainedModel, classes: TextFeatures
) -> None:
    result = fine_tune(classifier, classes, replace(FAST, epochs=4.0))
    assert result.metrics == {"examples": 12, "steps": 12, "loss": result.curve[-1]["loss"]}
    assert [row["step"] for row in result.curve] == [10]


# Seeds


def jsonl(path: Path, given: Sequence[Example]) -> Path:
    rows = [
        {"text": each.text, "label": each.label} | ({"text_pair": each.pair} if each.pair else {}) for each in given
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("scores", "seed", "median"),
    [([50.0, 70.0, 60.0], 7, 60.0), ([10.0, 40.0, 20.0, 30.0], 7, 25.0), ([80.0, 60.0], 6, 70.0)],
)
def test_of_several_seeds_the_median_run_is_written_with_the_scores_of_all(
    bert_mlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    seed: int,
    median: float,
) -> None:
    heads: dict[int, torch.Tensor] = {}

    def scripted(model: PreTrainedModel, _: Any, options: FineTuning, judge: Judge | None) -> TrainedModel:
        assert judge
        heads[options.seed] = model.classifier.weight.detach().clone()
        with torch.no_grad():
            model.classifier.bias.fill_(options.seed)
        score = scores[options.seed - 5]
        return TrainedModel(model, {"examples": 6, "steps": 1, f"dev_{judge.name}": score}, [])

    monkeypatch.setattr(stages, "fine_tune", scripted)
    data = jsonl(tmp_path / "train.jsonl", examples(6))
    result = stages.finetune(
        tmp_path / "out",
        task="text",
        model=str(bert_mlm),
        teacher=None,
        data=data,
        dev=data,
        options=replace(FAST, seed=5),
        seeds=len(scores),
        config={},
    )
    assert list(heads) == [5 + number for number in range(len(scores))]
    assert not torch.equal(heads[5], heads[6])
    metrics = {name: value for name, value in result["metrics"].items() if "seed" in name or name.startswith("dev_")}
    assert metrics == {
        "seed": seed,
        "dev_score": scores[seed - 5],
        "dev_score_median": median,
        "dev_score_lowest": min(scores),
        "dev_score_highest": max(scores),
        "dev_score_of_seeds": scores,
    }
    written = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert written.classifier.bias.tolist() == [seed] * 3
    assert torch.equal(written.classifier.weight, heads[seed])


# Precision


@pytest.mark.parametrize(
    ("precision", "hardware", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_matrix_products_run_in_the_precision_that_was_asked_for(
    classifier: PreTrainedModel,
    classes: TextFeatures,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    hardware: bool,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(finetuning, "supports_bf16", lambda: hardware)
    seen: list[torch.dtype] = []
    classifier.classifier.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    fine_tune(classifier, classes, replace(FAST, max_steps=1, precision=precision))
    assert seen == [dtype]
    assert classifier.classifier.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_the_command_line_hands_on_the_precision_and_the_other_options(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    asked: dict[str, Any] = {}

    def finetune(output: Path, **given: Any) -> dict[str, Any]:
        asked.update(given)
        return {"output": str(output), "metrics": {}, "seconds": 0.0}

    monkeypatch.setattr(stages, "finetune", finetune)
    options = ["--layer-decay", 0.9, "--weight-decay", 0.2, "--patience", 5, "--seeds", 3, "--seed", 4]
    ended = run_command("finetune", "--task", "text", "--precision", precision, *options, "--json")
    assert ended.status == 0
    assert asked["options"] == FineTuning(
        precision=precision,  # type: ignore[arg-type]
        layer_decay=0.9,
        weight_decay=0.2,
        patience=5,
        seed=4,
    )
    assert (asked["seeds"], asked["task"], asked["config"]["precision"]) == (3, "text", precision)


# What is written


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_a_fine_tuned_classifier_is_one_of_the_librarys(
    bert_mlm: Path, distilbert_qa: Path, tokenizer: Tokenizer, tmp_path: Path, family: str, pairs: bool
) -> None:
    given = examples(12, pairs=pairs)
    data = jsonl(tmp_path / "train.jsonl", given)
    options = replace(FAST, max_steps=8, learning_rate=1e-2, dropout=None)
    model = str(bert_mlm if family == "bert" else distilbert_qa)
    stages.finetune(
        tmp_path / "out", task="text", model=model, teacher=None, data=data, max_length=24, options=options, config={}
    )
    folder = tmp_path / "out"
    library = AutoModelForSequenceClassification.from_pretrained(folder)
    assert library.config.id2label == {0: "maybe", 1: "no", 2: "yes"}  # of a file: by character
    assert library.config.label2id == {"maybe": 0, "no": 1, "yes": 2}
    assert library.config.problem_type == "single_label_classification"
    runtime = TorchRuntime.load(folder, task="text-classification")
    logits_NC = predict_texts(runtime, encode(given, tokenizer, 24), batch_size=5)
    with torch.no_grad():
        inputs = AutoTokenizer.from_pretrained(folder)(
            [each.text for each in given],
            [each.pair for each in given] if pairs else None,
            truncation="longest_first",
            max_length=24,
            padding=True,
            return_tensors="pt",
        )
        expected_NC = library(**inputs).logits.numpy()
    np.testing.assert_allclose(logits_NC, expected_NC, rtol=1e-3, atol=1e-3)
    labels = [library.config.id2label[index] for index in expected_NC.argmax(axis=1).tolist()]
    assert decide(logits_NC, ["maybe", "no", "yes"]) == labels
    if not pairs:
        pipe = pipeline("text-classification", model=str(folder), device="cpu")
        answers = pipe([each.text for each in given], truncation=True, max_length=24)
        assert [answer["label"] for answer in answers] == labels


def test_a_regression_is_decided_by_its_only_logit() -> None:
    assert decide(np.array([[1.5], [-0.25]], dtype=np.float32), None) == [1.5, -0.25]


def test_a_trainer_gives_the_loss_of_its_features_on_a_batch(
    classifier: PreTrainedModel, classes: TextFeatures, tmp_path: Path
) -> None:
    args = training.training_arguments(
        str(tmp_path), epochs=1, max_steps=1, batch_size=2, learning_rate=1e-3, warmup=0.0, seed=0
    )
    trainer = FineTuningTrainer(classifier, args, train_dataset=classes)
    made = classes.collate([classes[3], classes[1]])
    with torch.no_grad():
        loss, found = trainer.compute_loss(classifier, made, return_outputs=True)
        plain = classifier(made["input_ids"], attention_mask=made["attention_mask"], labels=made["gold"])
    torch.testing.assert_close(found.logits, plain.logits)
    assert loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)


def test_fine_tuning_learns_to_tell_texts_apart(bert_mlm: Path, tokenizer: Tokenizer) -> None:
    words = {"no": "the old stone bridge", "yes": "who climbed first ?"}
    given = [Example(str(n), words[label], None, label) for n, label in enumerate(["no", "yes"] * 8)]
    model = load_model(bert_mlm, "text-classification", new_head=True, labels=["no", "yes"])
    features = TextFeatures(given, tokenizer, ["no", "yes"], 16)
    result = fine_tune(model, features, replace(FAST, max_steps=20, learning_rate=3e-3))
    logits_NC = predict_texts(TorchRuntime(result.model, bert_mlm), features.ids)
    assert decide(logits_NC, ["no", "yes"]) == [each.label for each in given]
