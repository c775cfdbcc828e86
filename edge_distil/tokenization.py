"""The tokeniser of a model folder, read from its `tokenizer.json` without importing transformers.

Everything that turns text into token ids goes through here, so that training, answering and every export agree.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_distil.errors import UserError

# Embedding tables are often padded to a multiple of 8, 64 or 128 rows for speed: so many rows may have no token.
_MAX_PADDED_ROWS = 128


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of BERT's special tokens in one vocabulary."""

    cls: int
    sep: int
    pad: int
    mask: int
    unk: int


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokeniser of a model folder, with neither padding nor truncation switched on.

    A folder that has only a `vocab.txt` is converted by transformers. Raises `UserError` when there is neither.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as fault:  # the Rust side raises bare Exception for anything it cannot parse
            raise UserError(f"{path}: is not a tokenizer file: {fault}", "copy tokenizer.json again") from None
    elif (folder / "vocab.txt").is_file():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        except Exception as fault:  # as above
            raise UserError(
                f"{folder / 'vocab.txt'}: does not load: {str(fault).splitlines()[0]}", "copy tokenizer.json instead"
            ) from None
    else:
        raise UserError(
            f"{folder}: has no tokenizer.json",
            "copy the tokeniser files that the model was trained with into the folder",
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Ids of [CLS], [SEP], [PAD], [MASK] and [UNK]. Raises `UserError` when the vocabulary lacks one."""
    names = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]")
    ids = {name: tokenizer.token_to_id(name) for name in names}
    missing = [name for name, token_id in ids.items() if token_id is None]
    if missing:
        raise UserError(
            f"the tokeniser has no {', '.join(missing)}: it is not a BERT WordPiece tokeniser",
            "use a BERT or DistilBERT folder",
        )
    return SpecialTokens(*(token_id for token_id in ids.values() if token_id is not None))


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
        return tokenizer.get_vocab(), state["normalizer"], state["pre_tokenizer"]

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
        normalizer = tokenizer.normalizer
        lower_case = normalizer is not None and normalizer.normalize_str("A") == "a"
        write_tokenizer_config(target, lower_case=lower_case, max_length=max_length)


def write_tokenizer_config(target: Path, *, lower_case: bool, max_length: int) -> None:
    """Write the `tokenizer_config.json` that goes with a BERT `tokenizer.json`."""
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lower_case,
        "model_max_length": max_length,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask", "unk")},
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
