"""Invented names, drawn so that no word of one split is ever used in another.

Because every name is made of syllables, an answer cannot be known beforehand: it can only be read in the passage. And
because the syllables are few, a vocabulary of two thousand pieces spells any name in two or three of them.
"""

import random
import re
import zlib
from collections.abc import Callable
from functools import partial

SPLITS = ("train", "dev", "test")


def _syllables(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_SYLLABLES = _syllables(
    "ald bal bren cor dal del dov elm erm fal fen fir gal gol gren hal hes ilm isk jal jor kel kor lam lum mel mor nim "
    "nor orm ost pav pel quil ras ros sel sul tam tav thal und val vos wen yar zem"
)
MIDDLE_SYLLABLES = _syllables("ba da ko li mi no ra re sa to va vi")
LAST_SYLLABLES = {
    "given": _syllables("do ka la len mo na ra ris to ven"),
    "family": _syllables("dal gard kov ling mark ner rick sen son well"),
    "town": _syllables("berg burg dorf grad holm lund mir port stad vik"),
    "thing": _syllables("dra lis mo na net ra ro rus ta vo"),
}

THREE_SYLLABLE_RATE = 0.2

# Any invented word, in lower case.
INVENTED = re.compile(
    f"(?:{'|'.join(FIRST_SYLLABLES)})"
    f"(?:{'|'.join(MIDDLE_SYLLABLES)})?"
    f"(?:{'|'.join(syllable for syllables in LAST_SYLLABLES.values() for syllable in syllables)})"
)


def split_of(word: str) -> str:
    """The one split that may use an invented word: an eighth of all words each for dev and test, the rest for train.

    A checksum decides rather than `hash`, which differs from one process to the next.
    """
    return {0: "dev", 1: "test"}.get(zlib.crc32(word.lower().encode()) % 8, "train")


class Draw:
    """Random values for one passage, no two of them equal, so that no fact can be mistaken for another.

    No two invented words of a passage begin alike: then the first piece of a word is enough to find it again.

    `names` collects the full names drawn so far, `words` the invented words in them.
    """

    def __init__(self, split: str, rng: random.Random) -> None:
        self.split = split
        self.rng = rng
        self.names: list[str] = []
        self.words: list[str] = []
        self._values: set[str] = set()
        self._firsts: set[str] = set()

    def unlike_before(self, draw_value: Callable[[], str]) -> str:
        """The first result of `draw_value` that this passage does not hold yet."""
        while (value := draw_value()) in self._values:
            pass
        self._values.add(value)
        return value

    def name(self, pattern: str) -> str:
        """A new name after a pattern such as `"{given} {family}"` or `"{thing} River"`."""
        words = {
            sort: self.unlike_before(partial(self._word, sort)) for sort in LAST_SYLLABLES if f"{{{sort}}}" in pattern
        }
        name = pattern.format_map(words)
        self.words.extend(words.values())
        self.names.append(name)
        return name

    def _word(self, sort: str) -> str:
        while True:
            middle = self.rng.choice(MIDDLE_SYLLABLES) if self.rng.random() < THREE_SYLLABLE_RATE else ""
            first = self.rng.choice(FIRST_SYLLABLES)
            word = first + middle + self.rng.choice(LAST_SYLLABLES[sort])
            if first not in self._firsts and split_of(word) == self.split:
                self._firsts.add(first)
                return word.capitalize()
