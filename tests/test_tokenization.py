"""Tokenisers: read as the folder holds them, and refused where they do not fit a model or one another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from edge_distil.errors import UserError
from edge_distil.tokenization import (
    SpecialTokens,
    check_belongs,
    check_same,
    load_tokenizer,
    save_tokenizer,
    special_tokens,
)

TEXT = "The Tower of Brenmoor stands 12 m high."


def changed(tokenizer: Tokenizer, change: Callable[[dict], object]) -> Tokenizer:
    state = json.loads(tokenizer.to_str())
    change(state)
    return Tokenizer.from_str(json.dumps(state))


def rename_in_vocabulary(state: dict, old: str, new: str) -> None:
    state["model"]["vocab"][new] = state["model"]["vocab"].pop(old)
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] != old]


def test_special_tokens_are_found_by_name(tokenizer: Tokenizer) -> None:
    assert special_tokens(tokenizer) == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)


def test_a_vocabulary_without_a_special_token_is_refused_by_its_name(tokenizer: Tokenizer) -> None:
    without_mask = changed(tokenizer, lambda state: rename_in_vocabulary(state, "[MASK]", "<mask>"))
    with pytest.raises(UserError, match=r"has no \[MASK\]: it is not a BERT WordPiece") as caught:
        special_tokens(without_mask)
    assert "BERT" in caught.value.hint


def test_padding_and_truncation_of_the_file_are_switched_off(tokenizer: Tokenizer, tmp_path: Path) -> None:
    limited = Tokenizer.from_str(tokenizer.to_str())
    limited.enable_padding(length=32)
    limited.enable_truncation(4)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode(TEXT).ids == tokenizer.encode(TEXT).ids


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match=r"tokenizer\.json: is not a tokenizer file"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokeniser_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.message == f"{tmp_path}: has no tokenizer.json"
    assert "copy the tokeniser files" in caught.value.hint


def vocabulary_folder(bert_mlm: Path, tokenizer: Tokenizer, folder: Path) -> Path:
    """A model folder of the old kind: config.json and vocab.txt."""
    vocabulary = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__)))
    shutil.copy(bert_mlm / "config.json", folder)
    return folder


def test_a_folder_with_only_vocab_txt_gives_the_same_ids(bert_mlm: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    loaded = load_tokenizer(vocabulary_folder(bert_mlm, tokenizer, tmp_path))
    assert loaded.encode(TEXT).ids == tokenizer.encode(TEXT).ids
    check_same(loaded, tmp_path, tokenizer, bert_mlm)


@pytest.mark.parametrize("has_config", [True, False])
def test_a_vocab_txt_that_cannot_be_read_is_named(
    bert_mlm: Path, tokenizer: Tokenizer, tmp_path: Path, has_config: bool
) -> None:
    vocabulary_folder(bert_mlm, tokenizer, tmp_path)
    if has_config:
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    else:
        (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"vocab\.txt"):
        load_tokenizer(tmp_path)


def test_the_same_tokeniser_twice_is_accepted(tokenizer: Tokenizer) -> None:
    check_same(tokenizer, Path("student"), Tokenizer.from_str(tokenizer.to_str()), Path("teacher"))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: rename_in_vocabulary(state, "the", "zzz"),
        lambda state: state["normalizer"].update(lowercase=False),
        lambda state: state.update(pre_tokenizer={"type": "WhitespaceSplit"}),
    ],
    ids=["vocabulary", "normalizer", "pre-tokenizer"],
)
def test_tokenisers_that_give_other_ids_are_refused_by_both_names(
    tokenizer: Tokenizer, change: Callable[[dict], object]
) -> None:
    with pytest.raises(UserError) as caught:
        check_same(tokenizer, Path("student"), changed(tokenizer, change), Path("teacher"))
    assert caught.value.message == "student and teacher tokenise differently"
    assert "share one tokeniser" in caught.value.hint


@pytest.mark.parametrize(("extra_rows", "fits"), [(-1, False), (0, True), (127, True), (128, False)])
def test_embeddings_may_outnumber_tokens_by_padding_only(tokenizer: Tokenizer, extra_rows: int, fits: bool) -> None:
    tokens = tokenizer.get_vocab_size()
    if fits:
        check_belongs(tokenizer, tokens + extra_rows, Path("model"))
        return
    with pytest.raises(UserError) as caught:
        check_belongs(tokenizer, tokens + extra_rows, Path("model"))
    assert f"model: the model has {tokens + extra_rows} embeddings and its tokeniser {tokens} tokens" in str(
        caught.value
    )
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("lower_case", [True, False])
def test_a_saved_tokeniser_keeps_its_ids_and_its_case(tokenizer: Tokenizer, tmp_path: Path, lower_case: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    original = changed(tokenizer, lambda state: state["normalizer"].update(lowercase=lower_case))
    original.save(str(source / "tokenizer.json"))
    save_tokenizer(source, target, 128)
    assert load_tokenizer(target).encode(TEXT).ids == original.encode(TEXT).ids
    config = json.loads((target / "tokenizer_config.json").read_text())
    assert (config["do_lower_case"], config["model_max_length"]) == (lower_case, 128)
    assert (config["mask_token"], config["tokenizer_class"]) == ("[MASK]", "BertTokenizer")


def test_a_tokenizer_config_of_the_source_is_kept_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true, "own": 1}')
    save_tokenizer(source, target, 128)
    assert (target / "tokenizer_config.json").read_text() == '{"do_lower_case": true, "own": 1}'
