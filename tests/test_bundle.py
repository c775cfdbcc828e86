"""`edge-distil bundle`: what lies in the app afterwards, and what is refused."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_command
from tokenizers import Tokenizer, models

from edge_distil import starter
from edge_distil.checkpoints import MANIFEST, read_manifest, sha256_file
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.tasks.decoding import Decoding
from edge_distil.tasks.squad import Question, parse_squad, read_squad
from exporters import CoreMLOptions, export
from exporters.bundle import bundle, samples

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def artifact(distilbert_qa: Path, questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of two packages."""
    model = tmp_path_factory.mktemp("bundle") / "model"
    shutil.copytree(distilbert_qa, model)
    Decoding(temperature=1.5).save(model)
    output = model.parent / "student"
    options = CoreMLOptions(("fp16", "palette8"), ios=16)
    given = {"max_length": 64}
    export(model, output, format="coreml", questions=questions[:4], max_drop=100, coreml=options, config=given, **given)
    return output


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app's folder as `apps/ios-demo` has it, with a build of it lying about."""
    for folder in ("App/Demo/Bundled/Models", ".build/Demo.app/Bundled", "App/Demo.xcodeproj"):
        (tmp_path / "app" / folder).mkdir(parents=True)
    (tmp_path / "app/App/Demo.xcodeproj/project.pbxproj").write_text("IPHONEOS_DEPLOYMENT_TARGET = 17.0;\n")
    return tmp_path / "app"


def models_of(app: Path) -> Path:
    return app / "App/Demo/Bundled/Models"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered(artifact: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of an artifact with another manifest."""
    shutil.copytree(artifact, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return copy


def test_bundled_folder_holds_what_the_app_reads_and_answers_as_the_export_does(
    artifact: Path, app: Path, questions: list[Question]
) -> None:
    result = bundle(artifact, app)
    target = models_of(app) / "student"
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json", "decoding.json", "edge_distil.json", "model.mlpackage", "tokenizer.json",
    ]  # fmt: skip
    assert (result["name"], result["precision"], result["lengths"], result["ios"]) == ("student", "fp16", (64,), 16)
    assert (result["replaced"], result["models"], result["warnings"]) == (False, ["student"], [])
    manifest, original = read_manifest(target), read_manifest(artifact)
    assert manifest is not None
    assert original is not None
    assert set(contents(target)) == {*manifest["files"], MANIFEST}
    assert manifest["files"].items() < original["files"].items()
    # Where it was made is nobody's concern who has the app.
    assert str(artifact.parent) not in (target / MANIFEST).read_text()
    assert manifest["config"] == {"max_length": 64}
    assert manifest["inputs"]["model"] == {"sha256": original["inputs"]["model"]["sha256"]}
    of_artifact = {"files": None, "config": None, "inputs": None}
    assert {**manifest, **of_artifact} == {**original, **of_artifact}
    bundled, exported = (QuestionAnswerer.open(folder, name="mil") for folder in (target, artifact))
    assert bundled.ask_all(questions[:3]) == exported.ask_all(questions[:3])
    assert bundled.decoding.temperature == 1.5


def test_of_several_packages_the_chosen_one_is_taken(artifact: Path, app: Path) -> None:
    result = bundle(artifact, app, precision="palette8", name="Student 8")
    assert [path.name for path in (models_of(app) / "Student 8").glob("*.mlpackage")] == ["model_palette8.mlpackage"]
    assert result["precision"] == "palette8"
    with pytest.raises(UserError, match="holds no int4 package"):
        bundle(artifact, app, precision="int4")


def test_two_models_stand_beside_each_other_and_one_is_replaced_whole(artifact: Path, app: Path) -> None:
    bundle(artifact, app, name="BERT")
    bundle(artifact, app, name="DistilBERT", precision="palette8")
    other = contents(models_of(app) / "BERT")
    result = bundle(artifact, app, name="DistilBERT")
    assert (result["replaced"], result["models"]) == (True, ["BERT", "DistilBERT"])
    assert contents(models_of(app) / "BERT") == other
    assert [path.name for path in (models_of(app) / "DistilBERT").glob("*.mlpackage")] == ["model.mlpackage"]
    assert sorted(path.name for path in models_of(app).iterdir()) == ["BERT", "DistilBERT"]


def test_name_that_a_mac_does_not_tell_from_another_is_refused(artifact: Path, app: Path) -> None:
    bundle(artifact, app, name="DistilBERT")
    with pytest.raises(UserError, match="does not tell it from DistilBERT"):
        bundle(artifact, app, name="distilbert")
    assert [path.name for path in models_of(app).iterdir()] == ["DistilBERT"]


def test_files_of_the_user_are_not_lost_to_a_replacement(artifact: Path, app: Path) -> None:
    mine = models_of(app) / "student/mine.txt"
    bundle(artifact, app)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"mine\.txt: is not of edge-distil's writing"):
        bundle(artifact, app)
    mine.unlink()
    assert bundle(artifact, app)["replaced"]
    (models_of(app) / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md: is not of edge-distil's writing") as refused:
        bundle(artifact, app, name="README.md")
    assert "--name" in refused.value.hint


def test_what_a_killed_bundle_left_is_cleared_whatever_its_name(artifact: Path, app: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = models_of(app) / f".other.partial-{ended.pid}"
    left.mkdir()
    (left / "weights.bin").write_bytes(b"half")
    bundle(artifact, app)
    assert [path.name for path in models_of(app).iterdir()] == ["student"]


@pytest.mark.parametrize(
    "broken", ["{}", "[1]", '[{"title": "A", "text": "B"}]', '[{"title": 1, "text": "", "questions": []}]']
)
def test_sample_passages_that_the_app_could_not_read_are_refused(artifact: Path, app: Path, broken: str) -> None:
    (models_of(app).parent / "passages.json").write_text(broken)
    with pytest.raises(UserError, match=r"passages.json: passage 1 has no title") as refused:
        bundle(artifact, app)
    assert "--data FILE --overwrite" in refused.value.hint
    assert not any(models_of(app).iterdir())


def test_resource_folder_itself_leads_to_the_project_beside_it(artifact: Path, app: Path) -> None:
    given = ("bundle", artifact, "--app", models_of(app).parent)
    assert str(app / "App/Demo.xcodeproj") in run_command(*given).out


def test_an_interrupted_replacement_leaves_the_older_model(
    artifact: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(artifact, app)
    before = contents(models_of(app))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        bundle(artifact, app, precision="palette8")
    assert contents(models_of(app)) == before
    assert [path.name for path in models_of(app).iterdir()] == ["student"]


def test_a_changed_file_is_refused_and_nothing_is_written(artifact: Path, app: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    weights = next(copy.glob("model.mlpackage/**/weight.bin"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"weight\.bin: does not match its checksum"):
        bundle(copy, app)
    assert list(models_of(app).iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "onnx"}, "holds a model for onnx"),
        ({"kind": "checkpoint"}, "is a checkpoint"),
        ({"task": "text-classification"}, "is for text-classification"),
    ],
)
def test_other_artifacts_are_refused(
    artifact: Path, app: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    copy = altered(artifact, tmp_path / "copy", lambda manifest: manifest.update(change))
    with pytest.raises(UserError, match=message):
        bundle(copy, app)


def test_a_tokeniser_that_the_kit_does_not_read_is_refused(artifact: Path, app: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    Tokenizer(models.BPE()).save(str(copy / "tokenizer.json"))

    def record(manifest: dict[str, Any]) -> None:
        path = copy / "tokenizer.json"
        manifest["files"]["tokenizer.json"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}

    changed = altered(copy, tmp_path / "changed", record)
    with pytest.raises(UserError, match=r"tokenizer\.json: its normalizer is None, .* BertNormalizer"):
        bundle(changed, app)


def test_a_tokeniser_of_another_model_is_refused(artifact: Path, app: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    config = json.loads((copy / "config.json").read_text()) | {"vocab_size": 30522}
    (copy / "config.json").write_text(json.dumps(config))

    def record(manifest: dict[str, Any]) -> None:
        path = copy / "config.json"
        manifest["files"]["config.json"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}

    changed = altered(copy, tmp_path / "changed", record)
    with pytest.raises(UserError, match="the model has 30522 embeddings"):
        bundle(changed, app)


def test_the_resource_folder_has_to_be_one(artifact: Path, app: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        bundle(artifact, tmp_path / "nowhere")
    (app / "Other/Bundled").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no one folder Bundled, but 2"):
        bundle(artifact, app)
    assert Path(bundle(artifact, app / "Other/Bundled")["model"]) == app / "Other/Bundled/Models/student"
    shutil.rmtree(app / "Other")
    shutil.rmtree(app / "App/Demo/Bundled")
    with pytest.raises(UserError, match=r"holds no one folder Bundled$"):
        bundle(artifact, app)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b"])
def test_names_that_are_no_folder_are_refused(artifact: Path, app: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name for a folder"):
        bundle(artifact, app, name=name)


def test_a_model_for_a_later_ios_than_the_app_s_is_warned_of(
    distilbert_qa: Path, questions: list[Question], app: Path, tmp_path: Path
) -> None:
    output = tmp_path / "late"
    options = CoreMLOptions(("fp16",), ios=18, lengths=(32, 64))
    export(distilbert_qa, output, format="coreml", questions=questions[:2], max_drop=100, coreml=options)
    result = bundle(output, app)
    assert (result["ios"], result["lengths"]) == (18, (32, 64))
    assert result["warnings"] == [
        "the model needs iOS 18, the app is built for 17: raise the project's deployment target, "
        "or export again with --ios 17"
    ]


def test_sample_passages_are_written_once_and_replaced_only_on_demand(
    artifact: Path, app: Path, squad_file: Path, questions: list[Question]
) -> None:
    bundle(artifact, app)
    path = app / "App/Demo/Bundled/passages.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written == samples(parse_squad(starter.questions("test", 12), "starter"))
    assert len(written) == 12
    path.write_text("[]")
    bundle(artifact, app)
    assert path.read_text() == "[]"
    refused = run_command("bundle", artifact, "--app", app, "--data", squad_file, "--name", "new")
    assert "passages.json: exists already" in refused.error
    assert [folder.name for folder in models_of(app).iterdir()] == ["student"]
    given = ["--app", app, "--data", squad_file, "--overwrite", "--json"]
    ended = json.loads(run_command("bundle", artifact, *given).out)
    first, *others = json.loads(path.read_text(encoding="utf-8"))
    assert (ended["passages"], len(others)) == (str(path), 2)
    assert first["text"] == questions[0].context
    assert first["text"].startswith(first["title"].removesuffix(" …"))
    assert first["questions"] == [each.question for each in questions if each.context == first["text"]][:5]


def test_no_two_samples_have_one_title() -> None:
    texts = ["One and the same six words: first.", "One and the same six words: second.", "  ", "Short."]
    found = samples([Question(str(index), "Who?", text, ()) for index, text in enumerate(texts)])
    titles = ["One and the same six words: …", "One and the same six words: … (2)", "Short."]
    assert [sample["title"] for sample in found] == titles


def swift_is_here() -> bool:
    """Whether the kit can be built here without fetching a toolchain. In CI it has to be."""
    root = Path(os.environ.get("EDGE_DISTIL_SWIFT", Path.home() / ".cache/edge-distil/swift"))
    return bool(shutil.which("swift") or (root / "ready").exists() or os.environ.get("CI"))


@pytest.mark.skipif(not swift_is_here(), reason="no Swift: make test-swift fetches it where it can")
def test_the_kit_s_own_loader_reads_what_was_bundled(artifact: Path, squad_file: Path) -> None:
    # The toolchain sees the package's folder and nothing else.
    package = ROOT / "apps/ios-demo"
    app = package / ".build" / f"bundle-{os.getpid()}"
    (app / "Bundled/Models").mkdir(parents=True)
    try:
        bundle(artifact, app / "Bundled", questions=read_squad(squad_file))
        bundle(artifact, app / "Bundled", name="smaller", precision="palette8")
        command = [package / "swift.sh", "run", "CheckBundle", f".build/{app.name}/Bundled"]
        whole = subprocess.run(command, capture_output=True, text=True)
        assert whole.returncode == 0, whole.stdout + whole.stderr
        passages, *models_found = whole.stdout.splitlines()
        assert passages == "ok  passages: 3"
        assert [line.partition(",")[0] for line in models_found] == ["ok  smaller: palette8", "ok  student: fp16"]
        assert all(" bytes, 64 tokens, the passages have " in line for line in models_found)
        weights = next((app / "Bundled/Models/student").glob("*.mlpackage/**/weight.bin"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        broken = subprocess.run(command, capture_output=True, text=True)
        assert broken.returncode == 1
        assert "FAILED  weights/weight.bin does not match its checksum" in broken.stdout
    finally:
        shutil.rmtree(app)


def test_command_says_what_to_do_next(artifact: Path, app: Path) -> None:
    ended = run_command("bundle", artifact, "--app", app, "--name", "DistilBERT")
    first, second, *rest = ended.out.splitlines()
    assert (ended.status, ended.err) == (0, "")
    assert first.startswith(f"wrote {models_of(app) / 'DistilBERT'}: fp16, ")
    assert first.endswith("64 tokens, iOS 16 or later")
    assert second == "the app now holds: DistilBERT"
    assert rest[1] == f"  open {app / 'App/Demo.xcodeproj'}"


def test_without_an_artifact_the_starter_s_teacher_is_bundled(app: Path) -> None:
    ended = run_command("bundle", "--app", app, "--json")
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert (result["name"], result["models"]) == ("starter", ["starter"])
    context, asked = starter.example()[1], starter.example()[0]
    answers = QuestionAnswerer.open(models_of(app) / "starter", name="mil").ask(asked, context)
    assert answers[0].text == starter.example()[2]
