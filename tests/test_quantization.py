"""Few bits: what codes and scales stand for, what the emulation and the calibration say, and the search for parts."""

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from transformers import BertForQuestionAnswering, DistilBertForQuestionAnswering

from edge_distil.errors import UserError
from edge_distil.runtimes.onnx import OnnxRuntime
from exporters.calibration import Activation, _divergence, calibrate, rounded
from exporters.encoder import PlainEncoder
from exporters.fitting import fit, sensitivity
from exporters.gate import Judge
from exporters.onnx import plan_for, write_graph
from exporters.onnx.emulation import alone
from exporters.onnx.graph import build_graph
from exporters.onnx.plan import HIGHER, Plan
from exporters.parts import calibrated_parts, logits_of, parts
from exporters.quantization import channel_scales, int4_blocks, int8_channels, int8_rows
from tests.test_exporters import random_model


@pytest.fixture(scope="module")
def plain() -> PlainEncoder:
    model = random_model(DistilBertForQuestionAnswering)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return PlainEncoder.from_library(model, 3)


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(5, 2000, (1, 24 + seed)) for seed in range(6)]


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 7])
def test_channels_are_within_half_a_step_unless_clipped(bits: int) -> None:
    weight_KN = random_weights(96, 32)
    codes_KN, scales_N = int8_channels(weight_KN, bits)
    high = 2 ** (bits - 1) - 1
    assert (codes_KN.shape, scales_N.shape, codes_KN.dtype, scales_N.dtype) == ((96, 32), (32,), np.int8, np.float32)
    assert np.abs(codes_KN).max() == high
    inside = np.abs(codes_KN) < high
    assert (np.abs(codes_KN * scales_N - weight_KN)[inside] <= (scales_N / 2 * np.ones((96, 1)) + 1e-6)[inside]).all()


def test_a_channel_with_an_outlier_is_clipped_where_that_takes_error_away() -> None:
    weight_KN = random_weights(65536, 1)
    weight_KN[0] = 6.0
    codes_KN, scales_N = int8_channels(weight_KN)
    largest = np.abs(weight_KN).max() / 127
    plain_error = np.square(np.rint(weight_KN / largest) * largest - weight_KN).sum()
    assert scales_N[0] < largest
    assert np.square(codes_KN * scales_N - weight_KN).sum() < plain_error


def test_rows_have_a_scale_each_so_that_a_large_row_leaves_others_exact() -> None:
    table_RH = random_weights(10, 64)
    table_RH[3] *= 1000
    codes_RH, scales_R = int8_rows(table_RH)
    error_R = np.abs(codes_RH * scales_R[:, None] - table_RH).max(axis=1)
    assert (error_R[[0, 1, 2, 4]] < 0.02).all()


def test_zeros_stay_zeros_in_every_form() -> None:
    zeros = np.zeros((64, 64), np.float32)
    for codes, scales in (int8_channels(zeros), int8_rows(zeros)):
        assert not codes.any()
        assert np.isfinite(scales).all()
    packed, scales = int4_blocks(zeros)
    assert (packed == 0x88).all()
    assert np.isfinite(scales).all()


def test_int4_blocks_unpack_low_half_first_and_the_last_block_is_filled_up() -> None:
    weight_RH = random_weights(6, 80)
    packed, scales = int4_blocks(weight_RH)
    assert (packed.shape, scales.shape, scales.dtype) == ((6, 3, 16), (6, 3), np.float16)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(6, 3, 32).astype(int) - 8
    assert (codes[:, 2, 16:] == 0).all()
    back = (codes * scales.astype(np.float32)[..., None]).reshape(6, 96)[:, :80]
    assert np.abs(back - weight_RH).max() < 0.4
    assert np.abs(codes * (scales.astype(np.float32) / channel_scales(scales)[:, None])[..., None]).max() <= 127.5


@pytest.mark.parametrize("target", ["x86", "generic", "web"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("kind", [DistilBertForQuestionAnswering, BertForQuestionAnswering])
def test_emulation_tells_what_the_graph_computes(kind, precision, target, samples, tmp_path) -> None:
    model = random_model(kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    whole = PlainEncoder.from_library(model, 3)
    for part in ("embeddings.word", "layers.0.attention", "layers.1.output"):
        plan = plan_for(precision, target)
        write_graph(whole, tmp_path, Plan("fp32", {part: precision}, plan.bits, plan.blocks_at_load))
        runtime = OnnxRuntime(tmp_path, precision="fp32")
        outputs = [runtime(ids_1L, np.ones_like(ids_1L)) for ids_1L in samples]
        logits = np.concatenate([values.ravel() for output in outputs for values in output.values()])
        expected = logits_of(whole, samples).numpy()
        found = np.square(logits - expected).mean()
        told = sensitivity(whole, [part], partial(alone, whole, plan), samples)[part]
        assert 0 < found == pytest.approx(told, rel=0.5)


def test_ranking_puts_a_part_with_outliers_first(samples) -> None:
    model = random_model(DistilBertForQuestionAnswering)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    whole = PlainEncoder.from_library(model, 3)
    with torch.no_grad():
        whole.layers[1].output.weight[:, 5] *= 200
    ranked = sensitivity(whole, list(parts(whole)), partial(alone, whole, plan_for("int8", "x86")), samples)
    assert next(iter(ranked)) == "layers.1.output"
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)


def test_emulation_leaves_the_model_as_it_was(plain, samples) -> None:
    before = logits_of(plain, samples)
    sensitivity(plain, list(parts(plain)), partial(alone, plain, plan_for("int4", "x86")), samples[:1])
    assert torch.equal(logits_of(plain, samples), before)


def test_rounding_through_uint8_is_within_half_a_step_of_its_range() -> None:
    values = torch.linspace(-1, 3, 1000)
    assert (rounded(values, None) - values).abs().max() <= 4 / 255 / 2 + 1e-6
    clipped = rounded(values, Activation(scale=2 / 255, zero_point=128))
    assert clipped.max() == pytest.approx(127 * 2 / 255)
    smoothed = rounded(values, Activation(4 / 255 / 2, 64, np.array([2.0], np.float32)))
    assert (smoothed - values).abs().max() < 0.02


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_graph_is_near_the_exact_one_and_measures_nothing_as_it_runs(plain, samples, method, tmp_path) -> None:
    activations = calibrate(plain, calibrated_parts(plain), samples, method)
    assert list(activations) == calibrated_parts(plain)
    plan = Plan("int8", activations=activations)
    operators = {node.op_type for node in build_graph(plain, plan).graph.node}
    assert "QuantizeLinear" in operators
    assert "DynamicQuantizeLinear" not in operators
    write_graph(plain, tmp_path, plan)
    runtime = OnnxRuntime(tmp_path, precision="int8")
    logits = np.concatenate([v.ravel() for ids in samples for v in runtime(ids, np.ones_like(ids)).values()])
    expected = logits_of(plain, samples).numpy()
    assert np.square(logits - expected).mean() < 0.02 * expected.var()


def test_channels_that_are_far_larger_than_others_are_smoothed(samples) -> None:
    model = random_model(DistilBertForQuestionAnswering)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    whole = PlainEncoder.from_library(model, 3)
    with torch.no_grad():
        whole.layers[0].attention_norm.weight.fill_(1.0)
        whole.layers[0].attention_norm.weight[3] = 30.0
    activations = calibrate(whole, calibrated_parts(whole), samples)
    smoothing = activations["layers.0.intermediate"].smoothing
    assert smoothing is not None
    assert smoothing.argmax() == 3


def test_entropy_prefers_the_range_without_a_lonely_outlier() -> None:
    counts = 1000 * np.exp(-0.5 * np.square((np.arange(2048) - 1024) / 12)).round(3)
    counts[2047] = 0.01
    assert _divergence(counts, -1.0, 1.0, 0.3) < _divergence(counts, -1.0, 1.0, 1.0)


class ByKeptParts(Judge):
    """Lets a plan through that keeps what is asked for; `measure` is not used."""

    def __init__(self, needed: set[str]) -> None:
        self.needed = needed

    def fault(self, precision, figures):
        return UserError("too much lost", "accept it") if figures["missing"] else None

    def _run(self, runtime):
        pytest.fail("the search is given its figures by `measure`, and runs nothing itself")

    _difference = _loss = None  # type: ignore[assignment]


def fitted(plain, samples, needed: set[str]):
    plans: list[Plan] = []

    def measure(plan: Plan) -> dict[str, float]:
        plans.append(plan)
        return {"missing": float(len(needed - set(plan.kept)))}

    court = ByKeptParts(needed)
    found = fit(plain, plan_for("int8", "x86"), HIGHER["int8"], court, measure, alone, samples, lambda step: None)
    return found, plans


def test_a_plan_that_holds_is_taken_as_it_is(plain, samples) -> None:
    found, plans = fitted(plain, samples, set())
    assert (len(plans), found.search, dict(plans[0].kept)) == (1, {}, {})


def test_the_fewest_parts_that_hold_are_kept_and_what_is_written_last_is_returned(plain, samples) -> None:
    ranked = list(sensitivity(plain, list(parts(plain)), partial(alone, plain, plan_for("int8", "x86")), samples))
    found, plans = fitted(plain, samples, {ranked[2]})
    assert list(plans[-1].kept) == ranked[:3] == found.search["kept"]
    assert set(plans[-1].kept.values()) == {"fp32"} == {found.search["kept_in"]}
    sizes = parts(plain)
    assert found.search["kept_weights"] == pytest.approx(
        sum(sizes[part] for part in ranked[:3]) / sum(sizes.values()), abs=1e-4
    )


def test_more_than_half_of_the_weights_is_refused_with_how_far_it_got(plain, samples) -> None:
    with pytest.raises(UserError, match=r"too much lost; with the \d+ most sensitive parts of 10 in fp32"):
        fitted(plain, samples, set(parts(plain)))


def test_kept_parts_are_in_their_higher_precision(plain) -> None:
    plan = Plan("int8", kept={"layers.0.output": "fp32", "embeddings.word": "fp32"})
    graph = build_graph(plain, plan).graph
    weights = {initializer.name: initializer.data_type for initializer in graph.initializer}
    assert weights["layers.0.output.weight"] == weights["embeddings.word.weight"] == onnx.TensorProto.FLOAT
    assert weights["layers.0.intermediate.weight.codes"] == onnx.TensorProto.INT8


def test_weights_beyond_fp16_are_refused_by_name(plain) -> None:
    model = random_model(DistilBertForQuestionAnswering)
    whole = PlainEncoder.from_library(model, 3)
    with torch.no_grad():
        whole.layers[1].query.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"layers\.1\.query\.weight reaches 1e\+06, fp16 holds"):
        build_graph(whole, Plan("fp16"))
