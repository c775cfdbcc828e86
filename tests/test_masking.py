"""Which tokens are masked, in which order blocks are read, and that both follow from the seed alone."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edge_distil import starter
from edge_distil.corpus.masking import Masking, collate
from edge_distil.corpus.packing import Block
from edge_distil.corpus.prepare import from_documents
from edge_distil.corpus.prepared import PreparedCorpus
from edge_distil.corpus.stream import Stream, held_out, shuffled
from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens, starts_word

LENGTH = 64


@pytest.fixture(scope="module")
def blocks(tokenizer: Tokenizer) -> PreparedCorpus:
    return from_documents(starter.corpus("test", documents=60), tokenizer, LENGTH)


def masked(masking: Masking, blocks: PreparedCorpus) -> list:
    return [masking(blocks[index], np.random.default_rng(index)) for index in range(len(blocks))]


def test_fifteen_percent_are_masked_80_10_10(tokenizer: Tokenizer, blocks: PreparedCorpus) -> None:
    special = special_tokens(tokenizer)
    before = np.concatenate([block.input_ids for block in blocks])
    rows = masked(Masking(tokenizer), blocks)
    after = np.concatenate([row.block.input_ids for row in rows])
    ordinary = ~np.isin(before, [special.cls, special.sep, special.pad])
    hidden = np.concatenate([index * LENGTH + row.positions_M for index, row in enumerate(rows)])
    labels = np.concatenate([row.labels_M for row in rows])
    assert len(hidden) / ordinary.sum() == pytest.approx(0.15, abs=0.003)
    assert ordinary[hidden].all()
    np.testing.assert_array_equal(labels, before[hidden])
    untouched = np.ones(len(before), dtype=bool)
    untouched[hidden] = False
    np.testing.assert_array_equal(after[untouched], before[untouched])
    assert (after[hidden] == special.mask).mean() == pytest.approx(0.8, abs=0.03)
    assert (after[hidden] == labels).mean() == pytest.approx(0.1, abs=0.03)


def test_rare_tokens_are_masked_more_often_by_their_counts(tokenizer: Tokenizer) -> None:
    # One token in two is of a word that occurs 100 times as often as the other: weights of 1 and 100 ** -0.7 = 0.04.
    special, (common, rare) = special_tokens(tokenizer), (1000, 1001)
    ids = np.array([special.cls, *[common, rare] * 31, special.sep])
    counts = np.ones(tokenizer.get_vocab_size(), dtype=np.int64)
    counts[common] = 100
    masking = Masking(tokenizer, counts)
    labels = np.concatenate(
        [masking(Block(ids, np.array([64])), np.random.default_rng(seed)).labels_M for seed in range(200)]
    )
    weight = 100**-0.7
    # 9.3 of 31 rare and 31 common ones are drawn without replacement, which favours the common ones a little.
    assert weight / (1 + weight) < (labels == common).mean() < 2 * weight / (1 + weight)


def test_whole_words_are_masked_with_all_their_pieces(tokenizer: Tokenizer, blocks: PreparedCorpus) -> None:
    begins = starts_word(tokenizer)
    rows = masked(Masking(tokenizer, blocks.token_counts, whole_words=True), blocks)
    share = sum(len(row.positions_M) for row in rows) / sum(len(block.input_ids) for block in blocks)
    assert 0.1 < share < 0.17
    for index, row in enumerate(rows):
        ids, hidden = blocks[index].input_ids, np.zeros(LENGTH, dtype=bool)
        hidden[row.positions_M] = True
        for position in range(2, LENGTH):
            if not begins[ids[position]] and position not in np.cumsum(row.block.lengths) + 1:
                assert hidden[position] == hidden[position - 1], tokenizer.decode(ids.tolist())


def test_a_batch_puts_the_masked_tokens_first_and_leaves_padding_out(
    tokenizer: Tokenizer, blocks: PreparedCorpus
) -> None:
    rows = masked(Masking(tokenizer), blocks)[-4:]
    batch = collate(rows)
    flat = batch["input_ids"].flatten()
    count = len(batch["labels"])
    real = torch.nonzero(batch["piece_ids"].flatten() >= 0).squeeze(1)
    assert sorted(batch["order"].tolist()) == real.tolist()
    first = torch.cat([row * LENGTH + torch.from_numpy(item.positions_M) for row, item in enumerate(rows)])
    assert batch["order"][:count].tolist() == first.tolist()
    special = special_tokens(tokenizer)
    starts = flat == special.cls
    assert (batch["position_ids"].flatten()[starts] == 0).all()
    assert (flat[batch["piece_ids"].flatten() < 0] == special.pad).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65, 1000])
def test_the_shuffle_is_a_permutation(count: int) -> None:
    order = [shuffled(place, count, key=7) for place in range(count)]
    assert sorted(order) == list(range(count))


def test_the_shuffle_looks_like_chance() -> None:
    order = np.array([shuffled(place, 5000, key=3) for place in range(5000)])
    other = np.array([shuffled(place, 5000, key=4) for place in range(5000)])
    for sequence in (order, other):
        assert abs(np.corrcoef(sequence[:-1], sequence[1:])[0, 1]) < 0.05
        assert abs(np.corrcoef(sequence, np.arange(5000))[0, 1]) < 0.05
    assert (order == other).sum() < 10


def test_a_stream_reads_every_block_once_an_epoch_and_no_held_out_one(
    tokenizer: Tokenizer, blocks: PreparedCorpus
) -> None:
    stream = Stream(blocks, Masking(tokenizer, probability=0.0), items=3 * len(blocks), seed=0)
    text = {blocks[index].input_ids.tobytes(): index for index in range(len(blocks))}
    length = stream.epoch_length
    epochs = [
        [text[stream[item].block.input_ids.astype(np.int32).tobytes()] for item in range(start, start + length)]
        for start in (0, length)
    ]
    expected = sorted(set(range(len(blocks))) - set(held_out(len(blocks)).tolist()))
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_the_same_block_is_masked_anew_each_epoch_and_the_same_way_again(
    tokenizer: Tokenizer, blocks: PreparedCorpus
) -> None:
    streams = [Stream(blocks, Masking(tokenizer), items=10**6, seed=seed) for seed in (0, 0, 1)]
    one, again, other = (np.stack([stream[item].block.input_ids for item in range(20)]) for stream in streams)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    for one_held, again_held in zip(streams[0].measured(), streams[2].measured(), strict=True):
        np.testing.assert_array_equal(one_held.block.input_ids, again_held.block.input_ids)


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (99, 1), (100, 2), (1000, 20), (10_000, 128)])
def test_how_many_blocks_are_held_out(count: int, expected: int) -> None:
    chosen = held_out(count)
    assert len(set(chosen.tolist())) == expected
    assert chosen.min() >= 0
    assert chosen.max() < count


def test_a_corpus_of_one_block_is_refused() -> None:
    with pytest.raises(UserError, match="less than two blocks"):
        held_out(1)
