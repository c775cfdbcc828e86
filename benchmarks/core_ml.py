"""What each precision and layout of a Core ML export costs and keeps.

    python benchmarks/core_ml.py --model "starter student=quickstart/student-qa" [--model "NAME=CHECKPOINT=SQUAD_FILE"]
        [--questions 300] [--ios 18] [--only answers|conversions]

Every checkpoint is exported in all precisions and both layouts; size, answers and errors are those of the export's own
check, which runs the packages under fp16 rounding. `--max-drop 100`, so that a precision is shown as it is and not with
parts kept in more bits. Then each of them, and a model of DistilBERT's shape with random weights, is converted to each
precision and layout in a process of its own, for time and memory. `--only` keeps the other half of an earlier result.
Writes `benchmarks/results/core-ml.json`, and tables and plot of docs/coreml.md.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args

import numpy as np
import result_files

from edge_distil import starter
from edge_distil.bench import Shape, random_model
from edge_distil.models import load_model
from edge_distil.report.tables import markdown
from edge_distil.runtimes.mil import PACKAGES
from edge_distil.tasks.squad import Question, parse_squad, read_squad
from exporters import CoreMLOptions, export
from exporters.calibration import calibrate
from exporters.coreml import CoreMLPlan, write_package
from exporters.coreml.plan import Layout, Precision, precisions_for
from exporters.encoder import PlainEncoder
from exporters.parts import calibrated_parts

PLOT = "docs/core-ml-precisions.png"
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FIGURES = (
    "megabytes",
    "f1",
    "exact_match",
    "same_answers",
    "decibels",
    "max_logit_difference",
    "same_weights_decibels",
)
TOKENS = 384
SHAPE = "DistilBERT's shape"


def of_checkpoint(name: str, folder: Path, questions: list[Question], ios: Any) -> list[dict[str, Any]]:
    """A row for every precision and layout of one checkpoint, and one for the checkpoint itself."""
    rows: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        with TemporaryDirectory() as scratch:
            result = export(
                folder,
                Path(scratch) / "out",
                format="coreml",
                questions=questions,
                max_drop=100,
                coreml=CoreMLOptions(tuple(precisions_for(ios)), layout, ios),
                progress=lambda step, layout=layout: print(name, layout, step, file=sys.stderr),  # type: ignore[misc]
            )
        measured = result["gate"]
        if not rows:
            rows.append({"model": name, "layout": "", "precision": "checkpoint", **measured["checkpoint"]})
        for precision in precisions_for(ios):
            figures = {figure: measured[precision][figure] for figure in FIGURES}
            rows.append({"model": name, "layout": layout, "precision": precision, "ios": ios, **figures})
    return rows


def peak_bytes() -> int:
    """The most memory that this process had. Not `getrusage`'s, which begins with that of the process before `exec`."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


def convert_one(model: str, precision: Precision, layout: Layout, ios: Any) -> dict[str, Any]:
    """Bytes, seconds and peak memory of converting a checkpoint, or a shape by its name, in this process."""
    is_shape = model in get_args(Shape)
    loaded = random_model(cast(Shape, model)) if is_shape else load_model(model, "question-answering")
    plain = PlainEncoder.from_library(loaded, 102)
    plan = CoreMLPlan(precision, layout=layout, ios=ios, lengths=(TOKENS,))
    begun = time.perf_counter()
    if precision == "w8a8":
        chance = np.random.default_rng(0)
        samples = [chance.integers(5, plain.config.vocab_size, (1, TOKENS)) for _ in range(8)]
        plan = replace(plan, activations=calibrate(plain, calibrated_parts(plain), samples))
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / PACKAGES[precision]
        write_package(plain, path, plan)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {
        "bytes": size,
        "seconds": round(time.perf_counter() - begun, 2),
        "peak_bytes": peak_bytes(),
    }


def convert_apart(model: str, precision: str, layout: str, ios: int) -> dict[str, Any]:
    """`convert_one` in a process of its own, so that its memory is that of one conversion."""
    command = [sys.executable, __file__, "--ios", str(ios), "--one", model, precision, layout]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, write the result, the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="NAME=CHECKPOINT or NAME=CHECKPOINT=SQUAD_FILE")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--ios", type=int, default=18, choices=(16, 17, 18))
    parser.add_argument("--only", choices=("answers", "conversions"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(convert_one(*given.one, given.ios)))
        return
    models = [entry.split("=") for entry in given.model]
    earlier = result_files.read("core-ml") if given.only else {}
    questions, result = given.questions, {}
    if given.only == "conversions":
        questions, result["answers"] = earlier["configuration"]["questions"], earlier["results"]["answers"]
    else:
        result["answers"] = []
        for name, folder, *data in models:
            asked = read_squad(Path(data[0])) if data else parse_squad(starter.questions("test"), "starter set, test")
            asked = [question for question in asked if question.answers][: given.questions]
            result["answers"] += of_checkpoint(name, Path(folder), asked, given.ios)
    if given.only == "answers":
        result["conversions"] = earlier["results"]["conversions"]
    else:
        result["conversions"] = []
        for name, folder, *_ in [*models, [SHAPE, "distilbert"]]:
            for layout in LAYOUTS:
                for precision in precisions_for(given.ios):
                    row = {"model": name, "layout": layout, "precision": precision, "ios": given.ios}
                    result["conversions"].append(row | convert_apart(folder, precision, layout, given.ios))
                    print(result["conversions"][-1], file=sys.stderr)
    written = result_files.write(
        "core-ml",
        command=result_files.command_line(),
        configuration={"questions": questions, "ios": given.ios},
        seeds=[0],
        results=result,
    )
    result_files.write_blocks(blocks(written))
    for path, draw in plots(written).items():
        draw(result_files.ROOT / path)


def blocks(written: dict[str, Any]) -> result_files.Blocks:
    """The tables of docs/coreml.md."""
    result = written["results"]
    conversions = {(row["model"], row["precision"], row["layout"]): row for row in result["conversions"]}
    table = []
    for row in result["answers"]:
        converted = conversions.get((row["model"], row["precision"], row["layout"]))
        table.append(
            [
                row["model"],
                f"{row['precision']} {row['layout']}",
                f"{row['megabytes']:.1f}" if converted else "",
                f"{row['f1']:.1f}",
                f"{row['same_answers']:.0f} %" if converted else "",
                f"{row['decibels']:.0f}" if converted else "",
                f"{row['max_logit_difference']:.2g}" if converted else "",
                *((f"{converted['seconds']:.1f}", f"{converted['peak_bytes'] / 1e9:.1f}") if converted else ("", "")),
            ]
        )
    header = ("model", "package", "MB", "F1", "same answers", "dB", "worst logit error", "seconds", "peak GB")
    made = {("docs/coreml.md", "core-ml"): markdown(header, table)}
    shapes = [
        [
            f"{row['precision']} {row['layout']}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['seconds']:.0f}",
            f"{row['peak_bytes'] / 1e9:.1f}",
        ]
        for row in result["conversions"]
        if row["model"] == SHAPE
    ]
    made["docs/coreml.md", "core-ml-shape"] = markdown(("package", "MB", "seconds", "peak GB"), shapes)
    return made


def plots(written: dict[str, Any]) -> result_files.Plots:
    """The picture in docs/coreml.md."""
    rows = [
        {name: row.get(name) for name in ("model", "precision", "megabytes", "f1")}
        for row in written["results"]["answers"]
        if row["layout"] == "plain"
    ]
    return {PLOT: result_files.Plot(rows, plot)}


def plot(rows: list[dict[str, Any]], path: Path, metadata: dict[str, str]) -> None:
    """Size against F1 of the plain layout, a panel for each model."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5 * len(models), 3.5), layout="constrained")
    for axes, model in zip(np.atleast_1d(figure.subplots(1, len(models))), models, strict=True):
        for row in (row for row in rows if row["model"] == model):
            axes.scatter(row["megabytes"], row["f1"], color="tab:blue")
            axes.annotate(row["precision"], (row["megabytes"], row["f1"]), textcoords="offset points", xytext=(5, 5))
        axes.set(title=model, xlabel="megabytes", ylabel="F1", xlim=(0, None))
        axes.margins(0.15)
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=110, metadata=metadata)


if __name__ == "__main__":
    main()
