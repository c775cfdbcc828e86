"""A Core ML export, made ready for an app: its package, tokeniser and manifest as one folder among the app's resources.

`apps/ios-demo` is that app, or any other with a resource folder of this form, which the Swift kit reads:

    Bundled/passages.json    sample passages: [{"title", "text", "questions"}]
    Bundled/Models/NAME/     an export: edge_distil.json, config.json, tokenizer.json, decoding.json, one .mlpackage
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from edge_distil import starter
from edge_distil.checkpoints import (
    MANIFEST,
    check_file,
    clear_up,
    new_file,
    new_folder,
    read_json,
    read_manifest,
)
from edge_distil.errors import UserError
from edge_distil.runtimes.mil import find_package, lengths_of, read_program
from edge_distil.tasks.decoding import DECODING
from edge_distil.tasks.squad import Question, parse_squad
from edge_distil.tokenization import check_belongs, load_tokenizer, special_tokens

RESOURCES = "Bundled"
PASSAGES = "passages.json"
# What an app's library of samples shows at a glance.
_SAMPLES, _QUESTIONS_EACH = 12, 5
_OUTPUTS = ("start_logits", "end_logits")
# The options of an export that the kit reads; the others are paths on the machine that made it.
_SETTINGS = ("max_length", "lengths")
# What the kit's tokeniser does, by the parts of a tokenizer.json.
_TOKENIZER = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


def bundle(
    artifact: Path,
    app: Path,
    *,
    name: str | None = None,
    precision: str | None = None,
    questions: Sequence[Question] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Put an export for question answering into an app, in place of an earlier one of that name, whole or not at all.

    `artifact` is checked first: every file against its checksum, the tokeniser against the model, and that the kit can
    read it. `app` is the app's folder, with one resource folder `Bundled` somewhere in it, or that folder itself;
    `name` is what the app calls the model, by default the artifact folder's name. An export of several packages gives
    that of `precision`, fp16 by default. The passages of `questions` become the app's samples, with `overwrite` in
    place of those that are there; None leaves these, and writes passages of the starter set only where there are none.

    Returns `model`, the folder in the app, `name`, `precision`, `lengths` (of an input, in tokens), `ios` (the oldest
    that runs it), `bytes`, `replaced` (whether a model of that name was there), `models` (the names of all that the app
    holds now), `passages` (the samples' file), and `warnings`. Raises `UserError` when the artifact is not what the kit
    reads, or the app has no such folder.
    """
    resources = find_resources(app)
    manifest = _readable(artifact)
    package, stored = find_package(artifact, precision)
    program = read_program(package)
    missing = [output for output in _OUTPUTS if output not in program.outputs]
    if missing:
        raise UserError(
            f"{package}: gives no {', '.join(missing)}, but {', '.join(program.outputs)}",
            "give a package that edge-distil export wrote of a question-answering model",
        )
    name = artifact.resolve().name if name is None else name
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise UserError(f"--name {name!r} is no name for a folder", "give letters, digits, blanks, dots and hyphens")
    if questions is not None:
        check_file(resources / PASSAGES, overwrite)

    elif (resources / PASSAGES).exists():
        _check_samples(resources / PASSAGES)

    target = resources / "Models" / name
    _check_place(target)
    clear_up(target.parent)
    replaced = target.is_dir()
    with new_folder(target, overwrite=True) as staging:
        shutil.copytree(package, staging / package.name)
        for file in ("config.json", "tokenizer.json", DECODING):
            if (artifact / file).is_file():
                shutil.copyfile(artifact / file, staging / file)
        kept = {file: entry for file, entry in manifest["files"].items() if (staging / file).is_file()}
        settings = {key: value for key, value in manifest["config"].items() if key in _SETTINGS}
        inputs = {key: _without_paths(value) for key, value in manifest["inputs"].items()}
        _write_json(staging / MANIFEST, {**manifest, "config": settings, "inputs": inputs, "files": kept})
        read_manifest(staging)  # what was copied, as it lies there
    if questions is not None or not (resources / PASSAGES).exists():
        chosen = parse_squad(starter.questions("test", _SAMPLES), "starter") if questions is None else questions
        with new_file(resources / PASSAGES) as staging:
            _write_json(staging, samples(chosen))

    return {
        "model": str(target),
        "name": name,
        "precision": stored,
        "lengths": lengths_of(program),
        "ios": program.opset,
        "bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        "replaced": replaced,
        "models": sorted(folder.parent.name for folder in (resources / "Models").glob(f"[!.]*/{MANIFEST}")),
        "passages": str(resources / PASSAGES),
        "warnings": list(_warnings(app, program.opset)),
    }


def find_resources(app: Path) -> Path:
    """The one folder `Bundled` in an app's folder. Raises `UserError` where there is none, or more than one."""
    if not app.is_dir():
        raise UserError(f"{app}: no such folder", "give --app the app's folder, such as apps/ios-demo")
    if app.name == RESOURCES:
        return app
    # Builds hold copies of an app's resources, in folders with a dot or in Xcode's DerivedData.
    found = [
        path
        for path in sorted(app.rglob(RESOURCES))
        if path.is_dir()
        and not any(part.startswith(".") or part in ("DerivedData", "build") for part in path.relative_to(app).parts)
    ]
    if len(found) == 1:
        return found[0]
    listed = f", but {len(found)}: {', '.join(map(str, found))}" if found else ""
    raise UserError(
        f"{app}: holds no one folder {RESOURCES}{listed}",
        f"give the app's resource folder itself, --app .../{RESOURCES}: a folder reference in its Xcode project",
    )


def project_of(app: Path) -> Path | None:
    """The Xcode project of an app's folder, or of the folder that its `Bundled` lies in; None where there is none."""
    root = app.absolute().parent.parent if app.name == RESOURCES else app
    return next((path for path in sorted(root.rglob("*.xcodeproj")) if ".build" not in path.parts), None)


def _check_place(target: Path) -> None:
    """Refuse a place whose replacement would lose something, or that a Mac could not tell from another's."""
    for other in target.parent.glob("[!.]*"):
        if other.name != target.name and other.name.casefold() == target.name.casefold():
            raise UserError(
                f"{target}: a Mac's file system does not tell it from {other.name}, which is there",
                f"give --name {other.name} to replace that one, or another name",
            )
    if not target.exists():
        return
    manifest = read_json(target / MANIFEST) if (target / MANIFEST).is_file() else {"files": {}}
    found = [target] if target.is_file() else [path for path in sorted(target.rglob("*")) if path.is_file()]
    listed = {target / MANIFEST, *(target / file for file in manifest["files"])}
    foreign = next((path for path in found if path not in listed and path.name != ".DS_Store"), None)
    if foreign:
        raise UserError(
            f"{foreign}: is not of edge-distil's writing and would be lost", "move it away, or give another --name"
        )


def _check_samples(path: Path) -> None:
    """Refuse sample passages that the app could not read."""
    found = read_json(path)
    for number, passage in enumerate(found if isinstance(found, list) else [found], start=1):
        texts = [passage.get("title"), passage.get("text")] if isinstance(passage, dict) else [None]
        questions = passage.get("questions") if isinstance(passage, dict) else None
        if not isinstance(questions, list) or not all(isinstance(text, str) for text in [*texts, *questions]):
            raise UserError(
                f"{path}: passage {number} has no title and text, texts, and questions, a list of texts",
                "mend it, or give --data FILE --overwrite to have others",
            )


def _without_paths(value: Any) -> Any:
    """What a manifest says of an input, without where it lay."""
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key != "path"}
    return [_without_paths(each) for each in value] if isinstance(value, list) else value


def samples(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The first passages of some questions, as `passages.json` has them, each titled with its first words."""
    result: list[dict[str, Any]] = []
    titles: Counter[str] = Counter()
    for passage, of_passage in groupby(questions, key=lambda question: question.context):
        if len(result) == _SAMPLES:
            break
        words = passage.split()
        if not words:
            continue
        title = " ".join(words[:6]) + (" …" if len(words) > 6 else "")
        titles[title] += 1
        if titles[title] > 1:  # a library has each title once
            title += f" ({titles[title]})"
        asked = [question.question for question in of_passage][:_QUESTIONS_EACH]
        result.append({"title": title, "text": passage, "questions": asked})
    return result


def _readable(artifact: Path) -> dict[str, Any]:
    """The manifest of an artifact that the kit can read."""
    if not artifact.is_dir():
        raise UserError(f"{artifact}: no such folder", "give the folder of a Core ML export")
    manifest = read_manifest(artifact)
    if manifest is None:
        raise UserError(
            f"{artifact}: has no {MANIFEST}, by which the app checks its files",
            "make the folder with edge-distil export --format coreml",
        )
    if manifest["kind"] != "coreml":
        raise UserError(
            f"{artifact}: holds a model for {manifest['kind']}, and the app runs Core ML"
            if manifest["kind"] != "checkpoint"
            else f"{artifact}: is a checkpoint, and the app runs Core ML",
            "export it first: edge-distil export MODEL --format coreml",
        )
    if manifest["task"] != "question-answering":
        raise UserError(
            f"{artifact}: is for {manifest['task']}, and the app answers questions",
            "give the export of a model that was fine-tuned with edge-distil finetune --task squad",
        )
    parts = read_json(artifact / "tokenizer.json")
    for part, wanted in _TOKENIZER.items():
        found = (parts.get(part) or {}).get("type")
        if found != wanted:
            raise UserError(
                f"{artifact / 'tokenizer.json'}: its {part} is {found}, and the app's tokeniser is a {wanted}",
                "give a model of the BERT family",
            )
    tokenizer = load_tokenizer(artifact)
    special_tokens(tokenizer)
    check_belongs(tokenizer, read_json(artifact / "config.json")["vocab_size"], artifact)
    return manifest


def _warnings(app: Path, ios: int) -> list[str]:
    """What keeps the model from running on every system that the app is built for."""
    projects = [project for project in sorted(app.rglob("project.pbxproj")) if ".build" not in project.parts]
    oldest = min(
        (
            float(release)
            for project in projects
            for release in re.findall(
                r"IPHONEOS_DEPLOYMENT_TARGET = ([\d.]+);", project.read_text(encoding="utf-8", errors="replace")
            )
        ),
        default=None,
    )
    if oldest is None or oldest >= ios:
        return []
    return [
        f"the model needs iOS {ios}, the app is built for {oldest:g}: raise the project's deployment target, "
        f"or export again with --ios {int(oldest)}"
    ]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
