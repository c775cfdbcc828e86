"""What the Hugging Face tokeniser does with each Unicode scalar, as the tables of the Swift kit.

    .venv/bin/python apps/ios-demo/Scripts/write_unicode_tables.py [--output FILE]

Every scalar value is given to the `tokenizers` package and what comes back is written down. Nothing is read from
Python's or Foundation's own Unicode tables: theirs are of other Unicode versions than the package's, whose parts
themselves differ (a combining mark that its decomposition knows may be unknown to its accent stripping). Takes some
ten seconds. `tests/test_swift_golden.py` says when the package no longer agrees with the file.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

OUTPUT = Path(__file__).parent.parent / "Sources/EdgeDistilKit/Tokenization/UnicodeTables.swift"
LAST = 0x10FFFF
# Bits of a scalar's class. UnicodeData.swift gives them their names.
CONTROL, SPACE, IDEOGRAPH, PUNCTUATION, MARK, DECOMPOSES, LOWERS, REORDERS = (1 << bit for bit in range(8))
HANGUL = range(0xAC00, 0xD7A4)
# One mark of every canonical combining class of Unicode 14. What a character changes places with tells its class.
# fmt: off
CLASS_MARKS = {
    1: 0x334, 6: 0x16FF0, 7: 0x93C, 8: 0x3099, 9: 0x94D, 10: 0x5B0, 11: 0x5B1, 12: 0x5B2, 13: 0x5B3, 14: 0x5B4,
    15: 0x5B5, 16: 0x5B6, 17: 0x5B7, 18: 0x5B8, 19: 0x5B9, 20: 0x5BB, 21: 0x5BC, 22: 0x5BD, 23: 0x5BF, 24: 0x5C1,
    25: 0x5C2, 26: 0xFB1E, 27: 0x64B, 28: 0x64C, 29: 0x64D, 30: 0x64E, 31: 0x64F, 32: 0x650, 33: 0x651, 34: 0x652,
    35: 0x670, 36: 0x711, 84: 0xC55, 91: 0xC56, 103: 0xE38, 107: 0xE48, 118: 0xEB8, 122: 0xEC8, 129: 0xF71,
    130: 0xF72, 132: 0xF74, 202: 0x321, 214: 0x1DCE, 216: 0x31B, 218: 0x302A, 220: 0x316, 222: 0x59A, 224: 0x302E,
    226: 0x1D16D, 228: 0x5AE, 230: 0x300, 232: 0x315, 233: 0x35C, 234: 0x35D, 240: 0x345,
}
# fmt: on


def scalars() -> Iterator[str]:
    """Every Unicode scalar value: all code points but the surrogates."""
    return (chr(code) for code in range(LAST + 1) if not 0xD800 <= code <= 0xDFFF)


def bert(**steps: bool) -> Callable[[str], str]:
    """BERT's normaliser with only these of its steps."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**(off | steps)).normalize_str


nfd = normalizers.NFD().normalize_str
lowered = bert(lowercase=True)


def moves(character: str) -> bool:
    """Whether a character that does not decompose ever changes places: its canonical combining class is not 0."""
    # The lowest mark goes in front of it, or it goes in front of the highest.
    return nfd(character + "\u0334") != character + "\u0334" or nfd("\u0345" + character) != "\u0345" + character


def known_classes() -> dict[int, str]:
    """The marks of `CLASS_MARKS` that the package knows as marks, by class."""
    return {number: chr(mark) for number, mark in CLASS_MARKS.items() if moves(chr(mark))}


def combining_class(character: str, known: dict[int, str]) -> int:
    """The canonical combining class of a character that does not decompose, 0 where it never changes places."""
    if not moves(character):
        return 0
    # It stays in front of marks of its own class and of higher ones, and behind those of its own and of lower ones.
    number = min(number for number, mark in known.items() if nfd(character + mark) == character + mark)
    if nfd(known[number] + character) != known[number] + character:
        raise ValueError(f"U+{ord(character):04X} has a combining class that CLASS_MARKS lacks, below {number}")
    return number


def probe() -> tuple[list[int], dict[int, str], dict[int, str], dict[int, int]]:
    """The class of every code point, the decompositions, the lower-case forms, and the combining classes other than 0.

    Decompositions leave out Hangul syllables, which Unicode decomposes by a formula.
    """
    clean, spaced, stripped = bert(clean_text=True), bert(handle_chinese_chars=True), bert(strip_accents=True)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    classes = [0] * (LAST + 1)
    decompositions, lower, combining, known = {}, {}, {}, known_classes()
    for character in scalars():
        code, framed, bits = ord(character), f"a{character}b", 0
        if clean(framed) == "ab":
            bits |= CONTROL
        pieces = [piece for piece, _ in split(framed)]
        if pieces == ["a", "b"]:
            bits |= SPACE
        elif pieces == ["a", character, "b"]:
            bits |= PUNCTUATION
        elif pieces != [framed]:
            raise ValueError(f"U+{code:04X} splits in a way that the tables cannot say: {pieces}")
        if not bits & CONTROL and clean(framed) != (f"a{' ' if bits & SPACE else character}b"):
            raise ValueError(f"U+{code:04X} is cleaned to {clean(framed)!r}")
        if spaced(framed) == f"a {character} b":
            bits |= IDEOGRAPH
        apart = nfd(character)
        if apart != character:
            bits |= DECOMPOSES
            if code not in HANGUL:
                decompositions[code] = apart
        elif stripped(framed) == "ab":
            bits |= MARK
        if apart == character and (number := combining_class(character, known)):
            combining[code] = number
        small = lowered(character)
        if small != character:
            bits |= LOWERS
            lower[code] = small
        classes[code] = bits
    for character in scalars():
        kept = [ord(part) for part in nfd(character) if not classes[ord(part)] & MARK]
        if any(code in combining for code in kept):
            classes[ord(character)] |= REORDERS
        if stripped(f"a{character}b") != "a" + "".join(map(chr, kept)) + "b":
            raise ValueError(f"U+{ord(character):04X} loses its accents in a way that the tables cannot say")
    return classes, decompositions, lower, combining


def word_characters() -> Iterator[int]:
    r"""The code points that the package's `\w` matches: a token that must stand alone is not found beside them."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken("<>", single_word=True, normalized=False)])
    token = tokenizer.token_to_id("<>")
    for character in scalars():
        if tokenizer.encode(character + "<>").ids[-1] != token:
            yield ord(character)


def ranges(numbers: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Ascending (code point, value) as (first, count, value) of neighbours with one value."""
    first, count, value = -1, 0, 0
    for code, number in numbers:
        if count and code == first + count and number == value:
            count += 1
            continue
        if count:
            yield first, count, value
        first, count, value = code, 1, number
    if count:
        yield first, count, value


def triples(numbers: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Ranges as the numbers that `UnicodeTables` reads: the distance from the end of the one before, count, value."""
    end = 0
    for first, count, value in ranges(numbers):
        yield from (first - end, count, value)
        end = first + count


def mapping(sequences: dict[int, str]) -> Iterator[int]:
    """A mapping to sequences: for each the distance from the key before, the length, the code points."""
    before = 0
    for code, sequence in sequences.items():
        yield from (code - before, len(sequence), *map(ord, sequence))
        before = code


def literal(name: str, comment: str, numbers: Iterable[int]) -> str:
    """A Swift string of hexadecimal numbers, in lines of at most 120 columns."""
    lines, line = [], ""
    for number in numbers:
        word = f"{number:x}"
        if len(line) + len(word) > 108:
            lines.append(line)
            line = ""
        line += word + " "
    text = " \\\n".join(f"        {line.rstrip()}" for line in [*lines, line])
    return f'    /// {comment}\n    static let {name}: StaticString = """\n{text}\n        """\n'


def source() -> str:
    """The whole Swift file."""
    classes, decompositions, lower, combining = probe()
    parts = [
        literal(
            "classes",
            "Scalars that are more than part of a word: distance from the end of the last range, count, class.",
            triples((code, bits) for code, bits in enumerate(classes) if bits),
        ),
        literal(
            "decompositions",
            "Canonical decompositions in full, without Hangul: distance from the last key, length, scalars.",
            mapping(decompositions),
        ),
        literal("lowercase", "Lower-case forms: distance from the last key, length, scalars.", mapping(lower)),
        literal(
            "combiningClasses",
            "Canonical combining classes: distance from the end of the last range, count, class.",
            triples(combining.items()),
        ),
        literal(
            "wordCharacters",
            r"What `\w` of the reference matches: distance from the end of the last range, count, 1.",
            triples((code, 1) for code in word_characters()),
        ),
    ]
    return (
        "// Generated by Scripts/write_unicode_tables.py: what the Hugging Face `tokenizers` package, version\n"
        f"// {tokenizers.__version__}, does with each Unicode scalar. Hexadecimal numbers between blanks.\n"
        "// Write it again instead of editing it.\n\n"
        "enum UnicodeTables {\n" + "\n".join(parts) + "}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the Swift file to write")
    arguments = parser.parse_args()
    text = source()
    arguments.output.write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {len(text):,} bytes")


if __name__ == "__main__":
    main()
