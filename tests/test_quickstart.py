"""The packaged teacher, and the whole way on the starter set with budgets of a few steps."""

import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import exporters
from edge_distil import quickstart, starter
from edge_distil.checkpoints import read_manifest
from edge_distil.distillation.pretraining import new_teacher
from edge_distil.errors import UserError
from edge_distil.models import load_model
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import open_runtime
from edge_distil.stages import squad_questions
from edge_distil.tasks.evaluation import evaluate


@pytest.mark.parametrize("kind", ["masked-lm", "question-answering"])
def test_the_packaged_teacher_is_whole_and_loads_with_its_head(kind: str) -> None:
    folder = starter.teacher_folder(kind)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["task"] == kind
    assert load_model(folder, kind).config.num_hidden_layers == 6  # type: ignore[arg-type]


def test_the_packaged_teacher_uses_the_starter_tokeniser() -> None:
    for kind in ("masked-lm", "question-answering"):
        packaged = Tokenizer.from_file(str(starter.teacher_folder(kind) / "tokenizer.json"))
        assert packaged.to_str() == starter.build_tokenizer().to_str()


def test_both_packaged_folders_are_under_8_mb() -> None:
    files = [path for kind in ("masked-lm", "question-answering") for path in starter.teacher_folder(kind).rglob("*")]
    assert sum(path.stat().st_size for path in files) < 8_000_000


def test_the_packaged_teacher_answers_the_starter_test_set() -> None:
    answerer = QuestionAnswerer(open_runtime(starter.teacher_folder("question-answering")))
    assert evaluate(answerer, squad_questions(None, "test"))["f1"] >= 95


def test_a_new_teacher_starts_with_attention_on_like_tokens_in_half_of_its_heads() -> None:
    model = new_teacher(starter.build_tokenizer(), layers=2, hidden_size=32, heads=2)
    for layer in model.bert.encoder.layer:
        query, key = layer.attention.self.query.weight, layer.attention.self.key.weight
        assert (query[:16] == key[:16]).all()
        assert not (query[16:] == key[16:]).any()
    positions = model.bert.embeddings.position_embeddings.weight
    # A sinusoid's dot product depends on the distance alone, and falls with it at first.
    near, far = (positions[3] @ positions[5]).item(), (positions[40] @ positions[42]).item()
    assert math.isclose(near, far, rel_tol=1e-4)
    assert positions[10] @ positions[11] > positions[10] @ positions[13]


def test_quickstart_walks_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "DISTILLATION", replace(quickstart.DISTILLATION, max_steps=2))
    monkeypatch.setattr(quickstart, "FINE_TUNING", replace(quickstart.FINE_TUNING, max_steps=2))
    monkeypatch.setattr(
        quickstart.stages, "squad_questions", lambda data, split, **_: squad_questions(data, split)[:20]
    )
    result = quickstart.run(
        tmp_path / "way", export=partial(exporters.export, max_drop=100.0), threads=1, seed=0, overwrite=False
    )
    names = [row["name"] for row in result["rows"]]
    assert names == ["teacher", "student", "student, ONNX", "student, ONNX int8", "student, Core ML"]
    teacher, student, onnx, int8, coreml = result["rows"]
    assert student["parameters"] < teacher["parameters"]
    assert int8["bytes"] < onnx["bytes"] / 2
    assert onnx["f1"] == pytest.approx(student["f1"], abs=1e-6)
    assert (coreml["runtime"], coreml["precision"], coreml["median_ms"]) == ("mil", "fp16", None)
    assert 0 <= coreml["exact_match"] <= coreml["f1"] <= 100
    assert all(row["median_ms"] > 0 for row in result["rows"][:4])
    answer = result["answer"]
    assert result["passage"][answer["start"] : answer["end"]] == answer["text"]
    for name in ("student", "student-qa", "onnx", "coreml"):
        assert read_manifest(tmp_path / "way" / name) is not None
    assert sorted(os.listdir(tmp_path / "way")) == ["coreml", "onnx", "student", "student-qa"]
    json.dumps(result)
    assert all(len(cells) == len(quickstart.HEADERS) for cells in quickstart.cells(result["rows"]))


def test_quickstart_refuses_to_replace_an_earlier_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        quickstart.run(tmp_path, export=exporters.export, threads=1, seed=0, overwrite=True)
    assert os.listdir(tmp_path) == ["onnx"]
