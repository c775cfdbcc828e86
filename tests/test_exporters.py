"""Exports: the plain encoder equals the library's, graphs and packages are what they claim, and the gate refuses."""

import builtins
import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from edge_distil.checkpoints import read_manifest
from edge_distil.errors import UserError
from edge_distil.models import load_model
from edge_distil.qa import QuestionAnswerer
from edge_distil.quiet import import_coremltools
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes.mil import read_program
from edge_distil.runtimes.onnx import GRAPHS
from edge_distil.runtimes.torch import TorchRuntime, model_inputs
from edge_distil.tasks.evaluation import evaluate_texts
from edge_distil.tasks.texts import GLUE, TEXT, Example
from edge_distil.tokenization import load_tokenizer, special_tokens
from exporters import CoreMLOptions, OnnxOptions, coreml, export, gate
from exporters.coreml import compression
from exporters.coreml.program import Converted
from exporters.encoder import MASKED_SCORE, PlainEncoder
from exporters.onnx import graph, plan_for, write_graph
from exporters.onnx.plan import Plan

MAX_LENGTH = 64


def random_model(kind: type[PreTrainedModel], vocab_size: int = 2000, **overrides: object) -> PreTrainedModel:
    """Two layers whose weights, biases and norms are all random, so that a swapped or lost one shows."""
    torch.manual_seed(7)
    if "Distil" in kind.__name__:
        sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 96}
        config = DistilBertConfig(vocab_size=vocab_size, **sizes | overrides)
    else:
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        config = BertConfig(vocab_size=vocab_size, **sizes | {"max_position_embeddings": 96} | overrides)
    model = kind(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def distilbert(save, tokenizer) -> Path:
    return save(random_model(DistilBertForQuestionAnswering, tokenizer.get_vocab_size()))


@pytest.fixture(scope="module")
def bert(save, tokenizer) -> Path:
    return save(random_model(BertForQuestionAnswering, tokenizer.get_vocab_size()))


@pytest.fixture(scope="module")
def masked_lm(save, tokenizer) -> Path:
    return save(random_model(BertForMaskedLM, tokenizer.get_vocab_size()))


@pytest.fixture(scope="module")
def onnx_export(distilbert, questions, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("exports") / "onnx"
    # The answers of a random model mean nothing, so int8 may change them; fp32 must still give every one of them.
    return output, export(distilbert, output, format="onnx", questions=questions, max_length=MAX_LENGTH, max_drop=100)


@pytest.fixture(scope="module")
def coreml_export(bert, questions, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("exports") / "coreml"
    return output, export(bert, output, format="coreml", questions=questions[:6], max_length=MAX_LENGTH)


def padded_batch(vocab_size: int, sep_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of a question, a separator and a context, padded by 0, 20 and 30 of 40 tokens."""
    ids_BL = torch.randint(5, vocab_size, (3, 40), generator=torch.Generator().manual_seed(3))
    ids_BL[:, 7] = sep_id
    mask_BL = torch.ones_like(ids_BL)
    for row, length in enumerate((40, 20, 10)):
        ids_BL[row, length - 1] = sep_id
        ids_BL[row, length:] = 0
        mask_BL[row, length:] = 0
    return ids_BL, mask_BL


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (BertForQuestionAnswering, {}),
        (BertForQuestionAnswering, {"type_vocab_size": 1}),
        (BertForMaskedLM, {}),
        (BertForMaskedLM, {"tie_word_embeddings": False}),
        (DistilBertForQuestionAnswering, {}),
        (DistilBertForMaskedLM, {}),
        (BertForSequenceClassification, {"num_labels": 3}),
        (BertForSequenceClassification, {"num_labels": 1}),
        (DistilBertForSequenceClassification, {"num_labels": 3}),
    ],
)
def test_plain_encoder_equals_the_library_at_60_db(kind, overrides):
    model = random_model(kind, **overrides)
    ids_BL, mask_BL = padded_batch(2000, sep_id=3)
    plain = PlainEncoder.from_library(model, sep_id=3)
    with torch.no_grad():
        expected = model(**model_inputs(model, ids_BL, mask_BL, sep_id=3))
        values = plain(ids_BL, mask_BL)
    for name, value in zip(plain.output_names, values, strict=True):
        assert list(value.shape) == plain.output_shape(*ids_BL.shape)
        # A classifier has one row of logits for each text, the others one for each token.
        real = mask_BL == 1 if value.shape[:2] == mask_BL.shape else slice(None)
        signal = expected[name][real]
        noise = value[real] - signal
        assert 10 * torch.log10(signal.square().sum() / noise.square().sum()) > 60


def test_plain_encoder_refuses_what_it_has_no_conversion_for():
    with pytest.raises(UserError, match="BertForTokenClassification"):
        PlainEncoder.from_library(random_model(BertForTokenClassification), 3)
    with pytest.raises(UserError, match="hidden_act is 'relu'"):
        PlainEncoder.from_library(random_model(BertForQuestionAnswering, hidden_act="relu"), 3)
    with pytest.raises(UserError, match="activation is 'relu'"):
        PlainEncoder.from_library(random_model(DistilBertForQuestionAnswering, activation="relu"), 3)


def test_onnx_export_gives_the_checkpoint_s_answers(distilbert, onnx_export, questions):
    output, result = onnx_export
    assert result["gate"]["fp32"]["max_logit_difference"] < 1e-3
    assert result["gate"]["fp32"]["same_answers"] == 100
    expected = QuestionAnswerer(open_runtime(distilbert), max_length=MAX_LENGTH).ask_all(questions)
    answers = QuestionAnswerer(open_runtime(output, precision="fp32"), max_length=MAX_LENGTH).ask_all(questions)
    for question in questions:
        # By score and not by rank: on a random model two answers can lie closer than rounding.
        score = {(answer.start, answer.end): answer.score for answer in expected[question.id]}
        best = answers[question.id][0]
        assert score[best.start, best.end] == pytest.approx(expected[question.id][0].score, rel=1e-4)


def test_onnx_export_lists_its_files_and_describes_itself(onnx_export):
    output, result = onnx_export
    assert [(file["path"], file["precision"]) for file in result["files"]] == [
        ("onnx/model.onnx", "fp32"),
        ("onnx/model_quantized.onnx", "int8"),
    ]
    assert all(file["bytes"] == (output / file["path"]).stat().st_size for file in result["files"])
    manifest = read_manifest(output)
    assert (manifest["kind"], manifest["task"], manifest["measured"]) == ("onnx", "question-answering", result["gate"])
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (output / file).is_file()
    assert f"{result['gate']['checkpoint']['f1']:.4g}" in (output / "README.md").read_text()


def test_onnx_graphs_hold_fused_operators_and_dynamic_shapes(onnx_export):
    output, _ = onnx_export
    proto = onnx.load(output / "onnx/model.onnx")
    operators = Counter(node.op_type for node in proto.graph.node)
    assert (operators["MultiHeadAttention"], operators["LayerNormalization"], operators["BiasGelu"]) == (2, 5, 2)
    assert proto.producer_name == "edge-distil"
    for value in (*proto.graph.input, *proto.graph.output):
        assert [dimension.dim_param for dimension in value.type.tensor_type.shape.dim] == ["batch", "length"]
    quantized = onnx.load(output / "onnx/model_quantized.onnx")
    assert quantized.producer_name == "edge-distil"
    operators = Counter(node.op_type for node in quantized.graph.node)
    # Six products in each of two layers are int8, of four inputs; the head's stays as it is.
    assert (operators["MatMulIntegerToFloat"], operators["MatMul"]) == (12, 1)
    assert operators["DynamicQuantizeLinear"] == 8


@pytest.mark.parametrize(
    ("precision", "fused"),
    [
        ("fp32", {"MultiHeadAttention": 2, "LayerNormalization": 5, "BiasGelu": 2}),
        (
            "int8",
            {
                "MultiHeadAttention": 2,
                "LayerNormalization": 5,
                "Gelu": 2,
                "MatMulIntegerToFloat": 6,
                "DynamicQuantizeMatMul": 6,
            },
        ),
    ],
)
def test_fused_operators_are_what_a_session_runs(onnx_export, tmp_path, precision, fused):
    """Its optimiser takes none of them apart, and puts no slower one in their place."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(onnx_export[0] / GRAPHS[precision]), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert {name: run[name] for name in fused} == fused
    assert not {"Softmax", "Erf", "SkipLayerNormalization"} & run.keys()


def test_onnx_graph_takes_any_batch_and_length_and_ignores_padding(bert, questions, tmp_path):
    export(bert, tmp_path / "out", format="onnx", questions=questions[:4], max_length=MAX_LENGTH, max_drop=100)
    runtime = open_runtime(tmp_path / "out", precision="fp32")
    ids_BL, mask_BL = (t.numpy() for t in padded_batch(1000, special_tokens(load_tokenizer(bert)).sep))
    batch = runtime(ids_BL, mask_BL)["start_logits"]
    alone = runtime(ids_BL[2:, :10], mask_BL[2:, :10])["start_logits"]
    np.testing.assert_allclose(batch[2:, :10], alone, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_int32_inputs_give_the_same_logits(bert, tmp_path, precision):
    plain = PlainEncoder.from_library(load_model(bert, "question-answering"), special_tokens(load_tokenizer(bert)).sep)
    ids_BL, mask_BL = (t.numpy() for t in padded_batch(1000, plain.config.sep_id))
    logits = []
    for input_type in ("int64", "int32"):
        folder = tmp_path / input_type
        folder.mkdir()
        path = folder / write_graph(plain, folder, plan_for(precision, "x86", input_type))
        types = {
            i.name: onnx.TensorProto.DataType.Name(i.type.tensor_type.elem_type) for i in onnx.load(path).graph.input
        }
        assert types == dict.fromkeys(("input_ids", "attention_mask"), input_type.upper())
        logits.append(open_runtime(folder, precision=precision)(ids_BL, mask_BL))
    for name, expected in logits[0].items():
        np.testing.assert_array_equal(logits[1][name], expected)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.505), ("int8", 0.26), ("int4", 0.16)])
def test_size_of_a_precision_against_fp32(tmp_path, precision, share):
    """At DistilBERT's proportions: its own shares are 50.0, 25.2 and 14.4 %."""
    model = random_model(
        DistilBertForQuestionAnswering, 8000, dim=256, n_layers=3, hidden_dim=1024, max_position_embeddings=64
    )
    plain = PlainEncoder.from_library(model, 3)
    sizes = {
        name: (tmp_path / write_graph(plain, tmp_path, plan_for(name, "x86"))).stat().st_size
        for name in ("fp32", precision)
    }
    assert sizes[precision] <= share * sizes["fp32"]


def test_same_checkpoint_gives_the_same_bytes(distilbert, onnx_export, questions, tmp_path):
    output, _ = onnx_export
    export(distilbert, tmp_path / "again", format="onnx", questions=questions[:4], max_length=MAX_LENGTH, max_drop=100)
    for path in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        assert (tmp_path / "again" / path).read_bytes() == (output / path).read_bytes()


def test_masked_lm_export_is_found_out_and_gives_the_checkpoint_s_words(masked_lm, questions, tmp_path):
    result = export(masked_lm, tmp_path / "out", format="onnx", questions=questions, max_length=MAX_LENGTH)
    assert read_manifest(tmp_path / "out")["task"] == "masked-lm"
    assert result["gate"]["fp32"]["max_logit_difference"] < 1e-3
    assert result["gate"]["fp32"]["same_words"] == 100
    assert result["gate"]["int8"]["same_words"] >= 80


@pytest.mark.parametrize("labels", [["bad", "fine", "good"], None])
@pytest.mark.parametrize("format", ["onnx", "coreml"])
def test_text_classifier_export_is_found_out_and_scores_as_its_checkpoint(
    save, tokenizer, questions, tmp_path, format, labels
):
    config = {"num_labels": len(labels or ["score"]), "id2label": dict(enumerate(labels or ["score"]))}
    config["problem_type"] = "single_label_classification" if labels else "regression"
    checkpoint = save(random_model(DistilBertForSequenceClassification, tokenizer.get_vocab_size(), **config))
    result = export(checkpoint, tmp_path / "out", format=format, questions=questions[:6], max_length=MAX_LENGTH)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["kind"], manifest["task"]) == (format, "text-classification")
    best = result["gate"]["fp32" if format == "onnx" else "fp16"]
    assert best["decibels"] > (100 if format == "onnx" else 30)
    assert best.get("same_labels") == (100.0 if labels else None)
    if format == "coreml":
        package = read_program(tmp_path / "out" / "model.mlpackage")
        assert package.outputs["logits"].shape == (1, len(labels or ["score"]))
        return
    task = TEXT if labels else GLUE["sts-b"]
    examples = [
        Example(str(n), q.question, None, labels[n % 3] if labels else n % 6 / 2) for n, q in enumerate(questions)
    ]
    figures = []
    for runtime in (
        TorchRuntime.load(checkpoint, task="text-classification"),
        open_runtime(tmp_path / "out", precision="fp32"),
    ):
        found = evaluate_texts(runtime, task, {"": examples}, max_length=MAX_LENGTH, errors=3)
        figures.append([[error["id"] for error in found["errors"]], *(found[name] for name in task.metrics)])
    assert figures[0][0] == figures[1][0]
    assert figures[0][1:] == pytest.approx(figures[1][1:], abs=1e-3)


def test_int8_of_a_text_classifier_is_scored_on_labels_where_they_are_given(save, tokenizer, questions, tmp_path):
    checkpoint = save(random_model(DistilBertForSequenceClassification, tokenizer.get_vocab_size(), num_labels=2))
    contexts = list(dict.fromkeys(question.context for question in questions))
    examples = [Example(str(n), text, None, "01"[n % 2]) for n, text in enumerate(contexts)]
    labelled = gate.LabelledTexts(GLUE["cola"], examples)
    options = {"format": "onnx", "questions": questions, "max_length": MAX_LENGTH, "labelled": labelled}
    measured = export(checkpoint, tmp_path / "out", max_drop=100, **options)["gate"]
    assert measured["texts"] == len(examples)
    assert measured["checkpoint"]["matthews"] == pytest.approx(measured["fp32"]["matthews"])
    assert {"matthews", "score", "same_labels"} <= measured["int8"].keys()


def test_family_is_timed_compared_and_drawn(distilbert, questions, tmp_path):
    options = OnnxOptions(precisions=("fp32", "fp16", "int8", "int4"), target="x86", family=True)
    output = tmp_path / "out"
    result = export(
        distilbert, output, format="onnx", questions=questions[:4], max_length=MAX_LENGTH, max_drop=100, onnx=options
    )
    sizes = {file["precision"]: file["bytes"] for file in result["files"]}
    assert list(sizes) == ["fp32", "fp16", "int8", "int4"]
    assert sizes["fp32"] > sizes["fp16"] > sizes["int8"] > sizes["int4"]
    assert all(result["gate"][precision]["median_ms"] > 0 for precision in sizes)
    card = (output / "README.md").read_text()
    assert "| int4 |" in card
    assert "![Size against quality](precisions.png)" in card
    assert (output / "precisions.png").read_bytes().startswith(b"\x89PNG")
    assert open_runtime(output).precision == "int8"
    for precision in sizes:
        assert open_runtime(output, precision=precision).precision == precision


def test_int8_that_loses_too_much_keeps_its_worst_parts_and_says_which(save, tokenizer, questions, tmp_path):
    model = random_model(DistilBertForQuestionAnswering, tokenizer.get_vocab_size())
    with torch.no_grad():
        # Its input's few large values leave none of 255 steps to the others.
        model.distilbert.transformer.layer[0].ffn.lin1.bias[:2] = 3000.0
        model.distilbert.transformer.layer[0].ffn.lin2.weight[:, :2] = 0.0
    checkpoint = save(model)
    without_gold = [replace(question, answers=()) for question in questions]
    options = OnnxOptions(precisions=("int8",), target="x86")
    result = export(
        checkpoint, tmp_path / "out", format="onnx", questions=without_gold, max_length=MAX_LENGTH, onnx=options
    )
    search = result["gate"]["int8"]["search"]
    assert "layers.0.output" in search["kept"]
    assert search["kept_in"] == "fp32"
    assert search["tried"]["0"]["same_answers"] < gate.LEAST_AGREEMENT <= result["gate"]["int8"]["same_answers"]
    assert "layers.0.output" in (tmp_path / "out/README.md").read_text()


def test_gate_refuses_a_text_classifier_with_a_weight_that_was_changed(
    save, tokenizer, questions, tmp_path, monkeypatch
):
    checkpoint = save(random_model(BertForSequenceClassification, tokenizer.get_vocab_size(), num_labels=3))
    whole = PlainEncoder.from_library

    def faulty(model: PreTrainedModel, sep_id: int) -> PlainEncoder:
        plain = whole(model, sep_id)
        with torch.no_grad():
            plain.head.classifier.bias[1] += 0.01
        return plain

    monkeypatch.setattr(PlainEncoder, "from_library", faulty)
    with pytest.raises(UserError, match=r"differs from the checkpoint by 0\.01"):
        export(checkpoint, tmp_path / "out", format="onnx", questions=questions[:3], max_length=MAX_LENGTH)
    assert not (tmp_path / "out").exists()


def test_gate_refuses_a_graph_with_two_weights_swapped(distilbert, questions, tmp_path, monkeypatch):
    build = graph.build_graph

    def tampered(model: PlainEncoder, plan: Plan) -> onnx.ModelProto:
        proto = build(model, plan)
        weights = {weight.name: weight for weight in proto.graph.initializer}
        weights["layers.0.query.weight"].name = "layers.0.key.weight"
        weights["layers.0.key.weight"].name = "layers.0.query.weight"
        return proto

    monkeypatch.setattr(graph, "build_graph", tampered)
    with pytest.raises(UserError, match=r"fp32 model differs from the checkpoint by .* at most 0\.0001 is"):
        export(distilbert, tmp_path / "out", format="onnx", questions=questions[:4], max_length=MAX_LENGTH)
    assert list(tmp_path.iterdir()) == []


def test_gate_refuses_int8_that_loses_answers_and_keeps_what_was_there(onnx_export, questions, tmp_path, monkeypatch):
    """A random model's F1 means nothing, so the scores are given: checkpoint, fp32, int8."""
    output, _ = onnx_export
    shutil.copytree(output, tmp_path / "out")
    before = read_manifest(tmp_path / "out")
    monkeypatch.setattr(gate, "score_squad", lambda asked, predictions: {"f1": next(scores), "exact_match": 0.0})
    scores = itertools.chain([90.0, 90.0], itertools.repeat(40.0))
    source = Path(before["inputs"]["model"]["path"])
    message = r"int8 model loses 50\.00 points of F1 .*\(90\.00 to 40\.00\).* most sensitive parts of 10 in fp32"
    with pytest.raises(UserError, match=message) as refusal:
        export(source, tmp_path / "out", format="onnx", questions=questions, max_length=MAX_LENGTH, overwrite=True)
    assert "--max-drop" in refusal.value.hint
    assert read_manifest(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_core_ml_package_read_back_is_complete(coreml_export):
    output, result = coreml_export
    package = read_program(output / "model.mlpackage")
    assert {name: (feature.shape, feature.dtype) for name, feature in package.inputs.items()} == {
        "input_ids": ((1, MAX_LENGTH), "INT32"),
        "attention_mask": ((1, MAX_LENGTH), "INT32"),
    }
    assert {name: (feature.shape, feature.dtype) for name, feature in package.outputs.items()} == {
        "start_logits": ((1, MAX_LENGTH), "FLOAT32"),
        "end_logits": ((1, MAX_LENGTH), "FLOAT32"),
    }
    # Two layers of six projections, and the head; two products of attention in each; the table's norm and two in each.
    assert [package.operation_counts[name] for name in ("linear", "matmul", "softmax", "layer_norm")] == [13, 4, 2, 5]
    assert max(constant.largest for constant in package.constants) == 10000  # the mask
    # By hand, in values of 2 bytes: words, 64 positions, 2 segments, norm; each layer; the head's 2 × 64.
    vocab_size = int(package.metadata["vocab_size"])
    layer = 4 * (64 * 64 + 64) + 2 * 64 + (64 * 128 + 128) + (128 * 64 + 64) + 2 * 64
    assert package.weight_bytes == 2 * ((vocab_size + 64 + 2 + 2) * 64 + 2 * layer + 2 * 64)
    assert (package.metadata["max_length"], package.metadata["do_lower_case"]) == ("64", "true")
    assert result["files"][0]["precision"] == "fp16"
    assert result["gate"]["fp16"]["decibels"] > 30


def test_a_masked_lm_whose_head_normalises_small_states_is_right_in_fp16(save, tokenizer, questions, tmp_path):
    """Its epsilon is 2⁻¹⁴ in a package, and the variance here some 1e-4."""
    model = random_model(BertForMaskedLM, tokenizer.get_vocab_size())
    transform = model.cls.predictions.transform.dense
    transform.weight.data *= 0.004
    transform.bias.data *= 0.004
    result = export(save(model), tmp_path / "out", format="coreml", questions=questions[:2], max_length=MAX_LENGTH)
    assert result["gate"]["fp16"]["same_weights_decibels"] > 40


def test_core_ml_export_leaves_nothing_on_standard_output(distilbert, questions, tmp_path, capfd):
    export(distilbert, tmp_path / "out", format="coreml", questions=questions[:1], max_length=16)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def package_copy(coreml_export, tmp_path) -> Path:
    return Path(shutil.copytree(coreml_export[0] / "model.mlpackage", tmp_path / "model.mlpackage"))


def test_package_without_its_weights_is_refused(package_copy):
    (package_copy / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    with pytest.raises(UserError, match=r"weight\.bin: is missing"):
        read_program(package_copy)


def test_package_with_weights_cut_short_is_refused(package_copy):
    weights = package_copy / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"weight\.bin: ends at byte"):
        read_program(package_copy)


def test_package_with_overwritten_weights_is_refused(package_copy):
    weights = package_copy / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(UserError, match=r"weight\.bin: has no weights at byte 64"):
        read_program(package_copy)


def corrupt_a_byte(path: Path) -> None:
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[128] ^= 1  # the lowest bit of the first weight, after the header and the entry
    weights.write_bytes(data)


def test_gate_refuses_a_package_with_one_bit_of_its_weights_changed(bert, questions, tmp_path, monkeypatch):
    """Which no answer would show."""
    write = compression.write_program

    def write_and_corrupt(spec, path):
        checksum = write(spec, path)
        corrupt_a_byte(path)
        return checksum

    monkeypatch.setattr(compression, "write_program", write_and_corrupt)
    with pytest.raises(UserError, match=r"the weight file of model\.mlpackage is not what was written"):
        export(bert, tmp_path / "out", format="coreml", questions=questions[:2], max_length=MAX_LENGTH)
    assert list(tmp_path.iterdir()) == []


def swap_two_weights(program: Converted) -> None:
    first, second = (f"layers_{index}_output_weight_to_fp16" for index in (0, 1))
    weights = dict(program.weights)
    weights[first], weights[second] = weights[second], weights[first]
    object.__setattr__(program, "weights", weights)


def make_the_mask_infinite(program: Converted) -> None:
    changed = 0
    for operation in program.block.operations:
        value = operation.attributes["val"].immediateValue.tensor if operation.type == "const" else None
        if value is not None and value.bytes.values == np.float16(MASKED_SCORE).tobytes():
            value.bytes.values = np.float16(-np.inf).tobytes()
            changed += 1
    assert changed


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (swap_two_weights, r"the fp16 package's logits are -?[0-9.]+ dB above their distance .*, at least 40 dB"),
        (make_the_mask_infinite, r"constant .* reaches inf, fp16 holds at most 65504"),
    ],
)
def test_gate_refuses_a_package_with_a_planted_fault(bert, questions, tmp_path, monkeypatch, fault, message):
    convert = coreml.convert

    def convert_wrongly(*arguments):
        program = convert(*arguments)
        fault(program)
        return program

    monkeypatch.setattr(coreml, "convert", convert_wrongly)
    with pytest.raises(UserError, match=message):
        export(bert, tmp_path / "out", format="coreml", questions=questions[:4], max_length=MAX_LENGTH)
    assert list(tmp_path.iterdir()) == []


def test_gate_names_the_first_operation_of_a_package_that_overflows(save, tokenizer, questions, tmp_path):
    model = random_model(BertForQuestionAnswering, tokenizer.get_vocab_size())
    model.bert.encoder.layer[1].intermediate.dense.weight.data *= 30000
    checkpoint = save(model)
    with pytest.raises(
        UserError, match=r"fp16 package gives NaN or infinity at the operation linear, linear_10_cast_fp16"
    ):
        export(checkpoint, tmp_path / "out", format="coreml", questions=questions[:2], max_length=MAX_LENGTH)
    assert list(tmp_path.iterdir()) == []


def test_core_ml_precision_that_loses_too_much_keeps_its_worst_parts_and_says_which(
    save, tokenizer, questions, tmp_path
):
    model = random_model(DistilBertForQuestionAnswering, tokenizer.get_vocab_size())
    with torch.no_grad():
        # A weight of every row that meets zeros alone, and leaves none of 255 steps to the others.
        model.distilbert.transformer.layer[0].ffn.lin1.weight[0] = 0.0
        model.distilbert.transformer.layer[0].ffn.lin1.bias[0] = -100.0
        model.distilbert.transformer.layer[0].ffn.lin2.weight[:, 0] = 1000.0
    checkpoint = save(model)
    without_gold = [replace(question, answers=()) for question in questions]
    options = CoreMLOptions(precisions=("int8",))
    result = export(
        checkpoint, tmp_path / "out", format="coreml", questions=without_gold, max_length=MAX_LENGTH, coreml=options
    )
    search = result["gate"]["int8"]["search"]
    assert "layers.0.output" in search["kept"]
    assert search["kept_in"] == "fp16"
    assert search["tried"]["0"]["same_answers"] < gate.LEAST_AGREEMENT <= result["gate"]["int8"]["same_answers"]
    assert "layers.0.output" in (tmp_path / "out/README.md").read_text()


def test_checkpoint_with_weights_beyond_fp16_is_refused_for_core_ml(save, tokenizer, questions, tmp_path):
    model = random_model(BertForQuestionAnswering, tokenizer.get_vocab_size())
    model.bert.encoder.layer[0].attention.self.query.weight.data[0, 0] = 1e5
    folder = save(model)
    with pytest.raises(UserError, match="fp16 holds at most 65504"):
        export(folder, tmp_path / "out", format="coreml", questions=questions[:1], max_length=16)
    assert list(tmp_path.iterdir()) == []


def test_missing_coremltools_is_named_with_the_extra(distilbert, questions, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_coremltools(name: str, *args: object, **kwargs: object) -> object:
        if name == "coremltools":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_coremltools)
    with pytest.raises(UserError, match="needs coremltools") as refusal:
        import_coremltools()
    assert refusal.value.hint == "pip install 'edge-distil[coreml]'"


@pytest.mark.parametrize("max_length", [97, 15])
def test_max_length_outside_the_position_table_is_refused(distilbert, questions, tmp_path, max_length):
    with pytest.raises(UserError, match=f"max_length of {max_length} .* 96 positions"):
        export(distilbert, tmp_path / "out", format="coreml", questions=questions, max_length=max_length)
    assert list(tmp_path.iterdir()) == []


def test_output_that_holds_something_else_is_left_alone(distilbert, questions, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        export(distilbert, tmp_path, format="onnx", questions=questions, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_checkpoint_without_a_question_answering_head_is_refused(masked_lm, questions, tmp_path):
    with pytest.raises(UserError, match="no question-answering head"):
        export(masked_lm, tmp_path / "out", format="onnx", questions=questions, task="question-answering")
    assert list(tmp_path.iterdir()) == []


def test_result_is_json(onnx_export, coreml_export):
    for _, result in (onnx_export, coreml_export):
        assert json.loads(json.dumps(result)) == result
