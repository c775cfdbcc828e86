"""Tokenisers: read as the folder holds them, and refused where they do not fit a model or one another."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from families import byte_level, wordpiece
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from edge_distil.errors import UserError
from edge_distil.tokenization import (
    SpecialTokens,
    check_belongs,
    check_same,
    load_tokenizer,
    save_tokenizer,
    special_tokens,
    starts_word,
    write_tokenizer_config,
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


def test_special_tokens_of_roberta_are_found_under_berts_names() -> None:
    assert special_tokens(byte_level()) == SpecialTokens(cls=0, pad=1, sep=2, unk=3, mask=4)


def test_a_roberta_vocabulary_without_a_special_token_is_refused_by_its_name() -> None:
    without_pad = changed(byte_level(), lambda state: rename_in_vocabulary(state, "<pad>", "<fill>"))
    with pytest.raises(UserError, match=r"has no <pad>: it is not a RoBERTa byte-level BPE tokeniser") as caught:
        special_tokens(without_pad)
    assert "RoBERTa" in caught.value.hint


def words_and_starts(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text's tokens, each that begins a word behind a bar."""
    encoding = tokenizer.encode(text)
    starts_V = starts_word(tokenizer)
    assert starts_V.dtype == bool
    assert len(starts_V) == tokenizer.get_vocab_size()
    return [("|" if starts_V[i] else "") + token for i, token in zip(encoding.ids, encoding.tokens, strict=True)]


def test_a_wordpiece_begins_a_word_unless_it_is_marked_as_a_continuation() -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Tow", "##er", "##s", "of", ",", "#"]
    tokenizer = wordpiece()
    small = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    small.pre_tokenizer = tokenizer.pre_tokenizer
    small.add_special_tokens(vocabulary[:5])
    found = words_and_starts(small, "[CLS] Towers, # of [MASK] zzz")
    assert found == ["|[CLS]", "|Tow", "##er", "##s", "|,", "|#", "|of", "|[MASK]", "|[UNK]"]


def test_a_byte_level_token_begins_a_word_when_a_blank_does_or_it_is_special() -> None:
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "T", "o", "w", "e", "r", "Ġ", "Ċ", ",", "ĠT", "Ġo", "ow"]
    vocabulary.append("ĊT")
    merges = [("Ġ", "T"), ("Ġ", "o"), ("Ċ", "T"), ("o", "w")]
    small = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    small.pre_tokenizer = byte_level().pre_tokenizer
    small.add_special_tokens(vocabulary[:5])
    found = words_and_starts(small, "<s>Tower, Tower or\nTow<mask>")
    # The text's first word and a word behind a newline follow no blank of their own: that is the caller's to see.
    tower = ["ow", "e", "r"]
    assert found == ["|<s>", "T", *tower, ",", "|ĠT", *tower, "|Ġo", "r", "|Ċ", "T", "ow", "|<mask>"]
    assert starts_word(small)[small.token_to_id("ĊT")]


@pytest.mark.parametrize("make", [wordpiece, byte_level], ids=["wordpiece", "byte-level"])
def test_words_begin_where_the_pre_tokeniser_begins_them(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    # Plain words: punctuation is a word of its own to BERT's pre-tokeniser and to RoBERTa's, but not to its vocabulary.
    encoding = tokenizer.encode("The Tower of Brenmoor stands at the harbour", add_special_tokens=False)
    begins = np.diff(np.array(encoding.word_ids), prepend=-1) > 0
    assert 0 < begins.sum() < len(begins)
    assert starts_word(tokenizer)[encoding.ids][1:].tolist() == begins[1:].tolist()


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


def test_a_folder_with_only_vocab_json_and_merges_gives_the_same_ids(tmp_path: Path) -> None:
    byte_level().model.save(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "merges.txt", "vocab.json"]
    assert load_tokenizer(tmp_path).encode(TEXT).ids == byte_level().encode(TEXT).ids


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


def test_byte_level_tokenisers_that_merge_in_another_order_are_refused() -> None:
    reversed_merges = changed(byte_level(), lambda state: state["model"]["merges"].reverse())
    assert reversed_merges.encode(TEXT).ids != byte_level().encode(TEXT).ids
    with pytest.raises(UserError, match="student and teacher tokenise differently"):
        check_same(byte_level(), Path("student"), reversed_merges, Path("teacher"))


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


@pytest.mark.parametrize("size", [28996, 119547, 50265], ids=["cased", "multilingual", "roberta"])
def test_the_published_vocabularies_belong_to_their_own_models_only(size: int) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if size == 50265 else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(size - len(special)))])}
    tokenizer = Tokenizer(models.BPE(words, []) if size == 50265 else models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    check_belongs(tokenizer, size, Path("model"))
    for other in {28996, 30522, 119547, 50265} - {size}:
        with pytest.raises(UserError, match=f"{other} embeddings and its tokeniser {size} tokens"):
            check_belongs(tokenizer, other, Path("model"))


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


@pytest.mark.parametrize(
    "make",
    [
        wordpiece,
        partial(wordpiece, lowercase=True),
        partial(wordpiece, lowercase=True, strip_accents=False),
        partial(wordpiece, strip_accents=True, chinese=False),
        byte_level,
        partial(byte_level, add_prefix_space=True),
    ],
    ids=["cased", "uncased", "uncased-with-accents", "no-accents", "byte-level", "prefix-space"],
)
def test_transformers_gives_the_same_ids_from_a_folder_written_here(
    make: Callable[[], Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    tokenizer.save(str(source / "tokenizer.json"))
    save_tokenizer(source, target, 128)
    theirs = AutoTokenizer.from_pretrained(target, local_files_only=True)
    special = special_tokens(tokenizer)
    mask = tokenizer.id_to_token(special.mask)
    for text in (TEXT, f"  Élan, Über {mask}: 中国\n\nThe harbour of Brenmoor", f"{mask} stands."):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
        assert theirs(text, "Tower")["input_ids"] == tokenizer.encode(text, "Tower").ids
    names = ("cls", "sep", "pad", "mask", "unk")
    assert [getattr(theirs, f"{name}_token_id") for name in names] == [getattr(special, name) for name in names]
    assert theirs.model_max_length == 128


def test_a_tokenizer_config_follows_the_tokeniser_unless_the_case_is_given(tmp_path: Path) -> None:
    wordpiece(lowercase=True).save(str(tmp_path / "tokenizer.json"))
    written = []
    for lower_case in (None, True, False):
        write_tokenizer_config(tmp_path, max_length=128, lower_case=lower_case)
        written.append(json.loads((tmp_path / "tokenizer_config.json").read_text())["do_lower_case"])
    assert written == [True, True, False]
