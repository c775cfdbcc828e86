"""The README of an export: what it is, how to load it, what the gate measured."""

from collections.abc import Mapping
from typing import Any

_ONNX = """\
```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("{graph}", providers=["CPUExecutionProvider"])
encoding = tokenizer.encode({texts})
{outputs} = session.run(
    None,
    {{
        "input_ids": np.array([encoding.ids], "{input_type}"),
        "attention_mask": np.array([encoding.attention_mask], "{input_type}"),
    }},
)
```

{graphs} They take `input_ids` and `attention_mask`, {input_type} `[batch, length]`; segments and positions are
computed inside. Texts were cut at {max_length} tokens for the check below. {pipelines}
{of_text}"""
_OF_TEXT = """
{paths}: with the tokeniser inside, for texts in place of token ids. Register the library of onnxruntime-extensions with
the session's options first.
"""
_PIPELINES = {
    "int64": "The layout is the one that transformers.js and optimum look for.",
    "int32": "transformers.js and optimum give int64, and cannot run these.",
}
_ANSWERS = """\
 The question-answering pipeline of transformers.js puts no bound on the length of an answer, and gives its text as the
tokeniser has it, in lower case where that lower-cases."""
_COREML = """\
Drag a package and `tokenizer.json` into an Xcode project; Xcode makes a Swift class of the package.

{graphs} Made for iOS {ios} and macOS {macos} or later. They take `input_ids` and `attention_mask`, int32
`[1, length]`, {lengths} tokens long and padded to that with a mask of 0, and give {outputs} in float32; segments and
positions are computed inside. The metadata of a package has what the tokeniser must know.

On any machine, `edge-distil verify`, `evaluate`, `ask` and `bench` run the packages of this folder, operation by
operation.
"""
_OPENVINO = """\
```python
import openvino
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
model = openvino.compile_model("{graph}", "CPU", {{"PERFORMANCE_HINT": "LATENCY"}})
encoding = tokenizer.encode({texts})
found = model({{"input_ids": [encoding.ids], "attention_mask": [encoding.attention_mask]}})
{outputs} = [found[index] for index in range({count})]
```

{graphs} The weights lie beside each in a `.bin` file. Both take `input_ids` and `attention_mask`, int64
`[batch, length]`, and were checked with up to {max_length} tokens; segments and positions are computed inside.
"""
FAMILY_PLOT = "precisions.png"
_HOW_TO = {"onnx": _ONNX, "coreml": _COREML, "openvino": _OPENVINO}
_NAMES = {"onnx": "ONNX", "coreml": "Core ML", "openvino": "OpenVINO"}
_TEXTS = {
    "question-answering": '"Who wrote it?", "Ada wrote it."',
    "text-classification": '"What a film."',
    "masked-lm": '"The capital is [MASK]."',
}


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _measured_table(measured: Mapping[str, Any]) -> str:
    """One row for each artifact, one column for each figure; counts of operations are left to the manifest."""
    rows = {what: figures for what, figures in measured.items() if isinstance(figures, Mapping)}
    columns = dict.fromkeys(
        name for figures in rows.values() for name, value in figures.items() if not isinstance(value, Mapping)
    )
    table = [["", *(name.replace("_", " ") for name in columns)], ["---"] * (len(columns) + 1)]
    table += [[what, *(_figure(figures.get(name, "")) for name in columns)] for what, figures in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _kept(measured: Mapping[str, Any]) -> str:
    """Which parts of which precision were kept in a higher one, a paragraph each."""
    return "".join(
        f"\nIn {name}, these parts are {search['kept_in']}, {100 * search['kept_weights']:.0f} % of the weights, "
        f"because the answers need it: {', '.join(search['kept'])}.\n"
        for name, figures in measured.items()
        if isinstance(figures, Mapping) and (search := figures.get("search"))
    )


def model_card(
    source: str,
    format: str,
    *,
    paths: Mapping[str, str],
    task: str,
    outputs: tuple[str, ...],
    max_length: int,
    measured: Mapping[str, Any],
    ios: int,
    lengths: str,
    input_type: str,
    has_plot: bool,
) -> str:
    """The Markdown text of an export's README: `paths` are its files by precision, `measured` is the gate's.

    `ios` and `lengths` are those of Core ML packages.
    """
    names = " and ".join(f"`{name}`" for name in outputs) if format == "coreml" else ", ".join(outputs)
    listed = ", ".join(f"`{path}` is {precision}" for precision, path in paths.items()) + "."
    of_text = [
        f"`{found['path']}`"
        for figures in measured.values()
        if isinstance(figures, Mapping) and (found := figures.get("with_tokenizer"))
    ]
    how_to = _HOW_TO[format].format(
        graph=paths.get("int8", next(iter(paths.values()))),
        graphs=listed,
        texts=_TEXTS[task],
        outputs=names if len(outputs) > 1 or format == "coreml" else f"{names},",
        count=len(outputs),
        max_length=max_length,
        input_type=input_type,
        pipelines=_PIPELINES[input_type] + (_ANSWERS if input_type == "int64" and task == "question-answering" else ""),
        of_text=_OF_TEXT.format(paths=", ".join(of_text)) if of_text else "",
        ios=ios,
        macos=ios - 3,
        lengths=lengths,
    )
    plot = f"\n![Size against quality]({FAMILY_PLOT})\n" if has_plot else ""
    tried_on = f"{measured['questions']} questions" if "questions" in measured else f"{measured['texts']} texts"
    return f"""\
---
pipeline_tag: {"fill-mask" if task == "masked-lm" else task}
tags: [edge-distil, {format}]
---

# {source}, exported to {_NAMES[format]}

Made by `edge-distil export`; `edge_distil.json` says from what, with which versions, and the checksum of every file.

## How to use it

{how_to}
## What was measured

Before it was written, on {tried_on}, against the checkpoint in fp32:

{_measured_table(measured)}
{_kept(measured)}{plot}"""
