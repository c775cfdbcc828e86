"""Text files into documents, documents into blocks without losing a token, and the statistics of the masks."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edge_distil.corpus.blocks import Masking, pack
from edge_distil.corpus.text import read_documents
from edge_distil.distillation.pretraining import split_held_out
from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens

TEXT = "\n\n one \ntwo\r\n\n  \t\nthree, ü\n\n\nfour"
DOCUMENTS = ["one\ntwo", "three, ü", "four"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_blank_lines_part_documents_and_paragraphs_stay_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = TEXT.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(read_documents([path])) == DOCUMENTS


def test_files_are_read_in_order_and_end_a_document(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("first")
    two.write_text("second")
    assert list(read_documents([two, one])) == ["second", "first"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("line", [1, 3, 5000])
def test_a_byte_that_is_no_utf8_is_named_by_its_line(tmp_path: Path, name: str, line: int) -> None:
    path = tmp_path / name
    data = b"good line\n" * (line - 1) + b"bad \xe9 line\n" + b"good line\n" * 10
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(UserError) as caught:
        list(read_documents([path]))
    assert caught.value.message == f"{path}: is not UTF-8 text, line {line}"
    assert caught.value.hint == "convert the file to UTF-8"


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def corrupt(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 20]) + data[middle + 20 :]


def not_gzip(data: bytes) -> bytes:
    return b"plain text"


@pytest.mark.parametrize("spoil", [cut, corrupt, not_gzip])
def test_a_gzip_file_that_is_not_whole_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(spoil(gzip.compress("".join(f"line {n * n}\n" for n in range(2000)).encode())))
    with pytest.raises(UserError, match=r"a\.txt\.gz: is not a whole gzip file") as caught:
        list(read_documents([path]))
    assert caught.value.hint == "copy the file again"


@pytest.mark.parametrize("text", ["", " \n\n\t\n"])
def test_files_without_text_are_named(tmp_path: Path, text: str) -> None:
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for path in paths:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_documents(paths))
    assert caught.value.message == f"{paths[0]}, {paths[1]}: holds no text"
    assert "one paragraph a line" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt: no such file"):
        list(read_documents([tmp_path / "gone.txt"]))


# Blocks


def pieces(block: np.ndarray, tokenizer: Tokenizer) -> list[list[int]]:
    """A block's pieces, after its form was checked: [CLS], pieces that each end with [SEP], padding."""
    special = special_tokens(tokenizer)
    ids = block.tolist()
    while ids[-1] == special.pad:
        ids.pop()
    assert ids[0] == special.cls
    assert ids[-1] == special.sep
    assert special.pad not in ids
    assert ids.count(special.cls) == 1
    found: list[list[int]] = [[]]
    for token_id in ids[1:]:
        if token_id == special.sep:
            found.append([])
        else:
            found[-1].append(token_id)
    assert found.pop() == []
    assert all(found)
    return found


def test_packing_loses_no_token_and_keeps_the_order(tokenizer: Tokenizer) -> None:
    documents = ["the bridge " * count for count in (1, 2, 40, 3, 1, 7, 100, 1)]
    blocks = pack(documents, tokenizer, 32)
    assert blocks.dtype == np.int32
    assert blocks.shape[1] == 32
    packed = [token_id for block in blocks for piece in pieces(block, tokenizer) for token_id in piece]
    expected = [token_id for text in documents for token_id in tokenizer.encode(text, add_special_tokens=False).ids]
    assert packed == expected


def test_long_documents_are_cut_and_short_ones_share_a_block(tokenizer: Tokenizer) -> None:
    the, bridge = (tokenizer.token_to_id(word) for word in ("the", "bridge"))
    # Blocks of 8 have room for 6: "bridge" × 8 is cut into 6 and 2; 2 + [SEP] + 3 + [SEP] just fill the next block.
    blocks = pack(["bridge " * 8, "the " * 3, "the the"], tokenizer, 8)
    assert [pieces(block, tokenizer) for block in blocks] == [
        [[bridge] * 6],
        [[bridge] * 2, [the] * 3],
        [[the] * 2],
    ]


def test_a_corpus_without_a_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the corpus holds no text"):
        pack(["\u200b"], tokenizer, 8)


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (99, 1), (100, 2), (10000, 128)])
def test_one_block_in_fifty_is_held_out_and_none_is_in_both(count: int, held_out: int) -> None:
    train, held = split_held_out(np.arange(count)[:, None])
    assert len(held) == held_out
    assert sorted([*train[:, 0], *held[:, 0]]) == list(range(count))


def test_a_corpus_of_one_block_cannot_be_split() -> None:
    with pytest.raises(UserError, match="less than two blocks") as caught:
        split_held_out(np.zeros((1, 8)))
    assert "--block-length" in caught.value.hint


# Masking


@pytest.fixture(scope="module")
def blocks(tokenizer: Tokenizer) -> list[np.ndarray]:
    """A quarter of a million ordinary tokens in blocks with [CLS], [SEP]s and padding."""
    random = np.random.default_rng(0)
    ids = random.integers(5, tokenizer.get_vocab_size(), size=(2000, 128), dtype=np.int32)
    ids[:, 0], ids[:, 64] = 2, 3
    ids[:, 120], ids[:, 121:] = 3, 0
    return list(ids)


def test_masks_have_the_published_proportions(tokenizer: Tokenizer, blocks: list[np.ndarray]) -> None:
    batch = Masking(tokenizer)(blocks, torch.Generator().manual_seed(1))
    original = torch.from_numpy(np.stack(blocks)).long()
    chosen = batch["labels"] != -100
    ordinary = original > 4
    after = batch["input_ids"][chosen]
    count = int(chosen.sum())
    # Standard deviations are about 0.0007 of the first and 0.002 of the others.
    assert count / int(ordinary.sum()) == pytest.approx(0.15, abs=0.004)
    assert int((after == 4).sum()) / count == pytest.approx(0.8, abs=0.01)
    assert int((after == original[chosen]).sum()) / count == pytest.approx(0.1, abs=0.01)
    replaced = after[(after != 4) & (after != original[chosen])]
    assert len(replaced) / count == pytest.approx(0.1, abs=0.01)
    # Replacements are drawn from the whole vocabulary: 3,700 draws of 2,000 words see most of them.
    assert len(replaced.unique()) > 0.75 * tokenizer.get_vocab_size()


def test_special_tokens_are_never_chosen_and_nothing_else_changes(
    tokenizer: Tokenizer, blocks: list[np.ndarray]
) -> None:
    batch = Masking(tokenizer, probability=0.5)(blocks[:200], torch.Generator().manual_seed(1))
    original = torch.from_numpy(np.stack(blocks[:200])).long()
    special = torch.isin(original, torch.tensor([0, 2, 3]))
    chosen = batch["labels"] != -100
    assert not (chosen & special).any()
    assert torch.equal(batch["labels"][chosen], original[chosen])
    assert torch.equal(batch["input_ids"][~chosen], original[~chosen])
    assert torch.equal(batch["attention_mask"], (original != 0).long())


def test_a_seed_repeats_its_masks_and_another_draw_does_not(tokenizer: Tokenizer, blocks: list[np.ndarray]) -> None:
    masking = Masking(tokenizer)
    generator = torch.Generator().manual_seed(1)
    first = masking(blocks[:20], generator)
    second = masking(blocks[:20], generator)
    again = masking(blocks[:20], torch.Generator().manual_seed(1))
    assert all(torch.equal(first[name], again[name]) for name in ("input_ids", "attention_mask", "labels"))
    assert not torch.equal(first["labels"], second["labels"])
