"""ONNX exports, run by ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime

from edge_distil.errors import UserError

# The names that transformers.js and optimum look for, best for the CPU first.
GRAPHS = {
    "int8": "onnx/model_quantized.onnx",
    "fp32": "onnx/model.onnx",
    "int4": "onnx/model_q4.onnx",
    "fp16": "onnx/model_fp16.onnx",
}


class OnnxRuntime:
    """One graph of an ONNX export behind the interface of `edge_distil.runtimes.Runtime`."""

    name = "onnxruntime"
    lengths: tuple[int, ...] | None = None

    def __init__(self, folder: Path, *, precision: str | None = None, threads: int | None = None) -> None:
        """Open the graph of a precision, or the first of `GRAPHS` there is. Raises `UserError` when there is none."""
        present = [key for key, relative in GRAPHS.items() if (folder / relative).is_file()]
        if not present or (precision and precision not in present):
            raise UserError(
                f"{folder}: holds no {precision or 'ONNX'} graph (it has: {', '.join(present) or 'none'})",
                "export it: edge-distil export MODEL --format onnx",
            )
        self.folder = folder
        self.precision = precision or present[0]
        # Dynamic quantisation has one scale for a whole batch, padding included: what a text gets, alone as on a phone
        # or beside others, differs, and so does what it is scored.
        self.batch_size = 1 if self.precision in ("int8", "int4") else None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: one for every core
        options.log_severity_level = 3
        # Its threads would otherwise go on turning between calls, and take the cores from whoever runs next: another
        # model that is measured in turn, or the caller.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = folder / GRAPHS[self.precision]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # onnxruntime's exceptions share no public base class
            raise UserError(f"{path}: ONNX Runtime cannot load it: {fault}", "export the model again") from None
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._integer = np.int32 if self._session.get_inputs()[0].type == "tensor(int32)" else np.int64

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        given = {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL}
        values = self._session.run(None, {name: array.astype(self._integer) for name, array in given.items()})
        return dict(zip(self.outputs, values, strict=True))
