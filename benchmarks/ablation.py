"""Collects what `ablation.sh` trained and scored, and writes the table of docs/ablation.md.

    python benchmarks/ablation.py runs/ablation

Parts that were not run are left out.
"""

import json
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
    "triple": ("nothing", None),
    "without-ce": ("L_ce, the teacher's soft targets", -2.96),
    "without-cos": ("L_cos, the hidden states' directions", -1.46),
    "without-mlm": ("L_mlm, the masked words", -0.31),
    "random": ("the teacher's weights to start from", -3.69),
}


def collect(runs: Path) -> list[dict[str, Any]]:
    """Scores on the tasks that every variant was fine-tuned on, their mean, and what training took."""

    def measured(folder: Path) -> dict[str, Any]:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["measured"])

    names = [name for name in VARIANTS if (runs / name / "glue" / "wnli" / MANIFEST).is_file()]
    rows = []
    for name in names:
        of_tasks = {
            task: measured(runs / name / "glue" / task)
            for task in GLUE
            if all((runs / each / "glue" / task / MANIFEST).is_file() for each in names)
        }
        trained = measured(runs / name / "student")
        scores = {task: each["dev_score"] for task, each in of_tasks.items()}
        rows.append(
            {
                "variant": name,
                "scores": scores,
                "macro_score": macro_score(scores),
                "training": {key: trained[key] for key in ("steps", "tokens", "seconds", "mlm_loss")},
                "fine_tuning_seconds": sum(each["seconds"] for each in of_tasks.values()),
            }
        )
    return rows


def table(result: dict[str, Any]) -> str:
    """The paper's changes beside ours, and the tasks' scores."""
    rows = result["results"]["variants"]
    whole = next(row for row in rows if row["variant"] == "triple")
    tasks = list(whole["scores"])
    cells = []
    for row in rows:
        left_out, paper = VARIANTS[row["variant"]]
        change = row["macro_score"] - whole["macro_score"]
        cells.append(
            [
                left_out,
                "–" if paper is None else f"{paper:+.2f}".replace("-", "−"),
                "–" if paper is None else f"{change:+.2f}".replace("-", "−"),
                f"{row['macro_score']:.2f}",
                *(f"{row['scores'][task]:.1f}" for task in tasks),
                f"{row['training']['steps']:,} steps, {row['training']['tokens'] / 1e6:.1f} M tokens; spent "
                f"{(row['training']['seconds'] + row['fine_tuning_seconds']) / 60:.0f} minutes on a shared core",
            ]
        )
    return markdown(("left out", "paper: change", "ours: change", "our macro-score", *tasks, "what differs"), cells)


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/ablation.md", "ablation"): table(result)}


def main() -> None:
    """Write the result file and the page's table."""
    variants = collect(Path(sys.argv[1]))
    result = result_files.write("ablation", command="benchmarks/ablation.sh", seeds=[0], results={"variants": variants})
    result_files.write_blocks(blocks(result))


if __name__ == "__main__":
    main()
