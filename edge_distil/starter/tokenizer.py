"""The tokenizer of the starter set: a small WordPiece vocabulary made from its own training text.

The vocabulary is composed rather than learnt: the syllables of the invented names, then the words of the corpus by
frequency. Names of every split are thus spelt alike, one piece a syllable, and the file is the same on every run, which
`tokenizers.trainers.WordPieceTrainer` does not promise: it breaks ties by the order of a hash table.
"""

import string
from collections import Counter
from typing import TYPE_CHECKING

from edge_distil.starter.names import FIRST_SYLLABLES, INVENTED, LAST_SYLLABLES, MIDDLE_SYLLABLES
from edge_distil.starter.splits import corpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY_SIZE = 2000


def build_tokenizer(vocabulary_size: int = VOCABULARY_SIZE) -> "Tokenizer":
    """Make an uncased BERT WordPiece tokenizer for the training corpus.

    Returns a tokenizer with at most `vocabulary_size` entries, the special tokens first ([PAD] is 0), which encodes one
    text as `[CLS] A [SEP]` and a pair as `[CLS] A [SEP] B [SEP]`. Raises ValueError for a size that does not hold the
    special tokens, the characters and the syllables.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for chunk, count in Counter("\n".join(corpus("train")).split()).items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(chunk)):
            if not INVENTED.fullmatch(word):
                words[word] += count

    tokenizer = Tokenizer(models.WordPiece(_vocabulary(words, vocabulary_size), unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer


def _vocabulary(words: Counter[str], size: int) -> dict[str, int]:
    """Special tokens, characters and syllables, then the most frequent words until `size` entries are reached."""
    # Single characters, alone and inside a word, spell whatever else a user writes in ASCII.
    characters = string.ascii_lowercase + string.digits
    last_syllables = [syllable for syllables in LAST_SYLLABLES.values() for syllable in syllables]
    base = [*SPECIAL_TOKENS, *characters, *string.punctuation, *(f"##{character}" for character in characters)]
    base += [*FIRST_SYLLABLES, *(f"##{syllable}" for syllable in [*MIDDLE_SYLLABLES, *last_syllables])]
    by_frequency = sorted(words, key=lambda word: (-words[word], word))
    if size < len(set(base)):
        raise ValueError(f"a vocabulary of {size} is too small: {len(set(base))} entries are needed to spell all names")
    pieces = list(dict.fromkeys([*base, *by_frequency]))[:size]
    return {piece: index for index, piece in enumerate(pieces)}
