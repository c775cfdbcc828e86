"""The process of one contender: `python -m edge_distil.bench.worker SETUP CONDITIONS`, both JSON.

It opens one model in one runtime and then does what it is told, a line of JSON each on stdin and stdout:

    → opened: {"precision", "lengths", "outputs", "load_s"}
    ← {"questions": [[question, context], …], "tokens", "max_length"}   → {}
    ← {"call": index of a question}   → {"tokens", "text_to_logits", "ids_to_logits"}, seconds
    ← {"end": true}   → {"peak_bytes", "device_peak_bytes"}, then it ends

or → {"error", "hint"} and it ends. Python is a fresh one, so memory and loading times are of this contender alone.
"""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from edge_distil.bench.latency import timer
from edge_distil.bench.setups import Setup
from edge_distil.errors import UserError
from edge_distil.runtimes import Runtime
from edge_distil.tasks.squad import Question


def main() -> None:
    """Serve until told to end. What a library prints on stdout goes to stderr: stdout is for the lines above."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    setup, conditions = Setup(**json.loads(sys.argv[1])), json.loads(sys.argv[2])
    if conditions["cpus"]:
        os.sched_setaffinity(0, conditions["cpus"])  # before any library starts its threads
    try:
        began = time.perf_counter()
        runtime = _opened(setup, conditions["threads"])
        say(
            {
                "precision": runtime.precision,
                "lengths": runtime.lengths,
                "outputs": runtime.outputs,
                "load_s": time.perf_counter() - began,
            }
        )
        _serve(setup, runtime, say)
    except UserError as fault:
        say({"error": fault.message, "hint": fault.hint})


def _serve(setup: Setup, runtime: Runtime, say: Any) -> None:
    timed = None
    for line in sys.stdin:
        message = json.loads(line)
        if "questions" in message:
            questions = [
                Question(str(number), question, context, ())
                for number, (question, context) in enumerate(message["questions"])
            ]
            timed = timer(
                setup.model,
                runtime,
                questions,
                message["tokens"],
                max_length=message["max_length"],
                synchronize=_synchronizer(setup.device),
            )
            say({})
        elif "call" in message and timed:
            call = timed(message["call"])
            say(
                {
                    "tokens": call.tokens,
                    "text_to_logits": call.text_to_logits,
                    "ids_to_logits": call.ids_to_logits,
                }
            )
        else:
            say({"peak_bytes": peak_bytes(), "device_peak_bytes": _device_peak_bytes(setup.device)})
            return


def _opened(setup: Setup, threads: int) -> Runtime:
    """The setup's runtime, by its own class: `open_runtime` would hash every file of an export first, as was done."""
    folder = Path(setup.folder)
    if setup.runtime in ("torch", "torch.compile"):
        return _opened_by_torch(setup, folder, threads)
    if setup.runtime == "onnxruntime":
        from edge_distil.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(folder, precision=setup.precision, threads=threads)
    if setup.runtime == "openvino":
        from edge_distil.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(folder, precision=setup.precision, threads=threads)
    if setup.runtime == "coreml":
        from edge_distil.runtimes.coreml import CoreMLRuntime

        units: Any = setup.compute_units or "all"
        return CoreMLRuntime(folder, precision=setup.precision, threads=threads, compute_units=units)
    from edge_distil.runtimes.mil import MilRuntime

    return MilRuntime(folder, precision=setup.precision, threads=threads)


def _opened_by_torch(setup: Setup, folder: Path, threads: int) -> Runtime:
    if (
        setup.runtime == "torch.compile"
        and setup.device == "cpu"
        and not any(map(shutil.which, ("c++", "g++", "clang++")))
    ):
        raise UserError("torch.compile needs a C++ compiler on the CPU", "install g++ or clang++")
    import torch

    from edge_distil.models import load_model, supports_bf16, task_of
    from edge_distil.runtimes.torch import TorchRuntime

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    if setup.random_weights:
        from transformers import AutoModelForQuestionAnswering

        # Its tokeniser is the starter's, with far fewer tokens than the model has rows, which `load_model` refuses.
        model = AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    else:
        model = load_model(folder, task_of(folder))
    if setup.precision == "bf16":
        if setup.device == "cpu" and not supports_bf16():
            raise UserError("this processor has no instructions for bf16", "measure fp32")
        model = model.to(torch.bfloat16)
    model = model.to(setup.device)
    runtime = TorchRuntime(model, folder)
    runtime.precision = setup.precision or "fp32"
    if setup.runtime == "torch.compile":
        runtime.name = "torch.compile"
        runtime.model.compile()  # in place: the module stays what it is, only its call is compiled
    return runtime


def _synchronizer(device: str) -> Any:
    """What waits until a device has done its work."""
    if device in ("cuda", "mps"):
        import torch

        return torch.cuda.synchronize if device == "cuda" else torch.mps.synchronize
    return lambda: None


def peak_bytes() -> int:
    """The most memory that this process had resident.

    On Linux not `getrusage`'s, which begins with that of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_peak_bytes(device: str) -> int | None:
    if device != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
