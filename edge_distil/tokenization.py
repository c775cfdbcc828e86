"""The tokeniser of a model folder, read from its `tokenizer.json` without importing transformers.

Everything that turns text into token ids goes through here, so that training, answering and every export agree.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from edge_distil.errors import UserError

# Embedding tables are often padded to a multiple of 8, 64 or 128 rows for speed: so many rows may have no token.
_MAX_PADDED_ROWS = 128

# How each family spells its special tokens, in the order of `SpecialTokens`.
_SPELLINGS = {
    "BERT WordPiece": ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"),
    "RoBERTa byte-level BPE": ("<s>", "</s>", "<pad>", "<mask>", "<unk>"),
}
# Byte-level BPE writes a byte b that is no visible character as the letter 256 + b: a blank is Ġ, a newline Ċ.
_BYTE_LEVEL_BLANKS = tuple(chr(256 + ord(blank)) for blank in " \t\n\v\f\r")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the special tokens in one vocabulary, under BERT's names; RoBERTa's `<s>` is `cls`, `</s>` is `sep`."""

    cls: int
    sep: int
    pad: int
    mask: int
    unk: int


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokeniser of a model folder, with neither padding nor truncation switched on.

    A folder that has only a `vocab.txt`, or RoBERTa's `vocab.json` and `merges.txt`, is converted by transformers.
    Raises `UserError` when there is neither.
    """
    path = folder / "tokenizer.json"
    vocabulary = next((file for name in ("vocab.txt", "vocab.json") if (file := folder / name).is_file()), None)
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as fault:  # the Rust side raises bare Exception for anything it cannot parse
            raise UserError(f"{path}: is not a tokenizer file: {fault}", "copy tokenizer.json again") from None
    elif vocabulary:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        except Exception as fault:  # as above
            raise UserError(
                f"{vocabulary}: does not load: {str(fault).splitlines()[0]}", "copy tokenizer.json instead"
            ) from None
    else:
        raise UserError(
            f"{folder}: has no tokenizer.json",
            "copy the tokeniser files that the model was trained with into the folder",
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _family(tokenizer: Tokenizer) -> tuple[str, dict[str, int]]:
    """The family that a vocabulary holds most special tokens of, and the ids of those that it holds, by name."""
    found = {
        family: {name: token_id for name in names if (token_id := tokenizer.token_to_id(name)) is not None}
        for family, names in _SPELLINGS.items()
    }
    return max(found.items(), key=lambda entry: len(entry[1]))


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Ids of [CLS], [SEP], [PAD], [MASK] and [UNK], or of what RoBERTa calls `<s>`, `</s>`, `<pad>`, `<mask>`, `<unk>`.

    Raises `UserError` when the vocabulary lacks one.
    """
    family, ids = _family(tokenizer)
    missing = [name for name in _SPELLINGS[family] if name not in ids]
    if missing:
        raise UserError(
            f"the tokeniser has no {', '.join(missing)}: it is not a {family} tokeniser",
            "use a BERT, DistilBERT or RoBERTa folder",
        )
    return SpecialTokens(*ids.values())


def fitting_length(tokens: int, lengths: Sequence[int] | None) -> int:
    """The least of the ascending `lengths` that holds so many tokens, the greatest where none does; any, where None."""
    return tokens if lengths is None else next((length for length in lengths if length >= tokens), lengths[-1])


def pad(
    ids: Sequence[Sequence[int]], pad_id: int, lengths: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 [B, L], padded to the longest of B inputs.

    With `lengths`, ascending, to the least of them that holds it. Raises `UserError` where none does.
    """
    longest = max(len(ids_L) for ids_L in ids)
    width = fitting_length(longest, lengths)
    if longest > width:
        raise UserError(
            f"an input has {longest} tokens, the model takes at most {width}", f"give --max-length {width} or less"
        )
    ids_BL = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask_BL = np.zeros((len(ids), width), dtype=np.int64)
    for row, ids_L in enumerate(ids):
        ids_BL[row, : len(ids_L)] = ids_L
        mask_BL[row, : len(ids_L)] = 1
    return ids_BL, mask_BL


def starts_word(tokenizer: Tokenizer) -> np.ndarray:
    """Whether each token of the vocabulary begins a word, bool [V]; special tokens count as beginning one.

    A WordPiece token does unless it starts with `##`. A byte-level BPE token does when it starts with a blank, which
    such a vocabulary writes as Ġ: a comma is then part of the word before it, and the first word of a text, which no
    blank precedes, is not seen in the token. Whoever masks whole words has to begin a word there too.
    """
    model = tokenizer.model
    tokens = [tokenizer.id_to_token(token_id) or "" for token_id in range(tokenizer.get_vocab_size())]
    if isinstance(model, models.WordPiece):
        return np.array([not token.startswith(model.continuing_subword_prefix) for token in tokens])
    starts_V = np.array([token.startswith(_BYTE_LEVEL_BLANKS) for token in tokens])
    starts_V[list(tokenizer.get_added_tokens_decoder())] = True
    return starts_V


def check_belongs(tokenizer: Tokenizer, vocabulary_rows: int, folder: Path) -> None:
    """Refuse a model whose embedding table was not made for this tokeniser.

    `vocabulary_rows` is the model's `vocab_size`. Raises `UserError` when tokens outnumber rows, or rows outnumber
    tokens by more than padding explains.
    """
    tokens = tokenizer.get_vocab_size(with_added_tokens=True)
    if not 0 <= vocabulary_rows - tokens < _MAX_PADDED_ROWS:
        raise UserError(
            f"{folder}: the model has {vocabulary_rows} embeddings and its tokeniser {tokens} tokens: "
            "they do not belong together",
            "copy the tokenizer.json that the model was trained with into its folder",
        )


def check_same(one: Tokenizer, one_folder: Path, other: Tokenizer, other_folder: Path) -> None:
    """Refuse two tokenisers that would give different ids for the same text. Raises `UserError`."""

    def text_to_ids(tokenizer: Tokenizer) -> tuple[Any, ...]:
        state = json.loads(tokenizer.to_str())
        return tokenizer.get_vocab(), state["model"].get("merges"), state["normalizer"], state["pre_tokenizer"]

    if text_to_ids(one) != text_to_ids(other):
        raise UserError(
            f"{one_folder} and {other_folder} tokenise differently",
            "teacher and student must share one tokeniser: train the student from this teacher's own family",
        )


def save_tokenizer(source: Path, target: Path, max_length: int) -> None:
    """Write the tokeniser of one model folder into another, as transformers, transformers.js and the app read it."""
    tokenizer = load_tokenizer(source)
    tokenizer.save(str(target / "tokenizer.json"))
    if (source / "tokenizer_config.json").is_file():
        shutil.copyfile(source / "tokenizer_config.json", target / "tokenizer_config.json")
    else:
        write_tokenizer_config(target, max_length=max_length)


def write_tokenizer_config(target: Path, *, max_length: int, lower_case: bool | None = None) -> None:
    """Write the `tokenizer_config.json` that goes with the `tokenizer.json` in a folder.

    `max_length` is the longest input in tokens; `lower_case` None means what `tokenizer.json` does. transformers 5
    builds the normaliser and the pre-tokeniser anew from these settings, whatever `tokenizer.json` says of them.
    """
    tokenizer = load_tokenizer(target)
    family, _ = _family(tokenizer)
    special = dict(zip(("cls", "sep", "pad", "mask", "unk"), _SPELLINGS[family], strict=True))
    config: dict[str, Any] = {
        "model_max_length": max_length,
        **{f"{name}_token": token for name, token in special.items()},
    }
    if isinstance(tokenizer.model, models.WordPiece):
        cased, accented, chinese = (_normalized(tokenizer, text) for text in ("A", "É", "中"))
        config |= {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": cased == "a" if lower_case is None else lower_case,
            "strip_accents": accented in ("e", "E"),
            "tokenize_chinese_chars": chinese != "中",
        }
    else:
        first = tokenizer.pre_tokenizer.pre_tokenize_str("A")[0][0]
        config |= {
            "tokenizer_class": "RobertaTokenizer",
            "bos_token": special["cls"],
            "eos_token": special["sep"],
            "add_prefix_space": first != "A",
        }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
