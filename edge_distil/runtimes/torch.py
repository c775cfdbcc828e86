"""Checkpoints, run by the library's own model classes."""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from edge_distil.models import load_model, resolve, supports_bf16
from edge_distil.tasks import Task
from edge_distil.tokenization import load_tokenizer, special_tokens


def token_type_ids(input_ids_BL: torch.Tensor, sep_id: int) -> torch.Tensor:
    """BERT's segment of every token: 0 up to and including the first [SEP], 1 after it. Same shape as the ids."""
    is_sep_BL = (input_ids_BL == sep_id).long()
    return (is_sep_BL.cumsum(dim=1) - is_sep_BL).clamp(max=1)


def model_inputs(
    model: PreTrainedModel, input_ids_BL: torch.Tensor, attention_mask_BL: torch.Tensor, sep_id: int
) -> dict[str, torch.Tensor]:
    """What a model's forward takes: BERT gets token types, DistilBERT has none."""
    inputs = {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = token_type_ids(input_ids_BL, sep_id)
    return inputs


class TorchRuntime:
    """A model in memory behind the interface of `edge_distil.runtimes.Runtime`."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, folder: Path, *, bf16: bool = False, threads: int | None = None) -> None:
        """`bf16` runs the matrix products in bf16 by autocast, where the hardware has them; the weights stay fp32."""
        if threads:
            torch.set_num_threads(threads)
        self.model = model.eval()
        self.folder = folder
        self._bf16 = bf16 and supports_bf16()
        self.precision = "bf16" if self._bf16 else "fp32"
        self.lengths: tuple[int, ...] | None = None
        self.batch_size: int | None = None
        is_qa = hasattr(model, "qa_outputs")
        self.outputs: tuple[str, ...] = ("start_logits", "end_logits") if is_qa else ("logits",)
        self._sep_id = special_tokens(load_tokenizer(folder)).sep

    @classmethod
    def load(cls, folder: Path, *, task: Task, bf16: bool = False, threads: int | None = None) -> "TorchRuntime":
        """Open a checkpoint folder. Raises `UserError` as `edge_distil.models.load_model` does."""
        return cls(load_model(folder, task), resolve(folder), bf16=bf16, threads=threads)

    @torch.inference_mode()
    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        device = self.model.device
        ids_BL = torch.from_numpy(input_ids_BL).to(device)
        mask_BL = torch.from_numpy(attention_mask_BL).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            output = self.model(**model_inputs(self.model, ids_BL, mask_BL, self._sep_id))
        return {name: getattr(output, name).float().cpu().numpy() for name in self.outputs}
