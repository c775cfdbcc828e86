"""Core ML packages in few bits: what the saved package unpacks to is what was asked for, and near the weights."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_coreml_conversion import decibels, encoder, inputs, specification

from edge_distil.errors import UserError
from exporters.calibration import Activation, calibrate
from exporters.coreml import CoreMLPlan, convert, module_of, traced, unpacked, write_package
from exporters.coreml.compression import compress, dense, packed_bits, symmetric_scale
from exporters.coreml.palettes import nearest, palette
from exporters.coreml.plan import precisions_for
from exporters.encoder import MaskedLMHead, PlainEncoder, QuestionAnsweringHead
from exporters.parts import calibrated_parts

SAMPLES = [np.random.default_rng(seed).integers(5, 100, (1, 40)) for seed in range(4)]


def plan_of(model: PlainEncoder, precision: str, **options: Any) -> CoreMLPlan:
    activations = calibrate(model, calibrated_parts(model), SAMPLES) if precision == "w8a8" else {}
    return CoreMLPlan(precision, activations=activations, **{"lengths": (40,)} | options)  # type: ignore[arg-type]


def loaded(path: Path) -> list[Any]:
    """The operations of a saved package as coremltools reads them: it infers every type and unpacks every constant."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = specification(path)
    weights = path / "Data/com.apple.CoreML/weights"
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
    return list(program.functions["main"].operations)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """What the large constants of a saved package unpack to, by coremltools, under the names of our weights."""
    found = {}
    for operation in loaded(path):
        name = operation.outputs[0].name.removesuffix("_to_fp16")
        if operation.op_type.startswith("constexpr"):
            found[name] = operation.materialized_val_inference()
        elif operation.op_type == "const" and name.endswith("_weight"):
            found[name] = operation.outputs[0].val
    return found


@cache
def converted(layout: str, ios: int) -> tuple[PlainEncoder, Any]:
    model = encoder()
    plan = CoreMLPlan(layout=layout, ios=ios, lengths=(40,))  # type: ignore[arg-type]
    return model, convert(traced(module_of(model, plan), 40), model, plan)


@pytest.mark.parametrize("seed", range(4))
def test_palette_is_near_the_least_error_that_dynamic_programming_finds(seed):
    values = np.random.default_rng(seed).normal(size=300).astype(np.float16)
    ordered = np.sort(values.astype(np.float64))
    sums, squares = np.cumsum([0, *ordered]), np.cumsum([0, *ordered**2])
    best = np.array([0.0] + [np.inf] * len(ordered))
    for _ in range(16):
        one_more = np.full(len(best), np.inf)
        for end in range(1, len(best)):
            first = np.arange(end)
            within = squares[end] - squares[:end] - (sums[end] - sums[:end]) ** 2 / (end - first)
            one_more[end] = (best[:end] + within).min()
        best = np.minimum(best, one_more)
    table = palette(values, 16)
    found = np.square(values.astype(np.float64) - table[nearest(values, table)]).sum()
    assert best[-1] * 0.99 < found < 1.25 * best[-1]


@pytest.mark.parametrize("entries", [16, 64, 256])
def test_palette_is_near_the_best_for_normal_weights(entries):
    """Panter and Dite: the least error of k values for a normal density is √3 π / 2 / k² of its variance."""
    values = np.random.default_rng(1).normal(size=200_000).astype(np.float16)
    table = palette(values, entries)
    share = np.square(values.astype(np.float64) - table[nearest(values, table)]).mean()
    assert share < 1.06 * np.sqrt(3) * np.pi / 2 / entries**2
    assert (np.diff(table.astype(np.float64)) > 0).all()


def test_palette_of_few_values_holds_each():
    values = np.array([[0.5, -1, 0.5], [2, -1, 0]], np.float16)
    table = palette(values, 16)
    assert table[:4].tolist() == [-1, 0, 0.5, 2]
    np.testing.assert_array_equal(table[nearest(values, table)], values)


@pytest.mark.parametrize(
    ("indices", "bits", "expected"),
    [
        ([1, 2, 3], 4, [0x21, 0x03]),
        ([63, 0, 1, 2, 33], 6, [0b00111111, 0b00010000, 0b00001000, 0b00100001]),
        ([7, 255], 8, [7, 255]),
    ],
)
def test_indices_are_packed_from_the_lowest_bit(indices, bits, expected):
    assert packed_bits(np.array(indices, np.uint8), bits).tolist() == expected


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize(
    ("precision", "ios", "least"),
    [
        *[(precision, 16, least) for precision, least in (("palette8", 40), ("palette6", 28), ("palette4", 17))],
        *[(precision, 18, least) for precision, least in (("palette8", 40), ("palette6", 28), ("palette4", 18))],
        ("int8", 16, 38), ("int8", 18, 38), ("int4", 18, 17),
    ],
)  # fmt: skip
def test_saved_package_unpacks_to_the_plan_s_weights(layout, precision, ios, least, tmp_path):
    """Held to the model's weights in decibels, and to `unpacked`, which judges a plan, exactly."""
    model, program = converted(layout, ios)
    plan = plan_of(model, precision, layout=layout, ios=ios)
    write_package(model, tmp_path / "model.mlpackage", plan, program=program)
    found, expected = weights_of(tmp_path / "model.mlpackage"), unpacked(model, plan).state_dict()
    few = [op.outputs[0].name for op in loaded(tmp_path / "model.mlpackage") if op.op_type.startswith("constexpr")]
    assert len(few) == 2 + 2 * 6  # two tables, and six products of two layers
    for name, weight in model.state_dict().items():
        if weight.ndim < 2 or "segment" in name:
            continue
        of_package = torch.from_numpy(found[name.replace(".", "_")]).float()
        if name.startswith("embeddings.position"):
            assert decibels(weight[:40], of_package) > least
            continue  # the package has the rows that inputs use, and a look-up table of them
        of_package = of_package.reshape(weight.shape)
        assert torch.equal(of_package, expected[name]) or name == "head.qa_outputs.weight"
        assert decibels(weight, of_package) > (60 if name == "head.qa_outputs.weight" else least)


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize("ios", [17, 18])
@pytest.mark.parametrize("smoothing", [True, False])
def test_w8a8_rounds_what_goes_into_every_product(layout, ios, smoothing, tmp_path):
    model, program = converted(layout, ios)
    factors = np.linspace(0.5, 2, 64, dtype=np.float32) if smoothing else None
    wide = np.linspace(0.5, 2, 128, dtype=np.float32) if smoothing else None
    activations = {
        part: Activation(0.02, 100, wide if part.endswith(".output") else factors) for part in calibrated_parts(model)
    }
    plan = CoreMLPlan("w8a8", layout=layout, ios=ios, lengths=(40,), activations=activations)
    write_package(model, tmp_path / "model.mlpackage", plan, program=program)
    found = loaded(tmp_path / "model.mlpackage")
    by_output = {op.outputs[0].name: op for op in found}
    products = [op for op in found if op.op_type in ("linear", "conv") and "head" not in op.weight.name]
    assert len(products) == 12
    for product in products:
        dequantized = by_output[product.x.name]
        quantized = by_output[dequantized.input.name]
        assert (dequantized.op_type, quantized.op_type) == ("dequantize", "quantize")
        # 100 steps of 0.02 below zero, 155 above: 127 steps reach 3.1.
        assert quantized.scale.val == dequantized.scale.val == np.float16(3.1 / 127)
        assert quantized.output_dtype.val == "int8"
        source = by_output[quantized.input.name]
        assert (source.op_type == "mul") == smoothing
        if smoothing:
            expected = 1 / (wide if source.y.val.size == 128 else factors)
            np.testing.assert_allclose(source.y.val.ravel(), expected, rtol=1e-3)
    # Query, key and value share their input: four roundings in each layer.
    assert sum(op.op_type == "quantize" for op in found) == 8
    weight = weights_of(tmp_path / "model.mlpackage")["layers_0_query_weight"].reshape(64, 64)
    expected = model.layers[0].query.weight.detach() * (1 if factors is None else torch.from_numpy(factors))
    assert decibels(expected, torch.from_numpy(weight).float()) > 38


def test_w8a8_without_calibration_is_refused(tmp_path):
    model, program = converted("plain", 17)
    with pytest.raises(UserError, match=r"w8a8 has no activations of layers\.0\.attention") as refusal:
        write_package(model, tmp_path / "x.mlpackage", CoreMLPlan("w8a8", ios=17, lengths=(40,)), program=program)
    assert refusal.value.hint
    assert not (tmp_path / "x.mlpackage").exists()


def test_symmetric_scale_reaches_as_far_as_the_calibrated_range():
    assert symmetric_scale(Activation(0.1, 200)) == np.float16(20 / 127)
    assert symmetric_scale(Activation(0.1, 0)) == np.float16(25.5 / 127)


@pytest.mark.parametrize("ios", [16, 18])
def test_kept_parts_stay_in_their_own_precision(ios, tmp_path):
    model, program = converted("plain", ios)
    kept = {"layers.0.attention": "fp16", "layers.1.output": "int8", "embeddings.word": "palette8"}
    plan = CoreMLPlan("palette4", kept=kept, ios=ios, lengths=(40,))  # type: ignore[arg-type]
    write_package(model, tmp_path / "model.mlpackage", plan, program=program)
    kinds = {op.outputs[0].name.removesuffix("_to_fp16"): op for op in loaded(tmp_path / "model.mlpackage")}
    affine = "constexpr_affine_dequantize" if ios == 16 else "constexpr_blockwise_shift_scale"
    for role in ("query", "key", "value"):
        assert kinds[f"layers_0_{role}_weight"].op_type == "const"
        assert kinds[f"layers_1_{role}_weight"].op_type == "constexpr_lut_to_dense"
    assert kinds["layers_1_output_weight"].op_type == affine
    entries = {name: kinds[name].lut.val.size for name in ("embeddings_word_weight", "layers_0_output_weight")}
    assert entries["embeddings_word_weight"] >= 256
    assert entries["layers_0_output_weight"] % 16 == 0
    word = weights_of(tmp_path / "model.mlpackage")["embeddings_word_weight"]
    assert decibels(model.embeddings.word.weight.detach(), torch.from_numpy(word).float()) > 40


@pytest.mark.parametrize("layout", ["plain", "ane"])
@pytest.mark.parametrize("precision", ["fp16", "palette4", "int8"])
def test_tied_table_of_a_masked_lm_is_stored_once(layout, precision, tmp_path):
    model = encoder(MaskedLMHead)
    plan = plan_of(model, precision, layout=layout)
    write_package(model, tmp_path / "tied.mlpackage", plan)
    found = weights_of(tmp_path / "tied.mlpackage")
    assert "head_decoder_weight" not in found
    types = {op.op_type: op for op in loaded(tmp_path / "tied.mlpackage") if op.op_type == "linear"}
    assert types["linear"].weight.name.removesuffix("_to_fp16") == "embeddings_word_weight"
    twin = unpacked(model, plan)
    assert twin.head.decoder.weight is twin.embeddings.word.weight
    assert torch.equal(torch.from_numpy(found["embeddings_word_weight"]).float(), twin.embeddings.word.weight)


def test_package_is_rewritten_from_one_program_without_a_trace_of_the_last(tmp_path):
    model, program = converted("plain", 18)
    for number, precision in enumerate(("fp16", "int4", "w8a8", "palette4", "fp16")):
        path = tmp_path / f"{number}.mlpackage"
        write_package(model, path, plan_of(model, precision, ios=18), program=program)
    for file in ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"):
        first, last = (tmp_path / f"{number}.mlpackage" / file for number in (0, 4))
        assert first.read_bytes() == last.read_bytes()


def test_unpacked_model_in_fp32_is_the_model():
    model = encoder()
    with torch.no_grad():
        assert torch.equal(unpacked(model, plan_of(model, "fp32", ios=18))(*inputs())[0], model(*inputs())[0])


@pytest.mark.parametrize("precision", [precision for precision in precisions_for(18) if precision != "fp32"])
def test_unpacked_model_answers_as_its_precision_allows(precision):
    model = encoder(spread=0.1)
    plan = plan_of(model, precision, ios=18)
    with torch.no_grad():
        expected, found = model(*inputs())[0], unpacked(model, plan)(*inputs())[0]
    least = {"fp16": 55, "palette4": 8, "int4": 6, "palette6": 20}.get(precision, 26)
    assert least < decibels(expected, found) < 90


def test_w8a8_is_judged_with_its_activations_rounded():
    model = encoder()
    plan = plan_of(model, "w8a8", ios=17)
    with torch.no_grad():
        weights_alone = unpacked(model, CoreMLPlan("int8", ios=17, lengths=(40,)))(*inputs())[0]
        rounded = traced(unpacked(model, plan), 40)(*inputs())[0]
        assert torch.equal(rounded, unpacked(model, plan)(*inputs())[0])
        expected = model(*inputs())[0]
    assert decibels(expected, rounded) < decibels(expected, weights_alone) - 1


@pytest.mark.parametrize(
    ("shape", "precision", "ios", "is_table", "argument", "expected"),
    [
        ((96, 64), "palette4", 18, False, "lut", (6, 1, 16, 1)),
        ((96, 64), "palette6", 18, False, "lut", (3, 1, 64, 1)),
        ((128, 64), "palette8", 18, False, "lut", (2, 1, 256, 1)),
        ((101, 64), "palette4", 18, True, "lut", (1, 4, 16, 1)),
        ((96, 64, 1, 1), "palette4", 18, False, "lut", (6, 1, 1, 1, 16, 1)),
        ((96, 64), "palette4", 16, False, "lut", (16,)),
        ((10, 128), "int4", 18, False, "scale", (10, 2)),
        ((10, 312), "int4", 18, False, "scale", (10, 6)),
        ((10, 128, 1, 1), "int4", 18, False, "scale", (10, 2, 1, 1)),
        ((10, 128, 1, 1), "int8", 18, False, "scale", (10, 1, 1, 1)),
        ((10, 128), "int8", 17, True, "scale", (10,)),
    ],
)
def test_groups_share_tables_and_blocks_share_scales(shape, precision, ios, is_table, argument, expected):
    weight = np.random.default_rng(2).normal(size=shape).astype(np.float16)
    compressed = compress(weight, precision, ios, is_table=is_table)
    assert compressed.arguments[argument].shape == expected
    found = dense(compressed, shape).astype(np.float64)
    assert found.shape == shape
    error = np.square(found - weight).mean()
    # Of steps or entries over ±4 deviations at most, a twelfth of a step's square; a normal density is easier.
    assert error < (8 / 2 ** int(precision[-1])) ** 2 / 6


@pytest.mark.parametrize(
    ("precision", "share"), [("palette8", 0.52), ("palette4", 0.28), ("int8", 0.52), ("int4", 0.3)]
)
def test_size_of_a_precision_against_fp16(precision, share, tmp_path):
    from dataclasses import replace

    model = encoder()
    config = replace(model.config, vocab_size=4000, hidden_size=256, num_hidden_layers=2, intermediate_size=1024)
    model = PlainEncoder(config, QuestionAnsweringHead).eval()
    plan = CoreMLPlan(ios=18, lengths=(40,))
    program = convert(traced(module_of(model, plan), 40), model, plan)
    sizes = []
    for each in ("fp16", precision):
        path = tmp_path / f"{each}.mlpackage"
        write_package(model, path, plan_of(model, each, ios=18), program=program)
        sizes.append((path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size)
    assert sizes[1] < share * sizes[0]


def test_weights_share_no_operation_that_the_converter_added():
    """Every weight that can be in few bits has the name of its module in both layouts and for all lengths."""
    model = encoder()
    for layout, ios, lengths in (("plain", 16, (40,)), ("ane", 18, (16, 40)), ("ane", 17, range(16, 41))):
        plan = CoreMLPlan(layout=layout, ios=ios, lengths=lengths)  # type: ignore[arg-type]
        program = convert(traced(module_of(model, plan), 40), model, plan)
        names = {name.removesuffix("_to_fp16") for name in program.weights}
        matrices = {name.replace(".", "_") for name, weight in model.state_dict().items() if weight.ndim == 2}
        assert matrices <= names
