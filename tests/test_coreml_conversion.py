"""Core ML conversion: the module that is converted equals the model, and packages are what was asked for."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_command
from torch import nn

from edge_distil.errors import UserError
from edge_distil.tasks.squad import Question
from exporters import CoreMLOptions, export
from exporters.coreml import About, CoreMLPlan, convert, module_of, traced, write_package
from exporters.coreml.ane import ChannelNorm
from exporters.coreml.fp16 import SMALLEST_NORMAL
from exporters.coreml.plan import check_lengths, parse_lengths
from exporters.encoder import (
    EncoderConfig,
    Head,
    MaskedLMHead,
    PlainEncoder,
    QuestionAnsweringHead,
    TextClassificationHead,
)

HEADS = (QuestionAnsweringHead, MaskedLMHead, TextClassificationHead)
CONFIG = EncoderConfig(
    vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12, sep_id=3, classes=3,
)  # fmt: skip


def encoder(head: type[Head] = QuestionAnsweringHead, *, segments: int = 2, spread: float = 0.3) -> PlainEncoder:
    """Two layers whose weights are all random: a BERT's, or a DistilBERT's where it has no `segments`."""
    config = EncoderConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__} | {"type_vocab_size": segments})
    model = PlainEncoder(config, head).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        nn.init.normal_(parameter, mean=mean, std=spread, generator=generator)
    if isinstance(model.head, MaskedLMHead):
        model.head.decoder.weight = model.embeddings.word.weight
    return model


def inputs(length: int = 40, real: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """One question and context, padded."""
    ids_1L = torch.randint(5, 100, (1, length), generator=torch.Generator().manual_seed(3))
    ids_1L[0, 7] = ids_1L[0, real - 1] = 3
    ids_1L[0, real:] = 0
    return ids_1L.int(), (torch.arange(length) < real).int()[None]


def decibels(expected: torch.Tensor, found: torch.Tensor) -> float:
    noise = (found - expected).square().sum().clamp(min=1e-30)
    return float(10 * torch.log10(expected.square().sum() / noise))


def operations(spec: Any) -> list[Any]:
    main = spec.mlProgram.functions["main"]
    return list(main.block_specializations[main.opset].operations)


def specification(path: Path) -> Any:
    from coremltools import proto

    spec = proto.Model_pb2.Model()
    spec.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return spec


def small_constants(spec: Any) -> dict[str, np.ndarray]:
    """The floating-point constants that lie in the program itself."""
    found = {}
    for operation in operations(spec):
        tensor = operation.attributes["val"].immediateValue.tensor if operation.type == "const" else None
        kind = None if tensor is None else tensor.WhichOneof("value")
        if kind == "bytes":
            found[operation.outputs[0].name] = np.frombuffer(tensor.bytes.values, np.float16).astype(np.float64)
        elif kind == "floats":
            found[operation.outputs[0].name] = np.array(tensor.floats.values)
    return found


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("segments", [0, 1, 2])
def test_converted_module_equals_the_model_at_60_db(layout, head, segments):
    model = encoder(head, segments=segments)
    plan = CoreMLPlan(layout=layout, lengths=(40,))
    module = module_of(model, plan)
    assert {name.partition(".")[0] for name in module.state_dict()} == {"embeddings", "layers", "head"}
    assert module.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        expected, found = model(*inputs()), traced(module, 40)(*inputs())
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert decibels(one, other) > 100


@pytest.mark.parametrize("layout", ["plain", "ane"])
def test_module_of_several_lengths_takes_each(layout):
    model = encoder()
    module = traced(module_of(model, CoreMLPlan(layout=layout, lengths=range(16, 49))), 48)
    for length in (16, 31, 48):
        given = inputs(length, real=12)
        with torch.no_grad():
            assert decibels(model(*given)[0], module(*given)[0]) > 100


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize("spread", [0.02, 0.3])
@pytest.mark.parametrize("real", [1, 25, 48])
def test_fp16_values_stay_finite_and_near_whatever_is_padded(layout, spread, real):
    model = encoder(spread=spread)
    given = inputs(48, real=max(real, 9))
    given[1][0, real:] = 0
    module = module_of(model, CoreMLPlan(layout=layout, lengths=(48,)))
    with torch.no_grad():
        expected = model(*given)
        found = with_fp16_epsilon(module).half()(*given)
    for one, other in zip(expected, found, strict=True):
        assert torch.isfinite(other).all()
        assert decibels(one, other.float()) > 40


def with_fp16_epsilon(model: PlainEncoder) -> PlainEncoder:
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = max(norm.eps, SMALLEST_NORMAL)
    return model


@pytest.mark.parametrize("layout", ["plain", "ane"])
def test_fp16_epsilon_changes_nothing_measurable(layout):
    """At the width of the embeddings of BERT, whose variance is far below that of the layers' sums."""
    model = encoder()
    for table in (model.embeddings.word, model.embeddings.position, model.embeddings.segment):
        nn.init.normal_(table.weight, std=0.03, generator=torch.Generator().manual_seed(1))
    module = with_fp16_epsilon(module_of(model, CoreMLPlan(layout=layout, lengths=(40,))))
    with torch.no_grad():
        expected = model(*inputs())[0]
        assert decibels(expected, module(*inputs())[0]) > 80  # fp16 itself is at about 60
        assert decibels(expected, with_fp16_epsilon(model)(*inputs())[0]) < 60  # without the scale it is measurable


@pytest.mark.parametrize(
    "row", [torch.full((64,), 3.0), torch.zeros(64), torch.linspace(-6e4, 6e4, 64), torch.linspace(-2e-3, 2e-3, 64)]
)
def test_channel_norm_is_layer_norm_and_finite_in_fp16(row):
    norm, expected = ChannelNorm(64, 1e-12), nn.LayerNorm(64, 1e-12)
    expected.load_state_dict({"weight": torch.linspace(0.5, 1.5, 64), "bias": torch.linspace(-1, 1, 64)})
    norm.load_state_dict(expected.state_dict())
    with torch.no_grad():
        given = row.half()[None, :, None, None]
        found = norm.half()(given)[0, :, 0, 0].float()
        torch.testing.assert_close(found, expected(given.float()[0, :, 0, 0]), atol=4e-3, rtol=4e-3)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Write the package of a plan and read its specification."""

    def write(model: PlainEncoder, **options: Any) -> Any:
        path = tmp_path_factory.mktemp("packages") / "model.mlpackage"
        about = About("An encoder.", {"source": "test"})
        write_package(model, path, CoreMLPlan(**{"lengths": (40,)} | options), about)
        return specification(path)

    return write


@pytest.mark.parametrize(("ios", "version", "opset"), [(16, 7, "CoreML6"), (17, 8, "CoreML7"), (18, 9, "CoreML8")])
def test_deployment_target_is_the_one_asked_for(write, ios, version, opset):
    spec = write(encoder(), ios=ios)
    assert (spec.specificationVersion, spec.mlProgram.functions["main"].opset) == (version, opset)


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize(("head", "ios"), [*((head, 16) for head in HEADS), (MaskedLMHead, 17), (MaskedLMHead, 18)])
def test_program_holds_no_infinity_and_no_subnormal_number(write, head, ios, layout):
    spec = write(encoder(head), layout=layout, ios=ios)
    constants = small_constants(spec)
    assert -10000 in np.concatenate([values.ravel() for values in constants.values()])
    for name, values in constants.items():
        sizes = np.abs(values)
        assert ((sizes == 0) | (sizes >= SMALLEST_NORMAL)).all(), name
        assert (sizes <= 10000).all(), name
    epsilons = {op.inputs["epsilon"].arguments[0].name for op in operations(spec) if op.type == "layer_norm"}
    assert all(constants[name] == SMALLEST_NORMAL for name in epsilons)
    assert bool(epsilons) == (layout == "plain")


def test_fp32_program_keeps_the_model_s_epsilon(write):
    spec = write(encoder(), precision="fp32")
    names = [op.inputs["epsilon"].arguments[0].name for op in operations(spec) if op.type == "layer_norm"]
    found = {op.outputs[0].name: op.attributes["val"] for op in operations(spec) if op.type == "const"}
    assert found[names[-1]].immediateValue.tensor.floats.values[0] == pytest.approx(1e-12)
    assert not any("FLOAT16" in str(op.outputs) for op in operations(spec))


def test_ane_layout_is_convolutions_and_small_products_alone(write):
    types = [operation.type for operation in operations(write(encoder(), layout="ane"))]
    # Two layers of six projections, and the head; of four heads two products each.
    assert types.count("conv") == 13
    assert types.count("linear") == types.count("reshape") == types.count("layer_norm") == 0
    assert types.count("softmax") == 8


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize(
    ("ios", "lengths", "enumerated", "ranges"),
    [
        (16, (40,), [], []),
        (16, range(16, 49), [], [(1, 1), (16, 48)]),
        (17, range(20, 31), [], [(1, 1), (20, 30)]),
        (18, (16, 24, 40), [[1, 16], [1, 24], [1, 40]], []),
    ],
)
def test_inputs_take_the_lengths_asked_for_and_the_longest_by_default(write, layout, ios, lengths, enumerated, ranges):
    spec = write(encoder(), layout=layout, ios=ios, lengths=lengths)
    for feature in spec.description.input:
        array = feature.type.multiArrayType
        assert list(array.shape) == [1, lengths[-1]]
        shapes = [list(shape.shape) for shape in array.enumeratedShapes.shapes]
        assert sorted(shapes) == enumerated
        assert [(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges] == ranges


def test_package_describes_itself(write):
    description = write(encoder(), lengths=range(16, 41)).description
    described = {feature.name: feature.shortDescription for feature in (*description.input, *description.output)}
    assert list(described) == ["input_ids", "attention_mask", "start_logits", "end_logits"]
    assert all("[1, 16..40]" in text for text in described.values())
    metadata = description.metadata
    assert (metadata.author, metadata.shortDescription) == ("edge-distil", "An encoder.")
    assert metadata.versionString
    assert metadata.license
    assert metadata.userDefined["source"] == "test"


@pytest.mark.parametrize(
    ("text", "lengths"), [("384", (384,)), (" 16, 32,48", (16, 32, 48)), ("16..384", range(16, 385))]
)
def test_lengths_are_read(text, lengths):
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    "text", ["", "a", "16,", "32,16", "16,16", "48..16", "16..16", "16..", "16...48", "-16", "1.5"]
)
def test_lengths_that_are_none_are_refused_with_the_option_s_name(text):
    with pytest.raises(UserError, match="--lengths") as refusal:
        parse_lengths(text)
    assert refusal.value.hint


@pytest.mark.parametrize("lengths", [(15, 48), (16, 49), range(8, 40), (513,)])
def test_lengths_beyond_the_position_table_or_below_a_window_are_refused(lengths):
    with pytest.raises(UserError, match=r"--lengths: (15|49|8|513) is not possible, the model has 48 positions"):
        check_lengths(lengths, 48)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"precision": "int4", "ios": 17}, "int4 needs iOS 18", "add --ios 18"),
        ({"precision": "w8a8"}, "w8a8 needs iOS 17", "palette8"),
        ({"kept": {"head.pooler": "int4"}}, "int4 needs iOS 18", "add --ios 18"),
        ({"lengths": (16, 32), "ios": 17}, "--lengths 16,32 needs iOS 18", "--lengths 16..32"),
    ],
)
def test_what_a_target_does_not_have_is_refused(options, message, hint):
    with pytest.raises(UserError, match=message) as refusal:
        CoreMLPlan(**options)
    assert hint in refusal.value.hint


def test_weights_that_fp16_does_not_hold_are_refused_by_name():
    model = encoder()
    model.layers[0].query.weight.data[0, 0] = 1e5
    plan = CoreMLPlan(lengths=(16,))
    with pytest.raises(UserError, match=r"layers_0_query_weight.* reach 100000, fp16 holds at most 65504"):
        convert(traced(module_of(model, plan), 16), model, plan)


_WRITE = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, "tests")
from test_coreml_conversion import encoder
from exporters.coreml import CoreMLPlan, write_package
torch.set_num_threads(1)
write_package(encoder(), Path(sys.argv[1]), CoreMLPlan("palette6", layout="ane", ios=18, lengths=(16, 40)))
"""


def test_same_model_gives_the_same_bytes_in_another_process_and_leaves_nothing(tmp_path):
    digests = []
    for seed in ("1", "2"):
        path, temporary = tmp_path / seed / "model.mlpackage", tmp_path / f"temporary{seed}"
        temporary.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "TMPDIR": str(temporary)}
        done = subprocess.run([sys.executable, "-c", _WRITE, path], env=environment, capture_output=True, check=True)
        assert done.stdout == b""
        assert [entry.name for entry in temporary.iterdir() if "mlpackage" in entry.name] == []
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digests.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
    assert {name for name, _ in digests[0]} == {"weight.bin", "model.mlmodel", "Manifest.json"}
    assert digests[0] == digests[1]


def test_conversion_is_quiet_and_leaves_nothing(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_package(encoder(), tmp_path / "model.mlpackage", CoreMLPlan(lengths=(16,)))
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "temporary").iterdir()) == []
    manifest = json.loads((tmp_path / "model.mlpackage/Manifest.json").read_text())
    root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    assert (tmp_path / "model.mlpackage/Data" / root["path"]).is_file()


@pytest.fixture(scope="module")
def exported(distilbert_qa: Path, questions: list[Question], tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("exports") / "coreml"
    options = CoreMLOptions(("fp16", "fp32", "palette4", "w8a8"), layout="ane", ios=18, lengths=(64, 96))
    result = export(
        distilbert_qa, output, format="coreml", questions=questions[:6], max_drop=100, coreml=options, max_length=32
    )
    return output, result


def test_export_writes_every_precision_and_what_was_measured_of_it(exported):
    output, result = exported
    paths = {file["precision"]: output / file["path"] for file in result["files"]}
    assert list(paths) == ["fp16", "fp32", "palette4", "w8a8"]
    assert paths["fp16"].name == "model.mlpackage"
    assert paths["palette4"].name == "model_palette4.mlpackage"
    sizes = {file["precision"]: file["bytes"] for file in result["files"]}
    assert sizes["fp32"] > sizes["fp16"] > sizes["w8a8"] > sizes["palette4"]
    assert result["gate"]["fp32"]["max_logit_difference"] < 1e-4
    assert result["gate"]["fp16"]["decibels"] > 40
    assert {"f1", "exact_match", "megabytes"} <= result["gate"]["palette4"].keys()
    card = (output / "README.md").read_text()
    assert "iOS 18 and macOS 15" in card
    assert "64,96 tokens long" in card


@pytest.mark.parametrize("ios", [16, 18])
def test_packages_of_every_precision_pass_verify(distilbert_qa, squad_file, tmp_path, ios):
    arguments = ["--eval", squad_file, "--checked-questions", 1, "--max-drop", 100, "--max-length", 64]
    arguments += ["--format", "coreml", "--precision", "all", "--ios", ios, "-o", tmp_path / "out"]
    assert run_command("export", distilbert_qa, *arguments).status == 0
    checks = json.loads(run_command("verify", tmp_path / "out", "--json").out)["checks"]
    # Not that their answers agree: those of random weights are too close to each other.
    of_packages = [check for check in checks if "mlpackage" in check["check"] or "logits" in check["check"]]
    assert len(of_packages) == 2 * {16: 6, 18: 8}[ios]
    assert all(check["passed"] for check in of_packages), checks


def test_metadata_has_what_an_app_must_know(exported, tokenizer):
    output, _ = exported
    found = dict(specification(output / "model_w8a8.mlpackage").description.metadata.userDefined)
    expected = {"task": "question-answering", "max_length": "96", "lengths": "64,96", "doc_stride": "128"}
    expected |= {f"{name}_id": str(tokenizer.token_to_id(f"[{name.upper()}]")) for name in ("cls", "sep", "pad", "unk")}
    expected |= {"do_lower_case": "true", "vocab_size": str(tokenizer.get_vocab_size())}
    expected |= {"precision": "w8a8", "layout": "ane"}
    assert found.items() >= expected.items()
    assert len(found["source_sha256"]) == 64
    assert found["strip_accents"] in ("true", "false")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--precision", "int4", "--ios", "17"], "--precision int4 needs iOS 18", "--ios 18"),
        (["--precision", "int3"], "--precision int3: unknown for --format coreml", "palette4"),
        (["--ios", "15"], "--ios 15: unknown", "16, 17, 18"),
        (["--layout", "wide"], "--layout wide: unknown", "ane"),
        (["--lengths", "384,128"], "--lengths 384,128: ", "128,256,384"),
        (["--lengths", "128,256"], "--lengths 128,256 needs iOS 18", "128..256"),
        (["--lengths", "128..100000"], "--lengths: 100000 is not possible", "give lengths from 16"),
        (["--lengths", "64", "--max-length", "64"], "--max-length is one length", "leave one"),
        (["--calibration", "x.json"], "--calibration needs --precision w8a8", "add it"),
        (["--target", "x86"], "--target is for --format onnx, not for coreml", "leave it out"),
    ],
)
def test_options_that_cannot_be_are_errors(arguments, error, hint, tmp_path):
    ended = run_command("export", "--format", "coreml", "-o", tmp_path / "out", *arguments)
    assert error in ended.error
    assert hint in ended.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--ios", "17"], ["--layout", "ane"], ["--lengths", "64"]])
def test_options_of_core_ml_are_refused_elsewhere(option):
    assert run_command("export", *option).error == f"{option[0]} is for --format coreml, not for onnx"
    assert "--precision palette4: unknown for --format onnx" in run_command("export", "--precision", "palette4").error


def test_command_takes_the_options(distilbert_qa, squad_file, tmp_path):
    output = tmp_path / "out"
    options = ["--precision", "palette8", "--ios", "17", "--lengths", "32..64", "--layout", "ane"]
    ended = run_command(
        "export", distilbert_qa, "--format", "coreml", *options, "--eval", squad_file,
        "--checked-questions", 2, "--max-drop", 100, "-o", output, "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    files = json.loads(ended.out)["files"]
    assert [(file["path"], file["precision"]) for file in files] == [("model_palette8.mlpackage", "palette8")]
    spec = specification(output / "model_palette8.mlpackage")
    assert spec.specificationVersion == 8
    assert spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges[1].upperBound == 64
