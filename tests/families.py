"""Small real tokenisers and tiny models of every family, for the tests that hold all families to the same behaviour."""

from functools import cache
from typing import Any

from conftest import bert_config, randomize
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from edge_distil import starter

FAMILIES = ("bert", "distilbert", "roberta")


@cache
def byte_level(*, add_prefix_space: bool = False) -> Tokenizer:
    """A byte-level BPE of the starter's text, put together as RoBERTa's published one is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(starter.corpus("train", documents=100), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=add_prefix_space
    )
    return tokenizer


@cache
def wordpiece(*, lowercase: bool = False, strip_accents: bool | None = None, chinese: bool = True) -> Tokenizer:
    """A WordPiece of the starter's text, put together as BERT's published ones are; cased unless asked otherwise."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=800,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=list("ÉéÜü中国"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(starter.corpus("train", documents=100), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def masked_lm(family: str, *, vocab_size: int = 800, layers: int = 4, **overrides: Any) -> PreTrainedModel:
    """A masked-LM model of width 32 whose weights are all random and distinct. RoBERTa's pad id is 1, and it has as
    many usable positions as the others."""
    if family == "distilbert":
        config = {"dim": 32, "n_layers": layers, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 96}
        config |= {"vocab_size": vocab_size, "dropout": 0.0, "attention_dropout": 0.0}
        return randomize(DistilBertForMaskedLM(DistilBertConfig(**config | overrides)))
    config = {"vocab_size": vocab_size, "num_hidden_layers": layers, "max_position_embeddings": 96}
    if family == "bert":
        return randomize(BertForMaskedLM(bert_config(**config | overrides)))
    shared = bert_config(**config).to_dict()
    kept = (
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
    )
    roberta = {name: shared[name] for name in kept} | {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    roberta |= config | {"max_position_embeddings": 98, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return randomize(RobertaForMaskedLM(RobertaConfig(**roberta | overrides)))
