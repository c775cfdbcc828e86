"""Blocks that hold pieces of several documents, as input of an encoder that keeps the pieces apart.

Every piece is encoded as if it stood alone: tokens attend within their own piece, and positions are the caller's, who
restarts them at each piece. B rows, L tokens a row.
"""

from typing import Any

import torch

from edge_distil import cpu


def packed_inputs(
    model: Any, input_ids_BL: torch.Tensor, piece_ids_BL: torch.Tensor, position_ids_BL: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Keyword arguments for `model.base_model(**…)`: ids, positions, and a block-diagonal mask where one is needed.

    All inputs are int64 [B, L] on one device. `piece_ids_BL` numbers the pieces of a row, −1 is padding;
    `position_ids_BL` counts from 0 (RoBERTa's offset is added here). Padding attends to padding alone: its hidden
    states mean nothing, but they are finite, which a row of the mask without a single True would not promise.

    Rows of one piece each, without padding, need no mask, and then none is given: that is the fastest attention.
    Finding that out reads one truth value, for which a GPU has to be waited for; for blocks on the CPU it is free.
    Raises ValueError for an attention implementation that takes no such mask.
    """
    config = model.config
    first_position = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    inputs = {"input_ids": input_ids_BL, "position_ids": position_ids_BL + first_position}
    if (piece_ids_BL == piece_ids_BL[:, :1]).all():
        return inputs
    same_B1LL = piece_ids_BL[:, None, :, None] == piece_ids_BL[:, None, None, :]
    match config._attn_implementation:
        case "sdpa" | cpu.ATTENTION:
            # True where to attend. A bool is a quarter of a float's size, and no autocast ever has to convert it.
            inputs["attention_mask"] = same_B1LL
        case "eager":
            # Added to the scores, so of the weights' own type; the lowest finite number, as in the library's masks.
            lowest = torch.finfo(model.dtype).min
            inputs["attention_mask"] = torch.zeros_like(same_B1LL, dtype=model.dtype).masked_fill(~same_B1LL, lowest)
        case other:
            raise ValueError(f"packed blocks need eager or sdpa attention, not {other!r}")
    return inputs
