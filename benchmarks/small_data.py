"""The data and the table of `small_data.sh`.

    python benchmarks/small_data.py split GLUE FOLDER
    python benchmarks/small_data.py runs/small-data

`split` merges SST-2's train and dev sentences, mixes them with a fixed seed, and cuts them 80/10/10 into train.tsv,
dev.tsv and test.tsv, as the reproduction did; and it makes a file of GLUE's QQP layout out of STS-B's dev pairs, since
QQP was not at hand: scores of 4 and more are paraphrases, of 2 and less are not, those between are left out.
"""

import csv
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import result_files

from edge_distil.checkpoints import MANIFEST
from edge_distil.report.tables import markdown
from edge_distil.tasks.texts import GLUE, read_examples

MODELS = {
    "teacher": "teacher, fine-tuned",
    "alone": "student of random weights, gold labels alone",
    "student": "student of random weights, distilled",
    "longer": "the same, up to nine epochs",
}
SETS = {"test": "SST-2, held out", "mrpc": "MRPC, zero-shot", "qqp": "STS-B as QQP, zero-shot"}
# What the reproduction reports: of its student on SST-2, and that it is weak on the other two.
PUBLISHED = {("student", "test"): "about 90", ("student", "mrpc"): "weak", ("student", "qqp"): "weak"}


def split(glue: Path, output: Path) -> None:
    """Write the files that the runs read."""
    examples = [
        example for name in ("train", "dev") for example in read_examples(glue / f"SST-2/{name}.tsv", GLUE["sst-2"])
    ]
    random.Random(0).shuffle(examples)
    first, second = len(examples) * 8 // 10, len(examples) * 9 // 10
    parts = {"train": examples[:first], "dev": examples[first:second], "test": examples[second:]}
    for name, of_part in parts.items():
        rows = [(example.text, example.label) for example in of_part]
        _write(output / f"SST-2/{name}.tsv", ("sentence", "label"), rows)
    pairs = [
        (str(index), str(2 * index), str(2 * index + 1), example.text, example.pair, str(int(score >= 4)))
        for index, example in enumerate(read_examples(glue / "STS-B/dev.tsv", GLUE["sts-b"]))
        if (score := float(example.label)) >= 4 or score <= 2
    ]
    _write(output / "QQP/dev.tsv", ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), pairs)


def _write(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerows([header, *rows])


def collect(runs: Path) -> dict[str, Any]:
    """`results`: the accuracies of every model on every set, and what training took; `runs`: those of every seed.

    A model that was not trained, or not scored on every set, is left out.
    """
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for model in MODELS:
        folders = [
            folder
            for folder in sorted(runs.glob(f"seed-*/{model}"))
            if all(path.is_file() for path in (folder / MANIFEST, *(Path(f"{folder}-{name}.json") for name in SETS)))
        ]
        if not folders:
            continue
        measured = [json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["measured"] for folder in folders]
        row: dict[str, Any] = {"model": model, **{key: measured[0][key] for key in ("parameters", "examples", "steps")}}
        row["seconds_of_all"] = sum(each["seconds"] for each in measured)
        for name in SETS:
            scored = [json.loads(Path(f"{folder}-{name}.json").read_text(encoding="utf-8")) for folder in folders]
            accuracies = [each["accuracy"] for each in scored]
            row[name] = {"examples": scored[0]["examples"], "accuracy": statistics.median(accuracies)}
            scores += [
                {"model": model, "scored_on": name, "seed": int(folder.parent.name[5:]), "accuracy": accuracy}
                for folder, accuracy in zip(folders, accuracies, strict=True)
            ]
        rows.append(row)
    if not rows:
        sys.exit(f"{runs}: holds no runs of small_data.sh")
    return {"seeds": sorted({run["seed"] for run in scores}), "runs": scores, "results": {"models": rows}}


def table(result: dict[str, Any]) -> str:
    """The published figures beside ours."""
    cells = []
    for row in result["results"]["models"]:
        for name, label in SETS.items():
            of_seeds = [
                run["accuracy"] for run in result["runs"] if (run["model"], run["scored_on"]) == (row["model"], name)
            ]
            cells.append(
                [
                    MODELS[row["model"]],
                    f"{label} ({row[name]['examples']:,})",
                    PUBLISHED.get((row["model"], name), "–"),
                    f"{row[name]['accuracy']:.1f}"
                    + (f" ({min(of_seeds):.1f} to {max(of_seeds):.1f})" if len(of_seeds) > 1 else ""),
                    f"{row['parameters'] / 1e6:.0f} M parameters, {row['steps']:,} steps on "
                    f"{row['examples']:,} sentences",
                ]
            )
    made = markdown(("model", "scored on", "published", "ours, median of seeds", "what differs"), cells)
    seconds = sum(row["seconds_of_all"] for row in result["results"]["models"])
    return f"{made}\nSpent on training, all seeds: {seconds / 60:.0f} minutes, each on a core shared with other work.\n"


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/small-data.md", "small-data"): table(result)}


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the table says of it."""
    scores = {row["model"]: row["test"]["accuracy"] for row in result["results"]["models"]}
    return {
        "docs/small-data.md": [
            f"Our student ends at {scores['student']:.0f}",
            f"its dev set no better, at {scores['longer']:.1f}",
            f"a teacher that has only {scores['teacher']:.0f} itself",
        ]
    }


def main() -> None:
    """Make the data, or write the result file and the page's table."""
    if len(sys.argv) == 4 and sys.argv[1] == "split":
        split(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    runs = result_files.runs_folder()
    found = collect(runs)
    command = result_files.script_command("small_data.sh", runs, SEEDS=found["seeds"])
    result = result_files.write("small-data", command=command, configuration=result_files.settings(runs), **found)
    result_files.write_blocks(blocks(result))


if __name__ == "__main__":
    main()
