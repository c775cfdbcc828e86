"""Collects what `downstream.sh` measured into one result file, and writes the tables of docs/downstream.md.

    python benchmarks/downstream.py runs/downstream

Parts that were not run are left out, dashes in the tables.
"""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import result_files

from edge_distil.checkpoints import MANIFEST
from edge_distil.report.tables import markdown
from edge_distil.tasks.text_metrics import macro_score
from edge_distil.tasks.texts import GLUE

# Sanh et al., 2019, tables 1 and 2: BERT-base and DistilBERT.
PAPER_GLUE = {
    "cola": (56.3, 51.3), "mnli": (86.7, 82.2), "mrpc": (88.6, 87.5), "qnli": (91.8, 89.2), "qqp": (89.6, 88.5),
    "rte": (69.3, 59.9), "sst-2": (92.7, 91.3), "sts-b": (89.0, 86.9), "wnli": (53.5, 56.3),
}  # fmt: skip
PAPER_IMDB = (93.46, 92.82)
PAPER_PARAMETERS = ("110", "66")
PAPER_SQUAD = {"squad-teacher": (81.2, 88.5), "squad-student": (77.7, 85.8), "squad-distilled": (79.1, 86.9)}
# What the paper's models were trained on: examples of GLUE, of IMDb and of SQuAD.
EXAMPLES = {
    "cola": 8551, "mnli": 392702, "mrpc": 3668, "qnli": 104743, "qqp": 363846, "rte": 2490, "sst-2": 67349,
    "sts-b": 5749, "wnli": 635, "reviews": 25000, "squad": 87599,
}  # fmt: skip
COLUMNS = {
    "teacher": "our teacher",
    "student": "our student",
    "distilled": "our student, second distillation",
}
MODELS = {
    "squad-teacher": "teacher",
    "squad-student": "student, gold answers alone",
    "squad-distilled": "student, second distillation",
}


def scores_of(folders: dict[int, Path], name: str) -> dict[str, Any]:
    """Of the same model with several seeds, a folder each, the scores under a dev metric, and what it took."""
    found = {seed: _measured(folder) for seed, folder in folders.items()}
    scores = {seed: each[f"dev_{name}"] for seed, each in found.items()}
    # The figures beside the median are those of the run nearest to it.
    nearest = min(found.values(), key=lambda each: abs(each[f"dev_{name}"] - statistics.median(scores.values())))
    kept = {key: nearest[key] for key in ("examples", "steps", "parameters", "seconds")}
    kept["seconds_of_all"] = sum(each["seconds"] for each in found.values())
    return {"metric": name, "of_seeds": scores, "median": statistics.median(scores.values()), **kept} | {
        key: value for key, value in nearest.items() if key.startswith("dev_") and isinstance(value, (int, float))
    }


def _measured(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["config"]["seeds"] != 1:
        sys.exit(f"{folder}: is the best of several seeds, where one is wanted; train it again without --seeds")
    return dict(manifest["measured"])


def collect(runs: Path) -> dict[str, Any]:
    """The figures of every folder that is there as `results`, the score of every seed as `runs`, and the `seeds`."""
    found: dict[str, Any] = {}
    runs_of: list[dict[str, Any]] = []

    def add(entry: dict[str, Any], **named: str) -> dict[str, Any]:
        scores = entry.pop("of_seeds").items()
        runs_of.extend({**named, "seed": seed, "metric": entry["metric"], "score": score} for seed, score in scores)
        return entry

    def folders(name: str) -> dict[int, Path]:
        there = [folder for folder in runs.glob("seed-*") if (folder / name / MANIFEST).is_file()]
        return {seed: runs / f"seed-{seed}" / name for seed in sorted(int(each.name[5:]) for each in there)}

    for model in ("teacher", "student", "distilled"):
        for task in GLUE:
            if of_task := folders(f"glue-{model}/{task}"):
                found.setdefault(f"glue-{model}", {})[task] = add(
                    scores_of(of_task, "score"), model=f"glue-{model}", task=task
                )
        if of_reviews := folders(f"reviews-{model}"):
            found[f"reviews-{model}"] = add(scores_of(of_reviews, "score"), model=f"reviews-{model}")
    for name in MODELS:
        if of_squad := folders(name):
            found[name] = add(scores_of(of_squad, "f1"), model=name)
    if not found:
        sys.exit(f"{runs}: holds no runs of downstream.sh")
    return {"seeds": sorted({run["seed"] for run in runs_of}), "runs": runs_of, "results": found}


def spread(result: dict[str, Any], model: str, task: str | None = None) -> str:
    """A median with the lowest and the highest of its seeds; a dash where there is none."""
    entry = result["results"].get(model, {})
    entry = entry.get(task, {}) if task else entry
    if not entry:
        return "–"
    seeds = [run["score"] for run in result["runs"] if (run["model"], run.get("task")) == (model, task)]
    return f"{entry['median']:.1f}" + (f" ({min(seeds):.1f} to {max(seeds):.1f})" if len(seeds) > 1 else "")


def trained_on(task: str, entries: Iterable[dict[str, Any]]) -> str:
    """How many examples ours learnt from, and of how many the paper's."""
    ours = next(entry["examples"] for entry in entries if entry)
    return "as many examples" if ours == EXAMPLES[task] else f"{ours:,} examples for {EXAMPLES[task]:,}"


def tables(result: dict[str, Any]) -> str:
    """The document's tables, in Markdown."""
    found = result["results"]
    of_models = [found.get(f"glue-{model}", {}) for model in COLUMNS]
    tasks = [task for task in GLUE if any(task in scores for scores in of_models)]
    rows = [
        [
            task,
            *(f"{value:.1f}" for value in PAPER_GLUE[task]),
            *(spread(result, f"glue-{model}", task) for model in COLUMNS),
            trained_on(task, (scores.get(task, {}) for scores in of_models)),
        ]
        for task in tasks
    ]
    if tasks and all(task in scores for task in tasks for scores in of_models):
        paper = [macro_score({task: PAPER_GLUE[task][column] for task in tasks}) for column in (0, 1)]
        ours = [macro_score({task: scores[task]["median"] for task in tasks}) for scores in of_models]
        rows.append([f"macro-score of {len(tasks)} tasks", *(f"{value:.1f}" for value in (*paper, *ours)), ""])
        millions = [f"{next(iter(scores.values()))['parameters'] / 1e6:.1f}" for scores in of_models]
        rows.append(["M parameters", *PAPER_PARAMETERS, *millions, ""])
    headers = ("task", "paper: BERT-base", "paper: DistilBERT", *COLUMNS.values(), "what differs: trained on")
    parts = [("GLUE, dev sets", headers, rows)]
    if any(f"reviews-{model}" in found for model in COLUMNS):
        cells = [spread(result, f"reviews-{model}") for model in COLUMNS]
        cells.append(trained_on("reviews", (found.get(f"reviews-{model}", {}) for model in COLUMNS)))
        parts.append(
            (
                "Film reviews (the paper: IMDb), accuracy",
                headers,
                [["reviews", *(f"{value:.2f}" for value in PAPER_IMDB), *cells]],
            )
        )
    squad = [
        [
            label,
            " / ".join(f"{value:.1f}" for value in PAPER_SQUAD[name]),
            f"{found[name]['dev_exact_match']:.1f} / {found[name]['dev_f1']:.1f}",
            spread(result, name),
            f"{found[name]['examples']:,} windows for {EXAMPLES['squad']:,} questions",
        ]
        for name, label in MODELS.items()
        if name in found
    ]
    if squad:
        headers = ("model", "paper: EM / F1", "ours: EM / F1", "F1 over seeds", "what differs: trained on")
        parts.append(("SQuAD", headers, squad))
    made = "\n".join(f"### {title}\n\n{markdown(names, cells)}" for title, names, cells in parts)
    spent = hours(result, glue=True) + hours(result, glue=False)
    return f"{made}\nSpent on fine-tuning, all seeds: {spent:.1f} hours, on cores shared with other work.\n"


def hours(result: dict[str, Any], *, glue: bool) -> float:
    """What training for GLUE, or for the other tasks, took one core."""
    seconds = 0.0
    for name, found in result["results"].items():
        if name.startswith("glue-") == glue:
            seconds += sum(entry["seconds_of_all"] for entry in ([found] if "metric" in found else found.values()))
    return seconds / 3600


def main() -> None:
    """Write the result file and the document's tables."""
    runs = result_files.runs_folder()
    found = collect(runs)
    command = result_files.script_command("downstream.sh", runs, SEEDS=found["seeds"])
    result = result_files.write("downstream", command=command, configuration=result_files.settings(runs), **found)
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/downstream.md", "tables"): tables(result)}


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the tables says of them."""
    reviews = result["results"]["reviews-teacher"]["examples"]
    first = next(run["score"] for run in result["runs"] if run["model"] == "squad-teacher")
    similarity = [
        run["score"] for run in result["runs"] if (run["model"], run.get("task")) == ("glue-student", "sts-b")
    ]
    exact_match = result["results"]["squad-teacher"]["dev_exact_match"]
    return {
        "docs/downstream.md": [
            f"the reviews are {reviews:,} and 400 long ones",
            f"{exact_match:.1f} / {first:.1f}, the same as the first seed here",
            f"Table 1 took {hours(result, glue=True) / 2:.1f} hours of two cores",
            f"table 2 {hours(result, glue=False) / 2:.1f}.",
            f"Its student ends anywhere between {min(similarity):.0f} and {max(similarity):.0f},",
        ]
    }


if __name__ == "__main__":
    main()
