"""Collects what `real_run.sh` measured into one result file, and writes its tables into docs/real-run.md.

    python benchmarks/real_run.py runs/real

The result file has the machine, the versions, and every stage's figures; the document's tables stand between two marks
and hold nothing that is not in the file.
"""

import json
from pathlib import Path
from typing import Any

import result_files

from edge_distil.report import latency
from edge_distil.report.tables import markdown, megabytes

TRAINING = {
    "pretrain": "pretrain: a masked-LM head for the encoder",
    "train": "train: the student",
    "finetune-teacher": "finetune: the teacher",
    "finetune-student": "finetune: the student, gold answers alone",
    "finetune-distilled": "finetune: the student, second distillation",
}
SCORED = {
    "qa-teacher": "teacher, 6 layers",
    "qa-student": "student, 3 layers, gold answers alone",
    "qa-student-distilled": "student, 3 layers, second distillation",
    "qa-student-distilled-onnx-fp32": "the same, ONNX fp32",
    "qa-student-distilled-onnx": "the same, ONNX int8",
}
EXPORTS = ("export-qa-teacher", "export-qa-student-distilled", "export-coreml")


def collect(runs: Path) -> dict[str, Any]:
    """Everything that the stages printed. A stage that was not run raises FileNotFoundError, which names its file."""

    def read(name: str) -> Any:
        text = (runs / f"{name}.json").read_text(encoding="utf-8")
        return json.loads(text.replace(f"{Path.cwd()}/", ""))  # paths of this machine say nothing on another

    return {
        "training": {name: read(name) for name in TRAINING},
        "scores": {name: read(f"evaluate-{name}") for name in SCORED},
        "exports": {name: read(name) for name in EXPORTS},
        "asked": read("asked"),
        "bench": read("bench"),
    }


def tables(result: dict[str, Any]) -> str:
    """The document's tables, in Markdown."""
    teacher = result["scores"]["qa-teacher"]["f1"]
    scores = [
        [label, f"{row['exact_match']:.2f}", f"{row['f1']:.2f}", f"{100 * row['f1'] / teacher:.1f}"]
        for name, label in SCORED.items()
        for row in [result["scores"][name]]
    ]
    stages = [
        [
            label,
            f"{row['metrics']['steps']:,}",
            f"{row['metrics']['parameters'] / 1e6:.1f}",
            f"{row['seconds'] / 60:.1f}",
        ]
        for name, label in TRAINING.items()
        for row in [result["training"][name]]
    ]
    files = [
        [f"{export['artifact'].split('/')[-1]}/{file['path']}", file["precision"], megabytes(file["bytes"])]
        for export in result["exports"].values()
        for file in export["files"]
    ]
    # Both on the masks of `train`, which hide rare words more often than those of `pretrain`.
    trained = result["training"]["train"]["metrics"]
    masked = [
        [name, f"{trained[f'{prefix}mlm_loss']:.3f}", f"{trained[f'{prefix}mlm_accuracy']:.1f}"]
        for name, prefix in (("teacher", "teacher_"), ("student", ""))
    ]
    asked = [
        [row["article"], row["question"], row["gold"][0], row["text"], f"{row['score']:.2f}"] for row in result["asked"]
    ]
    parts = [
        (
            f"SQuAD dev, {result['scores']['qa-teacher']['examples']:,} questions",
            ("model", "EM", "F1", "% of the teacher's F1"),
            scores,
        ),
        ("Three questions to the int8 student", ("article", "question", "gold", "answer", "score"), asked),
        ("Masked-LM on held-out blocks, rare words masked more often", ("model", "loss", "accuracy %"), masked),
        ("Stages", ("stage", "steps", "million parameters", "minutes"), stages),
        ("Files", ("file", "precision", "size"), files),
        (
            f"Latency, batch 1, {result['bench']['threads']} threads",
            *latency.times(result["bench"]),
        ),
    ]
    return "\n".join(f"### {title}\n\n{markdown(headers, rows)}" for title, headers, rows in parts)


def main() -> None:
    """Write the result file and the document's tables."""
    runs = result_files.runs_folder()
    results = collect(runs)
    command = result_files.script_command("real_run.sh", runs)
    given = result_files.settings(runs)
    result = result_files.write("real-run", command=command, configuration=given, seeds=[0], results=results)
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/real-run.md", "tables"): tables(result["results"])}


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the tables says of them."""
    scores = result["results"]["scores"]
    distilled, alone = (scores[name]["f1"] for name in ("qa-student-distilled", "qa-student"))
    examples = scores["qa-teacher"]["examples"]
    return {
        "docs/real-run.md": [
            f"the second distillation scored higher (F1 {distilled:.1f} against {alone:.1f}, one seed each",
            f"{examples:,} on 8 others to score on",
        ]
    }


if __name__ == "__main__":
    main()
