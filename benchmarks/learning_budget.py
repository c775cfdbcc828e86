"""Writes the table of docs/learning-budget.md: what the published models were trained with, and what ours were.

    python benchmarks/learning_budget.py

Nothing is measured: ours is `real_run.sh`, from its result file.
"""

from typing import Any

import result_files

from edge_distil.report.tables import markdown

# The paper's summary: millions of parameters, devices and time, device-hours, data.
PAPER = [
    ("BERT-base / large", "110 / 340", "8 V100 × 12 days, or 280 V100 × 1 day", "2,304 / 6,720", "16 GB"),
    ("RoBERTa-base / large", "110 / 340", "1,024 V100 × 1 day", "24,576", "160 GB"),
    ("XLNet-base / large", "~110 / ~340", "512 TPU × 2.5 days", "30,720", "16 / 113 GB"),
    ("DistilBERT", "66", "8 V100 × 3.5 days", "672", "16 GB"),
]
STAGES = {"pretrain": "our teacher's masked-LM head", "train": "our student"}


def table(result: dict[str, Any]) -> str:
    """The published budgets, and ours under them."""
    rows = [[model, "paper", *figures] for model, *figures in PAPER]
    for stage, label in STAGES.items():
        measured = result["results"]["training"][stage]["metrics"]
        hours = (
            measured["seconds"] / 3600
            if "seconds" in measured
            else result["results"]["training"][stage]["seconds"] / 3600
        )
        rows.append(
            [
                label,
                "ours",
                f"{measured['parameters'] / 1e6:.0f}",
                f"{result['machine']['processor']} × {60 * hours:.0f} minutes",
                f"{hours:.2f} (of a CPU)",
                f"{measured['tokens'] / 1e6:.1f} M tokens",
            ]
        )
    return markdown(("model", "", "M parameters", "training", "device-hours", "data"), rows)


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the real run's result file."""
    return {("docs/learning-budget.md", "learning-budget"): table(result)}


def main() -> None:
    """Write the page's table."""
    result_files.write_blocks(blocks(result_files.read("real-run")))


if __name__ == "__main__":
    main()
