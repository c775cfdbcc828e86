"""The command line: what the user can fix is two lines and status 2, nothing half-written; `--json` is JSON alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ended, run_command
from tokenizers import Tokenizer

from edge_distil import stages
from edge_distil.checkpoints import write_manifest

Run = Callable[..., Ended]


@pytest.fixture
def run() -> Run:
    return run_command


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reaching the training is a failure of the test."""
    for name in ("_pretrain", "distil", "fine_tune"):
        monkeypatch.setattr(stages, name, lambda *_, **__: pytest.fail("training began"))


@pytest.fixture
def predictions(squad: dict[str, Any], tmp_path: Path) -> Path:
    """The gold answers, in SQuAD's prediction format."""
    qas = [qa for article in squad["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({qa["id"]: qa["answers"][0]["text"] for qa in qas}))
    return path


def test_json_prints_one_object_and_nothing_else(run: Run, squad_file: Path, predictions: Path) -> None:
    ended = run("evaluate", "--task", "squad", "--data", squad_file, "--predictions", predictions, "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("\n") == 1
    result = json.loads(ended.out)
    examples = len(json.loads(predictions.read_text()))
    assert result == {"exact_match": 100.0, "f1": 100.0, "examples": examples, "missing": 0}


def test_without_json_a_person_reads_the_figures(run: Run, squad_file: Path, predictions: Path) -> None:
    ended = run("evaluate", "--data", squad_file, "--predictions", predictions)
    examples = len(json.loads(predictions.read_text()))
    assert (ended.status, ended.out) == (0, f"exact match 100.00, F1 100.00 on {examples} questions\n")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["evaluate", "--task", "glue"], "--task glue: unknown task", "the tasks are: squad"),
        (["finetune", "--task", "snli"], "--task snli: unknown task", "the tasks are: squad, cola, "),
        (["finetune", "--task", "glue"], "--task glue takes a folder with GLUE's folders as --data", "give --data"),
        (["export", "--format", "tflite"], "--format tflite: unknown", "choose one of: onnx, coreml, openvino"),
        (["export", "--precision", "int2"], "--precision int2: unknown", "choose one of: fp32, fp16, int8, int4, all"),
        (["export", "--target", "riscv"], "--target riscv: unknown", "choose one of: x86, arm64, web, generic"),
        (["export", "--quantization", "none"], "--quantization none: unknown", "choose one of: dynamic, static"),
        (
            ["export", "--format", "coreml", "--target", "x86"],
            "--target is for --format onnx, not for coreml",
            "leave it out",
        ),
        (
            ["export", "--calibration", "train.json"],
            "--calibration needs --quantization static",
            "add it, or leave --calibration out",
        ),
        (["export", "--task", "cola"], "--task cola needs --eval", "give a file of texts with labels"),
        (["bench", "--device", "tpu"], "--device tpu: unknown device", "the devices are: cpu, cuda, mps, coreml"),
        (["train", "--alpha-cosine", "1"], "No such option: --alpha-cosine", "edge-distil train --help"),
        (["train", "--temperature", "0"], "--temperature", "edge-distil train --help"),
        (["train", "--epochs", "many"], "--epochs", "edge-distil train --help"),
        (["distil"], "No such command 'distil'", "edge-distil --help"),
        (["ask", "runs/qa", "Who?"], "a question and a passage go together", "--context FILE"),
        (["ask", "--context", "passage.txt"], "a question and a passage go together", "--context FILE"),
        (["ask", "runs/qa", "Who?", "--context", "gone.txt"], "gone.txt: no such file", "--context"),
        (["evaluate", "--data", "gone.json"], "gone.json: no such file", "check the path"),
        (["train", "--teacher", "gone"], "gone: no such model folder", "hf://owner/name"),
        (["train", "--config", "gone.yaml"], "gone.yaml: cannot be read: No such file or directory", "--config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_user_can_fix_is_an_error_and_a_hint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert error in ended.error
    assert hint in ended.hint
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_file_without_a_question_is_refused(run: Run, tmp_path: Path) -> None:
    path, output = tmp_path / "empty.json", tmp_path / "out"
    path.write_text('{"version": "1.1", "data": []}')
    ended = run("export", "--quantization", "static", "--calibration", path, "--output", output)
    assert ended.error == f"{path}: holds no question"
    assert list(tmp_path.iterdir()) == [path]


def test_debug_shows_the_traceback_above_the_two_lines(run: Run) -> None:
    ended = run("evaluate", "--task", "glue", "--debug")
    assert ended.status == 2
    assert "Traceback (most recent call last)" in ended.err
    assert [line.split(":")[0] for line in ended.err.splitlines()[-2:]] == ["error", "hint"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", "is empty"), (b" \n\t", "is empty"), (b"Lor\xe9", "is not UTF-8 text (byte 3)")],
    ids=["empty", "blank", "latin-1"],
)
def test_a_passage_that_is_no_text_is_named(run: Run, tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "passage.txt"
    path.write_bytes(content)
    assert run("ask", "runs/qa", "Who?", "--context", path).error == f"{path}: {error}"


# --config


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_an_unknown_key_is_named_with_the_ones_that_are_known(run: Run, tmp_path: Path) -> None:
    path = config_file(tmp_path, "temperature: 2\nalfa_ce: 3\nhidden_size: 2\n")
    ended = run("train", "--config", path)
    assert ended.error == f"{path}: unknown option 'alfa_ce', 'hidden_size'"
    assert "alpha_ce, alpha_cos, alpha_mlm, alpha_mse, batch_size" in ended.hint


@pytest.mark.parametrize("key", ["config", "json_output", "debug", "overwrite"])
def test_how_a_command_is_run_is_no_matter_of_the_configuration(run: Run, tmp_path: Path, key: str) -> None:
    path = config_file(tmp_path, f"{key}: true\n")
    assert run("train", "--config", path).error == f"{path}: unknown option {key!r}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- a\n- b\n", "holds no options"),
        ("a: [1\n", "is not valid YAML"),
        ("temperature: hot\n", "--temperature"),
        ("temperature: 0\n", "--temperature"),
    ],
    ids=["list", "broken", "type", "range"],
)
def test_a_configuration_of_another_form_is_refused(run: Run, tmp_path: Path, text: str, error: str) -> None:
    assert error in run("train", "--config", config_file(tmp_path, text)).error


def test_the_configuration_is_used_and_the_command_line_wins(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def train(output: Path, **options: Any) -> dict[str, Any]:
        asked.update(options, output=output)
        return {"output": str(output), "metrics": {}, "seconds": 0.0}

    monkeypatch.setattr(stages, "train", train)
    text = "alpha-ce: 3.0\nalpha_cos: 0.5\ncorpus: [a.txt, b.txt]\nbatch_size: 4\nseed: 9\noutput: from-config\n"
    path = config_file(tmp_path, text + "teacher: null\n")
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("A line.\n", encoding="utf-8")
    ended = run("train", "--config", path, "--alpha-cos", "0.25", "--seed", "1", "--json")
    assert (ended.status, json.loads(ended.out)["output"]) == (0, "from-config")
    weights = asked["weights"]
    assert (weights.temperature, weights.alpha_ce, weights.alpha_mlm, weights.alpha_cos) == (2.0, 3.0, 2.0, 0.25)
    assert (asked["training"].batch_size, asked["training"].seed) == (4, 1)
    assert (asked["corpus"], asked["teacher"]) == ([Path("a.txt"), Path("b.txt")], None)
    # What was used is what is saved: every option of the command, and none of the ways to run it.
    assert {key: asked["config"][key] for key in ("alpha_ce", "alpha_cos", "seed", "corpus", "block_length")} == {
        "alpha_ce": 3.0,
        "alpha_cos": 0.25,
        "seed": 1,
        "corpus": ["a.txt", "b.txt"],
        "block_length": 256,
    }
    assert not asked["config"].keys() & {"config", "json_output", "debug", "overwrite"}
    assert yaml.safe_load(yaml.safe_dump(asked["config"])) == asked["config"]


# Commands that would train


@pytest.mark.usefixtures("no_training")
def test_a_teacher_without_a_head_is_refused_and_nothing_is_left_behind(
    run: Run, bert_encoder: Path, corpus_file: Path, tmp_path: Path
) -> None:
    ended = run("train", "--teacher", bert_encoder, "--corpus", corpus_file, "--output", tmp_path / "student")
    assert ended.error.startswith(f"{bert_encoder}: has no masked-lm head")
    assert ended.hint == f"train one first: edge-distil pretrain --from {bert_encoder}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
def test_a_question_answering_teacher_with_another_tokeniser_is_refused(
    run: Run, bert_mlm: Path, bert_qa: Path, squad_file: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    teacher = copy_of(bert_qa)
    state = json.loads((teacher / "tokenizer.json").read_text())
    state["normalizer"]["lowercase"] = False
    Tokenizer.from_str(json.dumps(state)).save(str(teacher / "tokenizer.json"))
    output = tmp_path / "qa"
    ended = run("finetune", "--model", bert_mlm, "--teacher", teacher, "--data", squad_file, "--output", output)
    assert ended.error == f"{teacher} and {bert_mlm} tokenise differently"
    assert "share one tokeniser" in ended.hint
    assert not output.exists()


@pytest.mark.usefixtures("no_training")
def test_a_teacher_that_answers_no_questions_is_refused(
    run: Run, bert_mlm: Path, squad_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "qa"
    ended = run("finetune", "--model", bert_mlm, "--teacher", bert_mlm, "--data", squad_file, "--output", output)
    assert ended.error.startswith(f"{bert_mlm}: has no question-answering head")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
def test_a_student_is_no_teacher_for_general_distillation(
    run: Run, distilbert_qa: Path, corpus_file: Path, tmp_path: Path
) -> None:
    ended = run("train", "--teacher", distilbert_qa, "--corpus", corpus_file, "--output", tmp_path / "student")
    assert str(distilbert_qa) in ended.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("command", ["pretrain", "train", "finetune"])
@pytest.mark.parametrize(
    ("ours", "overwrite", "error"),
    [
        (False, False, "already holds files that edge-distil did not write"),
        (False, True, "already holds files that edge-distil did not write"),
        (True, False, "already holds an earlier result"),
    ],
    ids=["foreign", "foreign with overwrite", "earlier result"],
)
def test_an_output_that_holds_something_is_refused_before_any_training(
    run: Run, tmp_path: Path, command: str, ours: bool, overwrite: bool, error: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    if ours:
        write_manifest(output, kind="checkpoint", task="masked-lm", command="", config={}, inputs={}, measured={})
    before = {path: path.read_bytes() for path in output.iterdir()}
    # The inputs are missing too: the output is looked at first.
    option = "--from" if command == "pretrain" else "--model" if command == "finetune" else "--teacher"
    ended = run(command, option, tmp_path / "gone", "--output", output, *(["--overwrite"] if overwrite else []))
    assert ended.error == f"{output}: {error}"
    assert "--output" in ended.hint
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", "holds no text"), (b"fine\nbad \xff\n", "is not UTF-8 text, line 2")],
    ids=["empty", "not text"],
)
def test_a_corpus_that_cannot_be_read_leaves_nothing(
    run: Run, bert_mlm: Path, tmp_path: Path, content: bytes, error: str
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(content)
    ended = run("train", "--teacher", bert_mlm, "--corpus", corpus, "--output", tmp_path / "student")
    assert error in ended.error
    assert list(tmp_path.iterdir()) == [corpus]


def test_a_corpus_of_less_than_two_blocks_leaves_nothing(run: Run, bert_mlm: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("too short")
    ended = run("train", "--teacher", bert_mlm, "--corpus", corpus, "--output", tmp_path / "student")
    assert ended.error == "the corpus fills less than two blocks"
    assert "--block-length" in ended.hint
    assert list(tmp_path.iterdir()) == [corpus]


def test_heads_that_do_not_divide_the_width_are_refused(run: Run, corpus_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "teacher"
    ended = run("pretrain", "--hidden-size", 30, "--heads", 4, "--corpus", corpus_file, "--output", output)
    assert ended.error == "--hidden-size 30 is not a multiple of --heads 4"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_training_leaves_the_earlier_result(
    run: Run, bert_mlm: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "student"
    output.mkdir()
    (output / "model.safetensors").write_bytes(b"earlier")
    write_manifest(output, kind="checkpoint", task="masked-lm", command="", config={}, inputs={}, measured={})

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "distil", interrupt)
    ended = run("train", "--teacher", bert_mlm, "--corpus", corpus_file, "--output", output, "--overwrite")
    assert (ended.status, ended.err.splitlines()[-1]) == (130, "stopped")
    assert (output / "model.safetensors").read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [output]


# Commands that run a model


def test_a_truncated_model_is_named_by_ask(
    run: Run, bert_qa: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    model, passage = copy_of(bert_qa), tmp_path / "passage.txt"
    passage.write_text("Ada Lor built the bridge.")
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    ended = run("ask", model, "Who built the bridge?", "--context", passage)
    assert ended.error.startswith(f"{model}: the weights do not load")


@pytest.mark.parametrize("command", ["ask", "evaluate"])
def test_windows_longer_than_the_model_are_refused_with_its_length(
    run: Run, bert_qa: Path, squad_file: Path, tmp_path: Path, command: str
) -> None:
    passage = tmp_path / "passage.txt"
    passage.write_text("Ada Lor built the bridge.")
    given = ["Who built it?", "--context", passage] if command == "ask" else ["--data", squad_file]
    ended = run(command, bert_qa, *given, "--max-length", 500)
    assert ended.error == f"{bert_qa}: has 384 positions, not 500"
    assert ended.hint == "give --max-length 384 or less"


@pytest.mark.parametrize("command", ["ask", "evaluate"])
@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_model_folder_that_is_none_is_named(
    run: Run, squad_file: Path, tmp_path: Path, command: str, kind: str
) -> None:
    passage, folder = tmp_path / "passage.txt", tmp_path / "model"
    passage.write_text("Ada Lor built the bridge.")
    if kind == "empty":
        folder.mkdir()
    given = ["Who built it?", "--context", passage] if command == "ask" else ["--data", squad_file]
    assert str(folder) in run(command, folder, *given).error


def test_ask_gives_answers_with_their_place_in_the_passage(run: Run, bert_qa: Path, tmp_path: Path) -> None:
    passage = tmp_path / "passage.txt"
    text = "\n👍🏽 The bridge was built\r\nin 1912 by Ada Lor.\n"
    passage.write_bytes(text.encode())
    ended = run("ask", bert_qa, "Who built the bridge?", "--context", passage, "--n-best", 4, "--json")
    result = json.loads(ended.out)
    assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
    assert result["question"] == "Who built the bridge?"
    assert len(result["answers"]) == 4
    for answer in result["answers"]:
        assert answer.keys() == {"text", "start", "end", "score"}
        assert answer["text"] == text[answer["start"] : answer["end"]] != ""


def test_evaluate_scores_a_checkpoint(run: Run, distilbert_qa: Path, squad_file: Path) -> None:
    ended = run("evaluate", distilbert_qa, "--data", squad_file, "--json")
    result = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert (result["runtime"], result["precision"]) == ("torch", "fp32")
    assert 0 <= result["exact_match"] <= result["f1"] <= 100


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "-h"]], ids=["nothing", "help", "of a command"])
def test_help_is_printed_on_stdout(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert (ended.status, ended.err) == (0, "")
    assert "Usage: edge-distil" in ended.out


def test_a_full_disk_is_two_lines_and_leaves_nothing(
    run: Run, bert_mlm: Path, squad_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(stages, "write_manifest", full)
    output = tmp_path / "qa"
    small = ["--max-steps", 1, "--batch-size", 1, "--max-length", 64, "--doc-stride", 24]
    ended = run("finetune", "--model", bert_mlm, "--data", squad_file, "--output", output, *small)
    assert ended.error == "model.safetensors: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_training_command_prints_json_alone_even_for_a_run_too_short_for_a_curve(
    run: Run, bert_mlm: Path, squad_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "qa"
    small = ["--max-steps", 1, "--batch-size", 1, "--max-length", 64, "--doc-stride", 24]
    ended = run("finetune", "--model", bert_mlm, "--data", squad_file, "--output", output, *small, "--json")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    result = json.loads(ended.out, parse_constant=refuse)
    assert (ended.status, result["output"], result.keys()) == (0, str(output), {"output", "metrics", "seconds"})
    assert result["metrics"]["steps"] == 1
    json.loads((output / "edge_distil.json").read_text(), parse_constant=refuse)


def test_a_masked_lm_export_answers_no_question(run: Run, bert_mlm: Path, squad_file: Path, tmp_path: Path) -> None:
    exported, passage = tmp_path / "onnx", tmp_path / "passage.txt"
    passage.write_text("Ada Lor built the bridge.")
    assert run("export", bert_mlm, "--format", "onnx", "--eval", squad_file, "--output", exported).status == 0
    ended = run("ask", exported, "Who built the bridge?", "--context", passage)
    assert ended.error == f"{exported}: has no question-answering head, it gives logits"


def test_the_quickstart_refuses_a_folder_with_other_things_in_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    ended = run("quickstart", "--output", tmp_path)
    assert ended.error == f"{tmp_path}: already holds keep.txt, which edge-distil did not write"
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_a_length_that_the_model_has_no_positions_for_is_refused_by_bench(run: Run, bert_qa: Path) -> None:
    ended = run("bench", bert_qa, "--tokens", "5000")
    assert (ended.error, ended.hint) == (f"{bert_qa}: has 384 positions, not 5000", "give --tokens 384 or less")


def test_the_configuration_takes_options_as_they_are_spelt(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bert_mlm: Path
) -> None:
    asked: dict[str, Any] = {}

    def pretrain(output: Path, **options: Any) -> dict[str, Any]:
        asked.update(options)
        return {"output": str(output), "metrics": {}, "seconds": 0.0}

    monkeypatch.setattr(stages, "pretrain", pretrain)
    config = config_file(tmp_path, f"from: {bert_mlm}\nmax-steps: 3\n")
    assert run("pretrain", "--config", config).status == 0
    assert (asked["from_encoder"], asked["training"].max_steps) == (str(bert_mlm), 3)


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("edge-distil 0.")
