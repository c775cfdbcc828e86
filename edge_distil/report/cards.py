"""The model card of a checkpoint: what it is, what it was made from, what was measured, how to use it."""

import json
from collections.abc import Mapping
from typing import Any

_USE = {
    "masked-lm": "edge-distil finetune --task squad --model FOLDER",
    "text-classification": "edge-distil evaluate FOLDER --task {data_task} --data DATA",
    "question-answering": 'edge-distil ask FOLDER "your question" --context passage.txt',
}


def checkpoint_card(
    *,
    title: str,
    task: str,
    data_task: str = "",
    command: str,
    inputs: Mapping[str, Any],
    measured: Mapping[str, Any],
    machine: Mapping[str, Any],
    plotted: bool = False,
) -> str:
    """The Markdown of a model card, with the metadata block that the Hugging Face hub reads.

    `machine` is what `machine.describe_machine` gives; `data_task` is what `--task` called a text
    classifier's task; `plotted` says that `loss.png` lies beside the card.
    """
    rows = "\n".join(
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in measured.items()
    )
    sources = "\n".join(f"* {name}: `{json.dumps(value, ensure_ascii=False)}`" for name, value in inputs.items())
    pipeline = {"masked-lm": "fill-mask"}.get(task, task)
    curve = "\n![The losses against the steps](loss.png)\n" if plotted else ""
    return f"""---
library_name: transformers
pipeline_tag: {pipeline}
language: en
---
# {title}

Made by `{command}`, with the options in `command.yaml`.

Made from:

{sources}

Measured when it was made:

| figure | value |
|---|---|
{rows}
| machine | {machine["gpu"] or machine["processor"]}, {machine["cores"]} cores |
{curve}
Use it:

    {_USE[task].format(data_task=data_task)}
"""
