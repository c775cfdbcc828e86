"""Verification: what is whole and works passes; a wrong byte, file, weight, tokeniser or mask does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import randomize
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from edge_distil import starter, verification
from edge_distil.checkpoints import MANIFEST
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes.onnx import GRAPHS
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question
from edge_distil.verification import verify
from exporters import encoder, export, gate

TEACHER = starter.teacher_folder("question-answering")
Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def exported(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("verification") / "onnx"
    export(TEACHER, output, format="onnx", questions=questions)
    return output


def failed(result: dict[str, Any]) -> dict[str, str]:
    """The checks that did not pass, and what they found. Each says what to do."""
    assert result["passed"] == all(check["passed"] for check in result["checks"])
    found = {check["check"]: check for check in result["checks"] if not check["passed"]}
    assert all(check["hint"] for check in found.values())
    return {name: check["detail"] for name, check in found.items()}


def passed(result: dict[str, Any]) -> list[str]:
    return [check["check"] for check in result["checks"] if check["passed"]]


def without_manifest(folder: Path) -> Path:
    """So that what was changed is met by the checks behind the checksums."""
    (folder / MANIFEST).unlink()
    return folder


def change_graph(folder: Path, precision: str, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Rewrite a graph after `change` was given copies of its weights, by name, to work on."""
    path = folder / GRAPHS[precision]
    proto = onnx.load(path)
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    change(weights)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(proto, path)


def test_whole_checkpoint_passes_and_is_scored(questions):
    result = verify(TEACHER, questions=questions)
    assert failed(result) == {}
    assert passed(result) == [
        "checksums",
        "no other files",
        "config.json",
        "tokenizer",
        "fp32: weights",
        "fp32: logits",
        "fp32: answers",
    ]
    assert (result["kind"], result["task"], result["notes"]) == ("checkpoint", "question-answering", [])
    files = [path for path in TEACHER.iterdir() if path.is_file()]
    assert result["files"] == {"count": len(files), "bytes": sum(path.stat().st_size for path in files)}
    answers = QuestionAnswerer.open(TEACHER).ask_all(questions)
    scores = score_squad(questions, {identifier: ranked[0].text for identifier, ranked in answers.items()})
    assert result["measured"] == {"fp32": {**scores, "same_answers": 100.0}}
    assert json.loads(json.dumps(result)) == result


def test_whole_export_passes_in_each_precision(exported, questions):
    result = verify(exported, questions=questions)
    assert failed(result) == {}
    assert {name for name in passed(result) if ":" in name} == {
        f"{precision}: {what}" for precision in ("fp32", "int8") for what in ("graph", "logits", "answers")
    }
    assert result["kind"] == "onnx"
    for precision in ("fp32", "int8"):
        answers = QuestionAnswerer.open(exported, precision=precision).ask_all(questions)
        scores = score_squad(questions, {identifier: ranked[0].text for identifier, ranked in answers.items()})
        assert {name: result["measured"][precision][name] for name in scores} == scores
    assert json.loads(json.dumps(result)) == result


def test_without_a_manifest_the_rest_is_checked_and_the_result_says_so(exported, questions, copy_of):
    result = verify(without_manifest(copy_of(exported)), questions=questions)
    assert failed(result) == {}
    assert (result["kind"], result["task"]) == ("onnx", "question-answering")
    assert result["notes"] == [f"there is no {MANIFEST}: no file could be held against a checksum"]
    assert "checksums" not in passed(result)
    assert "int8: answers" in passed(result)


@pytest.mark.parametrize("name", ["onnx/model_quantized.onnx", "onnx/model.onnx", "tokenizer.json", "README.md"])
def test_one_bit_that_was_changed_is_found_and_nothing_is_run(exported, copy_of, name):
    folder = copy_of(exported)
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = verify(folder)
    assert list(failed(result)) == ["checksums"]
    assert f"{path}: does not match its checksum" in failed(result)["checksums"]
    assert passed(result) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(("damage", "error"), [(cut, "does not match its checksum"), (Path.unlink, "is missing")])
def test_file_that_is_cut_short_or_missing_is_found(copy_of, damage, error):
    folder = copy_of(TEACHER)
    damage(folder / "model.safetensors")
    found = failed(verify(folder))
    assert list(found) == ["checksums"]
    assert f"{folder / 'model.safetensors'}: {error}" in found["checksums"]


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model_quantized.onnx"])
def test_graph_that_is_cut_short_does_not_open_even_without_a_manifest(exported, questions, copy_of, name):
    folder = without_manifest(copy_of(exported))
    cut(folder / name)
    result = verify(folder, questions=questions)
    (check, detail), *others = failed(result).items()
    precision = next(precision for precision, graph in GRAPHS.items() if graph == name)
    assert (check, others) == (f"{precision}: graph", [])
    assert f"{folder / name}: ONNX Runtime cannot load it" in detail
    # The other graph is still run.
    assert len(result["measured"]) == 1


def test_file_that_the_manifest_does_not_list_is_reported(exported, questions, copy_of):
    folder = copy_of(exported)
    (folder / "onnx" / "model_fp16.onnx").write_bytes((folder / "onnx" / "model.onnx").read_bytes())
    result = verify(folder, questions=questions)
    assert f"{folder / 'onnx/model_fp16.onnx'}: is not in {MANIFEST}" in failed(result)["no other files"]
    assert "int8: answers" in passed(result)


def test_what_a_file_browser_leaves_behind_is_noted_and_passes(copy_of, questions):
    folder = copy_of(TEACHER)
    (folder / ".DS_Store").write_bytes(b"\0")
    result = verify(folder, questions=questions)
    assert failed(result) == {}
    assert result["notes"] == [f"not in {MANIFEST} and not checked: .DS_Store"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_checkpoint_with_a_weight_that_is_not_finite_fails_by_its_name(copy_of, bad):
    folder = without_manifest(copy_of(TEACHER))
    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    # A word that no text here holds: the logits would not show it.
    weights[name][-1, 0] = bad
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    result = verify(folder)
    assert failed(result) == {
        "fp32: weights": f"{folder}: 1 of {weights[name].numel()} values of {name} are NaN or infinite"
    }
    assert result["measured"] == {}


def test_graph_with_a_weight_that_is_not_finite_fails_by_its_name(exported, questions, copy_of):
    folder = without_manifest(copy_of(exported))

    def spoil(weights: dict[str, np.ndarray]) -> None:
        weights["head.qa_outputs.weight"][3, 1] = np.nan

    change_graph(folder, "int8", spoil)
    result = verify(folder, questions=questions)
    assert list(failed(result)) == ["int8: graph"]
    assert "values of head.qa_outputs.weight are NaN or infinite" in failed(result)["int8: graph"]
    assert list(result["measured"]) == ["fp32"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_graph_that_ignores_its_mask_fails(exported, questions, copy_of, precision):
    folder = without_manifest(copy_of(exported))
    change_graph(folder, precision, lambda weights: weights["masked_score"].fill(0))
    found = failed(verify(folder, questions=questions))
    assert list(found) == [f"{precision}: logits"]
    assert f"padding changes the {precision} logits" in found[f"{precision}: logits"]


def test_graph_that_does_not_look_at_its_text_fails(exported, questions, copy_of):
    folder = without_manifest(copy_of(exported))
    change_graph(folder, "fp32", lambda weights: weights["head.qa_outputs.weight"].fill(0))
    found = failed(verify(folder, questions=questions))
    assert found == {"fp32: logits": f"{folder}: gives the same start_logits for different texts"}


def test_graph_of_another_model_disagrees_with_the_one_beside_it(exported, questions, copy_of):
    folder = without_manifest(copy_of(exported))

    def negate(weights: dict[str, np.ndarray]) -> None:
        weights["head.qa_outputs.weight"] *= -1

    change_graph(folder, "int8", negate)
    found = failed(verify(folder, questions=questions))
    assert list(found) == ["int8: answers"]
    assert "at least 60 % is expected" in found["int8: answers"]


def test_graph_that_takes_other_inputs_fails(exported, questions, copy_of):
    folder = without_manifest(copy_of(exported))
    proto = onnx.load(folder / GRAPHS["fp32"])
    proto.graph.input.append(onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, ["batch"]))
    onnx.save(proto, folder / GRAPHS["fp32"])
    found = failed(verify(folder, questions=questions))
    assert list(found) == ["fp32: graph"]
    assert "has the inputs input_ids, attention_mask, token_type_ids, expected are" in found["fp32: graph"]


def test_tokenizer_of_another_vocabulary_fails(exported, copy_of):
    folder = without_manifest(copy_of(exported))
    other = Tokenizer.from_file(str(folder / "tokenizer.json"))
    other.add_tokens([f"word{number}" for number in range(500)])
    other.save(str(folder / "tokenizer.json"))
    result = verify(folder)
    assert list(failed(result)) == ["tokenizer"]
    assert "they do not belong together" in failed(result)["tokenizer"]
    assert result["measured"] == {}


def test_tokenizer_settings_that_say_something_else_fail(copy_of):
    folder = without_manifest(copy_of(TEACHER))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": False}))
    found = failed(verify(folder))
    assert list(found) == ["tokenizer"]
    assert "otherwise than by tokenizer.json" in found["tokenizer"]


def test_masked_lm_and_classifier_are_run_and_not_asked(save, tokenizer):
    config = DistilBertConfig(
        vocab_size=tokenizer.get_vocab_size(), dim=32, n_layers=2, n_heads=2, hidden_dim=64,
        max_position_embeddings=96, num_labels=3,
    )  # fmt: skip
    classifier = save(randomize(DistilBertForSequenceClassification(config)))
    for folder, task in ((starter.teacher_folder("masked-lm"), "masked-lm"), (classifier, "text-classification")):
        result = verify(folder)
        assert failed(result) == {}
        assert (result["task"], passed(result)[-1], result["measured"]) == (task, "fp32: logits", {})


@pytest.fixture(scope="module")
def core_ml(distilbert_qa: Path, questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("verification") / "coreml"
    export(distilbert_qa, output, format="coreml", questions=questions[:1], max_length=64)
    return output


def test_core_ml_export_is_run_and_asked_and_what_ran_it_is_said(core_ml, questions, monkeypatch):
    result = verify(core_ml, questions=questions[:3])
    assert failed(result) == {}
    assert passed(result)[-3:] == ["model.mlpackage: package", "fp16: logits", "fp16: answers"]
    assert "takes 64 tokens" in result["checks"][-3]["detail"]
    assert result["notes"] == [
        "packages were run operation by operation by torch, in fp16 where they say so: not by Core ML"
    ]
    monkeypatch.setattr(verification, "find_spec", lambda name: None)
    unread = verify(core_ml)
    assert unread["passed"]
    assert unread["notes"] == ["coremltools is not installed: no package was opened"]


def test_core_ml_package_that_does_not_hear_its_mask_fails(distilbert_qa, questions, tmp_path, monkeypatch):
    """Its one length pads every text, so a mask that is ignored shows only when the padding changes."""
    monkeypatch.setattr(encoder, "MASKED_SCORE", 0.0)
    monkeypatch.setattr(gate, "check_outputs", lambda court, artifacts: {"questions": 1})
    export(distilbert_qa, tmp_path / "out", format="coreml", questions=questions[:1], max_length=64)
    found = failed(verify(tmp_path / "out", questions=questions[:3]))
    assert "padding changes the fp16 logits" in found["fp16: logits"]


def test_core_ml_package_with_a_weight_that_is_not_finite_fails(core_ml, copy_of):
    folder = without_manifest(copy_of(core_ml))
    weights = folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[128:130] = np.float16(np.nan).tobytes()  # the first value of the first blob, after the header and its entry
    weights.write_bytes(data)
    found = failed(verify(folder))
    assert list(found) == ["model.mlpackage: package"]
    assert "reaches nan" in found["model.mlpackage: package"]


def test_core_ml_package_of_another_model_fails(core_ml, copy_of):
    folder = without_manifest(copy_of(core_ml))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    found = failed(verify(folder))
    assert found == {
        "model.mlpackage: package": f"{folder / 'model.mlpackage'}: takes 64 tokens, config.json has 32 positions"
    }


def test_checkpoint_without_the_head_of_its_task_fails(bert_encoder):
    found = failed(verify(bert_encoder))
    assert list(found) == ["fp32: weights"]
    assert "has no question-answering head" in found["fp32: weights"]


def test_what_is_no_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        verify(tmp_path / "nothing")


def test_folder_of_something_else_fails_and_says_what_is_missing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    found = failed(verify(tmp_path))
    assert list(found) == ["config.json"]
    assert "has no config.json" in found["config.json"]


def test_verifying_changes_neither_the_folder_nor_the_number_of_threads(copy_of, questions):
    folder = copy_of(TEACHER)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")}
    threads = torch.get_num_threads()
    verify(folder, questions=questions[:2])
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")} == before
    assert torch.get_num_threads() == threads
