"""Writes every table and plot of the documents anew from `benchmarks/results/`, and measures nothing.

make docs-figures
"""

import importlib
from collections.abc import Iterator
from typing import Any

import result_files

# The result files that documents are made from, each with a script that does so.
SCRIPTS = [
    ("ablation", "ablation"),
    ("core-ml", "core_ml"),
    ("corpus-memory", "corpus_memory"),
    ("downstream", "downstream"),
    ("finetune-speed", "finetune_speed"),
    ("model-size", "model_size"),
    ("onnx-latency", "onnx_latency"),
    ("on-device", "on_device"),
    ("quickstart", "quickstart"),
    ("real-run", "learning_budget"),
    ("real-run", "real_run"),
    ("run-core-ml", "run_core_ml"),
    ("small-data", "small_data"),
    ("startup", "startup"),
    ("swift-tokenizer", "swift_tokenizer"),
    ("train-step", "train_step"),
]


def studies() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each script and what its result file holds. A script has `blocks`, `plots` where it draws, and `prose`
    where a text around its tables has figures of theirs: a person changes those, and a test says where."""
    for name, script in SCRIPTS:
        if result_files.path_of(name).is_file():
            yield importlib.import_module(script), result_files.read(name)


def main() -> None:
    """Write them all."""
    for script, result in studies():
        result_files.write_blocks(script.blocks(result))
        for path, plot in getattr(script, "plots", lambda _: {})(result).items():
            plot(result_files.ROOT / path)


if __name__ == "__main__":
    main()
