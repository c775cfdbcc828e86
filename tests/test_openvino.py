"""OpenVINO exports: what is written gives the checkpoint's logits, at any shape, and always the same bytes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bert_config, randomize
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
)

from edge_distil.errors import UserError
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes.openvino import MODELS, OpenVinoRuntime, import_openvino
from exporters import export
from exporters.encoder import PlainEncoder

_MISSING = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"the extra openvino is not installed: no {', '.join(_MISSING)}")

SEP = 3
# What rounding activations to bf16 or int8 leaves of logits; trained weights keep more than these random ones.
DECIBELS = {"fp16": 20, "int8": 12}

Batch = tuple[np.ndarray, np.ndarray]


def batch(rows: int, length: int, *, padding: int = 0, seed: int = 0) -> Batch:
    """Random ids with one [SEP], and a mask that leaves out the last `padding` tokens of every row but the first."""
    ids_BL = np.random.default_rng(seed).integers(5, 2000, (rows, length))
    ids_BL[:, length // 3] = SEP
    mask_BL = np.ones_like(ids_BL)
    if padding:
        mask_BL[1:, -padding:] = 0
    return ids_BL, mask_BL


def calibration() -> list[Batch]:
    return [batch(1, length, seed=length) for length in range(16, 48, 4)]


def decibels(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The signal over the noise of all outputs."""
    noise = sum(np.square(found[name] - expected[name]).sum() for name in expected)
    return float(10 * np.log10(sum(np.square(of).sum() for of in expected.values()) / noise))


def reference(plain: PlainEncoder, inputs: Batch) -> dict[str, np.ndarray]:
    with torch.no_grad():
        values = plain(*map(torch.from_numpy, inputs))
    return {name: value.numpy() for name, value in zip(plain.output_names, values, strict=True)}


def in_fp32(folder: Path, inputs: Batch) -> dict[str, np.ndarray]:
    """What the fp16 model gives where nothing but its weights is rounded."""
    compiled = import_openvino().compile_model(folder / MODELS["fp16"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = compiled(dict(zip(("input_ids", "attention_mask"), inputs, strict=True)))
    return {output.any_name: values[output] for output in compiled.outputs}


@pytest.fixture(scope="module")
def plain() -> PlainEncoder:
    model = BertForQuestionAnswering(bert_config(hidden_size=64, num_hidden_layers=2))
    return PlainEncoder.from_library(randomize(model), SEP)


@pytest.fixture(scope="module")
def exported(plain: PlainEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporters.openvino import convert

    folder = tmp_path_factory.mktemp("openvino")
    assert convert(plain, folder, precision="fp16", calibration=()) == "openvino/openvino_model.xml"
    relative = convert(plain, folder, precision="int8", calibration=calibration())
    assert relative == "openvino/openvino_model_qint8_quantized.xml"
    return folder


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_logits_are_the_checkpoints_at_any_batch_and_length(plain, exported, precision):
    runtime = OpenVinoRuntime(exported, precision=precision)
    assert runtime.outputs == ("start_logits", "end_logits")
    for rows, length, padding in ((1, 9, 0), (3, 40, 15), (2, 384, 100), (1, 9, 0)):
        inputs = batch(rows, length, padding=padding)
        found, expected = runtime(*inputs), reference(plain, inputs)
        real = {name: inputs[1] * values for name, values in expected.items()}
        assert {name: (of.dtype, of.shape) for name, of in found.items()} == dict.fromkeys(
            expected, (np.dtype(np.float32), (rows, length))
        )
        assert decibels({name: inputs[1] * values for name, values in found.items()}, real) > DECIBELS[precision]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertForQuestionAnswering, bert_config()),
        (BertForMaskedLM, bert_config()),
        (BertForSequenceClassification, bert_config(num_labels=3)),
        (DistilBertForQuestionAnswering, DistilBertConfig(vocab_size=2000, dim=64, n_layers=2, n_heads=4)),
    ],
    ids=["answers", "words", "texts", "distilbert"],
)
def test_nothing_but_the_weights_is_rounded_in_the_file(kind, config, tmp_path):
    from exporters.openvino import convert

    plain = PlainEncoder.from_library(randomize(kind(config)), SEP)
    convert(plain, tmp_path, precision="fp16", calibration=())
    inputs = batch(3, 20, padding=6)
    found, expected = in_fp32(tmp_path, inputs), reference(plain, inputs)
    assert {name: of.shape for name, of in found.items()} == {name: of.shape for name, of in expected.items()}
    assert decibels(found, expected) > 50


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_padding_is_ignored(exported, precision):
    runtime = OpenVinoRuntime(exported, precision=precision)
    ids_BL, mask_BL = batch(2, 40, padding=15)
    other = ids_BL.copy()
    other[mask_BL == 0] = 77
    found, changed = runtime(ids_BL, mask_BL), runtime(other, mask_BL)
    for name, values in found.items():
        np.testing.assert_array_equal(values[mask_BL == 1], changed[name][mask_BL == 1])


def test_results_outlive_the_next_call(exported):
    runtime = OpenVinoRuntime(exported, precision="fp16")
    first = runtime(*batch(1, 20))
    kept = {name: values.copy() for name, values in first.items()}
    runtime(*batch(1, 20, seed=1))
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])


def test_int8_is_what_runs_by_default_and_the_smaller_file(exported):
    assert OpenVinoRuntime(exported).precision == "int8"
    fp16, int8 = ((exported / MODELS[key]).with_suffix(".bin").stat().st_size for key in ("fp16", "int8"))
    assert int8 < 0.75 * fp16


def test_threads_are_bounded_and_single_calls_are_what_is_tuned_for(exported):
    compiled = OpenVinoRuntime(exported, threads=1)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("LATENCY")


def test_two_exports_of_one_model_have_the_same_bytes(plain, exported, tmp_path):
    from exporters.openvino import convert

    for precision, relative in MODELS.items():
        convert(plain, tmp_path, precision=precision, calibration=calibration())
        for path in (Path(relative), Path(relative).with_suffix(".bin")):
            assert (tmp_path / path).read_bytes() == (exported / path).read_bytes(), path


def test_int8_without_calibration_is_refused(plain, tmp_path):
    from exporters.openvino import convert

    with pytest.raises(UserError, match="int8 has no inputs to be calibrated on"):
        convert(plain, tmp_path, precision="int8", calibration=())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_missing_package_is_named_with_the_extra(package, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"need the package {package}, which is not installed") as refusal:
        import_openvino(package)
    assert refusal.value.hint == "pip install 'edge-distil[openvino]'"


def test_missing_precision_is_refused(plain, tmp_path):
    with pytest.raises(UserError, match=r"holds no OpenVINO model \(it has: none\)"):
        OpenVinoRuntime(tmp_path)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_cut_short_file_is_named(exported, copy_of, suffix):
    folder = copy_of(exported)
    path = (folder / MODELS["int8"]).with_suffix(suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"openvino_model_qint8_quantized\.xml: OpenVINO cannot load it"):
        OpenVinoRuntime(folder)


def test_missing_weights_are_named(exported, copy_of):
    folder = copy_of(exported)
    (folder / MODELS["int8"]).with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"openvino_model_qint8_quantized\.bin: is missing"):
        OpenVinoRuntime(folder)


def test_openvino_is_imported_late_and_without_its_telemetry():
    code = """
import sys
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes.openvino import import_openvino
assert not {"openvino", "nncf"} & set(sys.modules)
import_openvino(), import_openvino("nncf")
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_export_is_checked_described_and_opened_by_what_it_is(save, tokenizer, questions, tmp_path) -> None:
    model = randomize(BertForQuestionAnswering(bert_config(vocab_size=tokenizer.get_vocab_size())))
    checkpoint, output = save(model), tmp_path / "out"
    result = export(checkpoint, output, format="openvino", questions=questions[:4], max_length=48, max_drop=100)
    assert [file["precision"] for file in result["files"]] == ["fp16", "int8"]
    for file in result["files"]:
        path = output / file["path"]
        assert file["bytes"] == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    assert result["gate"]["fp16"]["max_logit_difference"] < result["gate"]["int8"]["max_logit_difference"]
    assert MODELS["int8"] in (output / "README.md").read_text()
    runtime = open_runtime(output)
    assert (runtime.name, runtime.precision) == ("openvino", "int8")
    assert open_runtime(output, precision="fp16").precision == "fp16"
    weights = output / Path(MODELS["int8"]).with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="does not match its checksum"):
        open_runtime(output)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_signal_is_handled_after_models_are_closed_in_the_order_in_which_they_were_opened(exported):
    code = """
import os, signal, sys
from pathlib import Path
from edge_distil.runtimes.openvino import OpenVinoRuntime
first = OpenVinoRuntime(Path(sys.argv[1]), precision="fp16")
second = OpenVinoRuntime(Path(sys.argv[1]), precision="int8")
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", code, exported], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
