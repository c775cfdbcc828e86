"""Loading models safely: safetensors only, no code from the folder, never a random head by accident."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from edge_distil.checkpoints import HUB, check_folder, read_json, read_manifest
from edge_distil.errors import UserError
from edge_distil.tasks import Task
from edge_distil.tokenization import check_belongs, load_tokenizer

_FAMILIES: dict[Task, dict[str, str]] = {
    "masked-lm": {"bert": "BERT", "distilbert": "DistilBERT", "roberta": "RoBERTa"},
    "question-answering": {"bert": "BERT", "distilbert": "DistilBERT"},
    "text-classification": {"bert": "BERT", "distilbert": "DistilBERT"},
}
_CLASSES: dict[str, Any] = {
    "masked-lm": AutoModelForMaskedLM,
    "question-answering": AutoModelForQuestionAnswering,
    "text-classification": AutoModelForSequenceClassification,
}
_MAKE_HEAD = {
    "masked-lm": "train one first: edge-distil pretrain --from {folder}",
    "question-answering": "fine-tune it first: edge-distil finetune --task squad --model {folder}",
    "text-classification": "fine-tune it first: edge-distil finetune --task text --model {folder}",
}

# The library reports missing weights as a table on the log. Here they are errors, so the log stays quiet.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)


def supports_bf16() -> bool:
    """Whether bf16 matrix products have instructions of their own here; emulated ones are slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def resolve(name: str | Path) -> Path:
    """The local folder of a model. `hf://owner/name` is fetched from the Hugging Face hub, anything else is a path.

    Raises `UserError` when there is no such folder, or the hub does not give it.
    """
    if not str(name).startswith(HUB):
        folder = Path(name)
        check_folder(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: has no config.json", "give a Hugging Face model folder")
        return folder
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.txt", "*.safetensors", "onnx/*", "*.mlpackage/*"]
        return Path(snapshot_download(str(name).removeprefix(HUB), allow_patterns=patterns))
    except Exception as fault:  # the hub client raises many kinds: offline, no such name, no permission
        reason = str(fault).splitlines()[0]
        raise UserError(f"{name}: the hub did not give it: {reason}", "check the name and the network") from None


def load_config(folder: Path, task: Task) -> Any:
    """The configuration of a model folder. Raises `UserError` for an architecture that `task` is not supported for."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, StrictDataclassError) as fault:
        raise UserError(f"{folder / 'config.json'}: {str(fault).splitlines()[0]}", "give a BERT model folder") from None
    families = _FAMILIES[task]
    if config.model_type not in families:
        raise UserError(
            f"{folder}: is a {config.model_type!r} model, {task} supports {', '.join(families)} only",
            f"use a folder of one of these: {', '.join(families.values())}",
        )
    return config


def task_of(folder: Path) -> Task:
    """What a folder without a manifest is for: as `config.json` names its class; answering where it names none."""
    path = folder / "config.json"
    architectures = (read_json(path).get("architectures") if path.is_file() else None) or [""]
    tasks: dict[str, Task] = {"ForMaskedLM": "masked-lm", "ForSequenceClassification": "text-classification"}
    return next((task for end, task in tasks.items() if architectures[0].endswith(end)), "question-answering")


def labels_of_model(config: Mapping[str, Any]) -> list[str] | None:
    """The labels of a text classifier in the order of its logits, by its `config.json`; None for a regression."""
    if config.get("problem_type") == "regression":
        return None
    labels = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # two classes without names are not written
    return [str(labels[key]) for key in sorted(labels, key=int)]


def load_model(
    name: str | Path, task: Task, *, new_head: bool = False, labels: Sequence[str] | None = None
) -> PreTrainedModel:
    """A model in fp32 with the head of `task`, from a folder of safetensors whose manifest, if any, was checked.

    A checkpoint without that head would load with random weights and give noise: it is refused, unless `new_head` says
    that a fresh one is wanted. A fresh head for texts is for these `labels`, or for a regression where there are none.
    Raises `UserError`.
    """
    folder = resolve(name)
    read_manifest(folder)
    config = load_config(folder, task)
    if new_head and task == "text-classification":
        named = labels if labels is not None else ["score"]
        config.id2label, config.label2id = dict(enumerate(named)), {label: i for i, label in enumerate(named)}
        config.problem_type = "single_label_classification" if labels is not None else "regression"
    if not any(folder.glob("*.safetensors")) and (folder / "onnx").is_dir():
        raise UserError(f"{folder}: is an ONNX export", "give the checkpoint that it was exported from")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: has no .safetensors weights",
            "pickled weights (.bin, .pt) are never loaded: save the model again with safe_serialization",
        )
    check_belongs(load_tokenizer(folder), config.vocab_size, folder)
    if task == "question-answering":
        if task_of(folder) == "text-classification" and not new_head:
            raise _without_head(folder, task)
        config.num_labels, config.problem_type = 2, None  # start and end, whatever the head before it gave
    try:
        model, report = _CLASSES[task].from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as fault:
        raise UserError(
            f"{folder}: the weights do not load: {str(fault).strip().splitlines()[0]}",
            "check that config.json and model.safetensors come from the same model",
        ) from None
    missing = sorted(report["missing_keys"])
    # BERT's pooler is part of a classifier's head: a masked-LM checkpoint has none.
    inside = f"{model.base_model_prefix}."
    in_encoder = [key for key in missing if key.startswith(inside) and ".pooler." not in key]
    mismatched = sorted(key for key, *_ in report["mismatched_keys"] if key.startswith(inside) or not new_head)
    # More layers than the configuration has would be left out silently. Poolers and position ids are saved by some
    # versions of the library, and no task here has a use for them.
    harmless = (".pooler.", ".position_ids")
    unknown = sorted(
        key for key in report["unexpected_keys"] if key.startswith(inside) and not any(part in key for part in harmless)
    )
    if in_encoder or mismatched or unknown:
        first = (in_encoder or mismatched or unknown)[0]
        raise UserError(
            f"{folder}: the weights do not fit config.json, first at {first}",
            "check that config.json and model.safetensors come from the same model",
        )
    if missing and not new_head:
        raise _without_head(folder, task, missing[0])
    return model.eval()


def _without_head(folder: Path, task: Task, missing: str | None = None) -> UserError:
    hint = _MAKE_HEAD[task].format(folder=folder)
    if task_of(folder) == "text-classification":
        hint = f"it classifies texts: evaluate and export take the name of what it was taught as --task; or {hint}"
    named = f" ({missing} is missing)" if missing else ""
    return UserError(f"{folder}: has no {task} head{named}, its output would be noise", hint)
