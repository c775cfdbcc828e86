"""Collects what `ablation.sh` trained and scored, and writes the table of docs/ablation.md.

    python benchmarks/ablation.py runs/ablation

Parts that were not run are left out.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import result_files

from edge_distil.checkpoints import MANIFEST
from edge_distil.report.tables import markdown
from edge_distil.tasks.text_metrics import macro_score
from edge_distil.tasks.texts import GLUE

# What is left out, and by how much the paper's GLUE macro-score changes.
VARIANTS = {
    "triple": ("nothing", 0.0),
    "without-ce": ("L_ce, the teacher's soft targets", -2.96),
    "without-cos": ("L_cos, the hidden states' directions", -1.46),
    "without-mlm": ("L_mlm, the masked words", -0.31),
    "random": ("the teacher's weights to start from", -3.69),
}


def collect(runs: Path) -> dict[str, Any]:
    """`results`: each variant's median scores and macro-score, what training took; `runs`: every seed's score and time.

    Seeds and tasks are those that every variant was fine-tuned with.
    """

    def measured(folder: Path) -> dict[str, Any]:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["measured"])

    names = [name for name in VARIANTS if any(runs.glob(f"{name}/seed-*/wnli/{MANIFEST}"))]
    if "triple" not in names:
        sys.exit(f"{runs}: has no student with nothing left out that was fine-tuned: what changes cannot be told")
    seeds = sorted(int(folder.name.removeprefix("seed-")) for folder in runs.glob(f"{names[0]}/seed-*"))
    seeds = [seed for seed in seeds if all((runs / f"{name}/seed-{seed}/wnli/{MANIFEST}").is_file() for name in names)]
    folders = [runs / f"{name}/seed-{seed}" for name in names for seed in seeds]
    tasks = [task for task in GLUE if all((folder / task / MANIFEST).is_file() for folder in folders)]
    rows = []
    scores = []
    for name in names:
        found = {(task, seed): measured(runs / f"{name}/seed-{seed}/{task}") for task in tasks for seed in seeds}
        scores += [
            {"variant": name, "task": task, "seed": seed, "score": each["dev_score"], "seconds": each["seconds"]}
            for (task, seed), each in found.items()
        ]
        medians = {task: statistics.median(found[task, seed]["dev_score"] for seed in seeds) for task in tasks}
        trained = measured(runs / name / "student")
        rows.append(
            {
                "variant": name,
                "scores": medians,
                "macro_score": statistics.median(
                    macro_score({task: found[task, seed]["dev_score"] for task in tasks}) for seed in seeds
                ),
                "training": {key: trained[key] for key in ("steps", "tokens", "seconds", "mlm_loss")},
                "fine_tuning_seconds": sum(each["seconds"] for each in found.values()),
            }
        )
    return {"seeds": seeds, "runs": scores, "results": {"variants": rows}}


def spread(result: dict[str, Any], variant: str) -> tuple[float, float]:
    """The lowest and the highest macro-score of one seed."""
    runs = [run for run in result["runs"] if run["variant"] == variant]
    of_seeds = [macro_score({r["task"]: r["score"] for r in runs if r["seed"] == seed}) for seed in result["seeds"]]
    return min(of_seeds), max(of_seeds)


def table(result: dict[str, Any]) -> str:
    """The paper's changes beside ours, and the tasks' scores."""
    rows = result["results"]["variants"]
    whole = next(row for row in rows if row["variant"] == "triple")
    tasks = list(whole["scores"])
    cells = []
    for row in rows:
        left_out, paper = VARIANTS[row["variant"]]
        low, high = spread(result, row["variant"])
        cells.append(
            [
                left_out,
                *(
                    "–" if row is whole else _signed(change)
                    for change in (paper, row["macro_score"] - whole["macro_score"])
                ),
                f"{row['macro_score']:.2f} ({low:.2f} to {high:.2f})",
                *(f"{row['scores'][task]:.1f}" for task in tasks),
                f"{row['training']['steps']:,} steps, {row['training']['tokens'] / 1e6:.1f} M tokens; spent "
                f"{(row['training']['seconds'] + row['fine_tuning_seconds']) / 60:.0f} minutes on a shared core",
            ]
        )
    return markdown(("left out", "paper: change", "ours: change", "our macro-score", *tasks, "what differs"), cells)


def _signed(change: float) -> str:
    return f"{change:+.2f}".replace("-", "−")


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/ablation.md", "ablation"): table(result)}


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the table says of it."""
    rows = {row["variant"]: row for row in result["results"]["variants"]}
    training = [row["training"]["seconds"] for row in rows.values()]
    spent = sum(training) + sum(row["fine_tuning_seconds"] for row in rows.values())
    # Variants and seeds do the same work: the fastest of each kind was the least disturbed.
    fastest = len(rows) * (min(training) + len(result["seeds"]) * sum(_fastest(result["runs"]).values()))
    similarity = [rows[name]["scores"]["sts-b"] for name in ("triple", "random")]
    return {
        "docs/ablation.md": [
            f"In all {spent / 3600:.1f} hours of a core",
            f"500 steps took {min(training):,.0f} to {max(training):,.0f} s",
            f"{fastest / 3600:.1f} hours, {fastest / 7200:.1f} of two cores",
            f"falls from {similarity[0]:.0f} to {similarity[1]:.0f} without them",
        ]
    }


def _fastest(runs: list[dict[str, Any]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for run in runs:
        seconds[run["task"]] = min(run["seconds"], seconds.get(run["task"], run["seconds"]))
    return seconds


def main() -> None:
    """Write the result file and the page's table."""
    runs = result_files.runs_folder()
    found = collect(runs)
    command = result_files.script_command("ablation.sh", runs, SEEDS=found["seeds"])
    result = result_files.write("ablation", command=command, configuration=result_files.settings(runs), **found)
    result_files.write_blocks(blocks(result))


if __name__ == "__main__":
    main()
