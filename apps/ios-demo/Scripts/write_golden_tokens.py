r"""What the Hugging Face tokeniser makes of texts, for the tests of the Swift kit.

    .venv/bin/python apps/ios-demo/Scripts/write_golden_tokens.py
    .venv/bin/python apps/ios-demo/Scripts/write_golden_tokens.py --tokenizer TOKENIZER.json \
        --squad data/squad/dev-v1.1.json data/squad/train-v1.1.json --fuzz 20000 --every-scalar

The first writes what is checked in, to Tests/EdgeDistilKitTests/Golden/Tokens, in some fifteen seconds: the questions
and passages of the starter set's dev split, hard texts, words from every block of Unicode, and a digest of nearly every
scalar in a word. `tests/test_swift_golden.py` says when the files are no longer what this writes. The second writes
larger files, which git ignores, to Golden/Local: the questions and contexts of SQuAD files in a real vocabulary, random
texts in it, and the digest of every scalar.

A file of tokens holds `texts`; `vocabulary`, the text of `model.vocab`; and `tokenizers`, each with its `name`, its
tokenizer.json as `file`, in which `vocab` is empty, and `expected`: for each text the tokens as [id, gap, length, id,
gap, length, …], where a token starts `gap` scalars behind the end of the one before it. Special tokens are not added.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers

from edge_distil import starter

GOLDEN = Path(__file__).parent.parent / "Tests/EdgeDistilKitTests/Golden"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SCALARS = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
# Scalars of one text of the digests, and of one digest.
TEXT_SCALARS, DIGEST_SCALARS = 256, 4096
FACTOR = 0x100000001B3

Definition = dict[str, Any]


def without_vocabulary(definition: Definition) -> tuple[Definition, dict[str, int]]:
    """A tokenizer.json with an empty vocabulary, and its vocabulary."""
    model = definition["model"]
    return definition | {"model": model | {"vocab": {}}}, model["vocab"]


def variant(
    definition: Definition,
    *,
    normalizer: dict[str, bool | None] | None = None,
    model: dict[str, Any] | None = None,
    added: Sequence[dict[str, Any]] = (),
) -> Definition:
    """The same tokenizer.json with other settings and more added tokens."""
    vocabulary = definition["model"]["vocab"]
    plain = {"special": False, "normalized": True, "lstrip": False, "rstrip": False, "single_word": False}
    more, free = [], len(vocabulary)
    for token in added:
        # A token that the vocabulary has keeps its id.
        known = vocabulary.get(token["content"])
        more.append({"id": free if known is None else known} | plain | token)
        free += known is None
    return definition | {
        "normalizer": definition["normalizer"] | (normalizer or {}),
        "model": definition["model"] | (model or {}),
        "added_tokens": definition["added_tokens"] + more,
    }


def load(definition: Definition) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Encoding]:
    """Encodings one by one, without a thread pool and without holding all."""
    return (tokenizer.encode(text, add_special_tokens=False) for text in texts)


def flat(encoding: Encoding) -> list[int]:
    """[id, gap, length, …] of an encoding."""
    numbers, end = [], 0
    for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        numbers += [token_id, start - end, stop - start]
        end = stop
    return numbers


def golden(texts: Sequence[str], definitions: dict[str, Definition]) -> str:
    """The JSON of one file of tokens. All definitions share a vocabulary."""
    texts = list(dict.fromkeys(texts))
    made: list[dict[str, Any]] = []
    vocabulary: dict[str, int] = {}
    for name, definition in definitions.items():
        file, vocabulary = without_vocabulary(definition)
        expected = [flat(encoding) for encoding in encode(load(definition), texts)]
        made.append({"name": name, "file": json.dumps(file), "expected": expected})
    return dump({"vocabulary": json.dumps(vocabulary), "texts": texts, "tokenizers": made})


def dump(content: dict[str, Any]) -> str:
    """ASCII JSON whose lists have an element a line, so that a difference shows where it is."""

    def lines(value: Any, depth: int) -> str:
        if depth and isinstance(value, dict):
            return "{" + ",\n".join(f"{json.dumps(key)}:{lines(one, depth - 1)}" for key, one in value.items()) + "}"
        if depth and isinstance(value, list):
            return "[\n" + ",\n".join(lines(one, depth - 1) for one in value) + "]"
        return json.dumps(value, separators=(",", ":"))

    return lines(content, 4) + "\n"


def starter_definition() -> Definition:
    path = starter.teacher_folder("question-answering") / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8"))


def squad_texts(data: dict[str, Any]) -> Iterator[str]:
    """Every context and question of a SQuAD file."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]
            yield from (qa["question"] for qa in paragraph["qas"])


def cased(definition: Definition) -> Definition:
    return variant(definition, normalizer={"lowercase": False})


def block_texts() -> Iterator[str]:
    """Words with scalars from every 128 code points of the planes that have scripts, and of the tags."""
    starts = [*range(0, 0x20000, 128), *range(0xE0000, 0xE0200, 128)]
    # Which scalars of a block are assigned differs by Unicode version, so the places are arbitrary.
    words = [f"a{chr(start + 0x15)}{chr(start + 0x52)}" for start in starts if not 0xD800 <= start <= 0xDFFF]
    yield from (" ".join(words[first : first + 16]) for first in range(0, len(words), 16))


HARD_TEXTS = (
    "",
    " ",
    " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u2000\u2007\u2028\u2029\u202f\u205f\u3000x",
    "a\0b\ufffdc\u0001d\u001ce\u007ff\u0080g\u009fh",
    "soft\u00adhyphen zero\u200bwidth joi\u200dner non\u200cjoiner mark\u200e\u200f \ufeffbom\ufeff word\u2060joiner",
    "\u061carabic\u180e mongolian \u2066isolate\u2069 \U000e0041\U000e007f tags \ufff9a\ufffab\ufffb",
    "\ud7ff\ue000 \uf8ff\uf900 \ufdd0\ufdef \ufffe\uffff \U0001fffe\U0001ffff \U000f0000x\U0010fffdy\U0010ffff",
    "\U00010000 \U0000d7a3 \ud7a4\ud7ff \ue000",
    "Café ÉCOLE naïve Ångström Zürich Øre Łódź Đuro ħ ß ẞ ŉ ĳ Ǆ ǅ ǆ",
    "Cafe\u0301 E\u0301COLE nai\u0308ve A\u030angstro\u0308m \u0301x x\u0301\u0301\u0301\u0301 \u0344a",
    "q\u0307\u0323 q\u0323\u0307 \u1e69 s\u0323\u0307 s\u0307\u0323 \u1e0b\u0323 a\u0315\u0300\u05ae\u0062",
    "a\U0001d165\u0301b a\U0001d15e\u0301\U0001d16db a\u302e\u0316\u302ab a\u1b44\u0301 \u0301\U0001d165\u0316 "
    "x\U00016ff0\u0301",
    "a\u0301\u0316\U0001d16d\U0001d165\u0323b \u0301\U0001d16d\U0001d165 c\u1ab0\u1abf\u0301\u1ac0d "
    "e\u0898\u0301\U00010efdf",
    "e\u0301\U0001d165[SEP]\U0001d16d\u0301 \U0001d165\U0001d16d[MASK]\u0301",
    "\U0001d1bb\U0001d1bc\U0001d1c0 \U0001d15f \u0958\u0959 \u09dc \u0a33 \u0b5c \u0f43 \u0f73\u0f71\u0f80 "
    "\ufb1d \ufb2e",
    "İstanbul İİ ıI I\u0307 ÎÏ ΟΔΥΣΣΕΎΣ Σ ΑΣ Σα ΑΣ. ς ΐ ΰ ᾳ ᾼ ῼ ﬁne ﬀ ŉa ǰ ẖ ẞ Ω Å K ℵ Ⅷ ⓐ Ⓩ Ａｚ Ǆ 𐐀𐐨 Ა ა Ꭰ ꭰ",
    "≠ ≮ ≯ ; \u0387 \u1fef \u2000 \u2329\u232a \u226e\u0301 \u0340\u0341\u0343 a\u0338 =\u0338 <\u0338x",
    '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~ a!b"c#d$e a_b x^y `q` ~ <> |',
    "¡¿ “so” ‘it’s’ — – … ‹a› «b» • † ‰ ′ ″ ※ ‼ ⁉ § ¶ © ® ™ € £ ¥ ¢ ± × ÷ ¬ ½ ² № ° ‿ ⁀ ⟨a⟩ 、。〃「」『』【】〜・",
    "東京は日本の首都。서울 한국어 ᄒ\u1161ᆫ 각ᆨ 漢a字b㐀x豈豈\ufa6a丽"
    "\U00020000\U0002a6df\U0002a6e0\U0002a700\U0002b73f\U0002b740",
    "\U0002b81f\U0002b820\U0002b920\U0002ceaf\U0002ceb0\U0002f800\U0002fa1f\U0002fa20\U00030000 "
    "\u2e80\u2f00\u3007\u31c0\u9fff\ua000",
    "かがカガは\u3099ば゛゜ヷ ｶﾞ ㍿ ㌀ 〱 々 ー ﾞ ไทย ภาษาไทย ລາວ བོད་ཡིག ខ្មែរ မြန်မာ",
    "हिन्दी नमस्ते क्ष क़ বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ગુજરાતી ਪੰਜਾਬੀ ଓଡ଼ିଆ",
    "العربية مُحَمَّد ﷺ ﻻ لا ٠١٢ ، ؛ ؟ עִבְרִית שָׁלוֹם ײַ שּׁ ־ ״ فارسی اُردو ܐܒܓ ߊߋ ދިވެހި",
    "Ελληνικά ἀρχή ᾠδή Русский Ёлка Їжак ЙОГУРТ Հայերեն և ქართული Ქ አማርኛ ᏣᎳᎩ ᐃᓄᒃ ᚠᚢ ᠮᠣᠩ ꆈ ⲕⲟⲡ 𐌰 𐤀 𒀀 𓀀 𝔘𝔫𝔦 𝟘 🄰",
    "👩\u200d👩\u200d👧\u200d👦 👍🏽 🏳️\u200d🌈 🇩🇪🇫 ❤️ ☃x 5️⃣ #️⃣ 🧑🏿\u200d🚀 😀a😀 \ufe0f\u20e3 "
    "🏴\U000e0067\U000e0062\U000e007f",
    "[SEP] a[MASK]b [sep] [CLS][UNK] x [[SEP]] [SEP [ SEP ] [PAD][PAD] [MASK].[mask] [SE\u0301P] [SE\u00adP]",
    "#[CLS]# ##ing # #a a# [UNK]é[SEP]漢[MASK]\u0301 \u0301[SEP]\u0301 [CLS",
    "new token NEW TOKEN Éclair éclair eclair ECLAIR e\u0301clair xéclairx <ent> x<ent>y  <ent>  ",
    "  left\t<l>  right<r> \n\u3000x both \u00a0<b>\u2003 <b> <r><l> <r> <l> "
    "<w> x<w> <w>x é<w> _<w> 1<w> -<w>- <w><w> 字<w> \u0301<w>",
    " <s> <s><s>< s> <r>  <s> x İ<n> <N> <\u0301n> i\u0307stan İSTAN a\u00adb<n>",
    f"{'x' * 100} {'y' * 101} {'z' * 300} {'é' * 100} {'é' * 101} "
    f"{'e' * 99}\u0301\u0301 {'w' * 100}\u00ad {'İ' * 51} {'漢' * 101}",
    "ab" * 5120,
    "é" * 5000 + "x",
    "e\u0301\u0323" * 2500,
    "a\u00ad" * 5000,
    "\u0301" * 5000,
    "a" + "\u0316\U0001d165" * 1000,
    "漢" * 1000,
    "!" * 1000,
    " " * 10240,
    "unaffable unaffables supercalifragilistic 1234567890 3.14 a1b2 i'm don't U.S.A. e-mail x@y.z http://a.b/c?d=e&f",
)


def words_of(texts: Iterable[str]) -> list[str]:
    """The words that any of BERT's normalisers makes of texts, each once."""
    words: dict[str, None] = {}
    for text in texts:
        for lowercase in (False, True):
            for strip in (False, True):
                normal = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip).normalize_str(text)
                words |= dict.fromkeys(normal.split())
    return list(words)


def hard_definition(texts: Sequence[str]) -> Definition:
    """A tokeniser whose vocabulary spells most of the texts: most of their scalars and some of their longer parts."""
    choice = random.Random(7)
    words = words_of(texts)
    scalars = sorted({scalar for word in words for scalar in word})
    pieces = dict.fromkeys(SPECIALS)
    for scalar in scalars:
        # Some are left out at the start of a word, some inside it, some in both places: those words are unknown.
        if choice.random() < 0.95:
            pieces[scalar] = None
        if choice.random() < 0.95:
            pieces["##" + scalar] = None
    for word in words:
        start, length = int(choice.random() * len(word)), 2 + int(choice.random() * 6)
        pieces[("##" if start else "") + word[start : start + length]] = None
    definition = starter_definition()
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return variant(definition | {"model": definition["model"] | {"vocab": vocabulary}})


def hard() -> str:
    definition = hard_definition(HARD_TEXTS)
    off = {"clean_text": False, "handle_chinese_chars": False, "lowercase": False, "strip_accents": False}
    added = [
        {"content": "new token"},
        {"content": "Éclair"},
        {"content": "<ent>", "normalized": False},
        {"content": "<l>", "normalized": False, "lstrip": True},
        {"content": "<r>", "normalized": False, "rstrip": True},
        {"content": "<b>", "lstrip": True, "rstrip": True},
        {"content": "<w>", "single_word": True},
        {"content": " <s>", "normalized": False},
        {"content": "<n>", "single_word": True, "lstrip": True},
        {"content": "istan"},
        {"content": "clair"},
        {"content": "[SEP", "special": True, "normalized": False},
        {"content": "é[", "special": True},
    ]
    unaccented = {"lowercase": True, "strip_accents": False}
    return golden(
        HARD_TEXTS,
        {
            "uncased": definition,
            "cased": cased(definition),
            "uncased with accents": variant(definition, normalizer=unaccented),
            "cased without accents": variant(definition, normalizer={"lowercase": False, "strip_accents": True}),
            "no normalisation": variant(definition, normalizer=off),
            "stripping only": variant(definition, normalizer=off | {"strip_accents": True}),
            "lower-casing only": variant(definition, normalizer=off | {"lowercase": True}),
            "ideographs only": variant(definition, normalizer=off | {"handle_chinese_chars": True}),
            "words of five": variant(definition, model={"max_input_chars_per_word": 5}),
            "no words": variant(definition, model={"max_input_chars_per_word": 0}),
            "no prefix": variant(definition, model={"continuing_subword_prefix": ""}),
            "letter as prefix": variant(definition, model={"continuing_subword_prefix": "a"}),
            "added tokens": variant(definition, added=added),
            "added tokens, cased": variant(cased(definition), added=added),
            "added tokens, uncased with accents": variant(definition, normalizer=unaccented, added=added),
        },
    )


def blocks() -> str:
    texts = list(block_texts())
    definition = hard_definition(texts)
    return golden(texts, {"uncased": definition, "cased": cased(definition)})


def starter_set() -> str:
    definition = starter_definition()
    texts = list(squad_texts(starter.questions("dev")))
    return golden(texts, {"uncased": definition, "cased": cased(definition)})


def scalar_texts(scalars: Sequence[int]) -> Iterator[str]:
    """Each scalar inside a word, and between two marks of another, in texts of `TEXT_SCALARS` of them."""
    for first in range(0, len(scalars), TEXT_SCALARS):
        characters = map(chr, scalars[first : first + TEXT_SCALARS])
        yield " ".join(f"a{character}b e\u0316{character}\u0301z" for character in characters)


def digest(tokenizer: Tokenizer, texts: Iterable[str]) -> str:
    """A hash of the tokens as numbers (id, start, end), offsets in UTF-8 bytes of their text.

    Each number n makes it `hash * FACTOR + n`, modulo 2**64: cheap in a Swift that is not optimised.
    """
    numbers = []
    for text in texts:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        lengths = np.array([len(character.encode()) for character in text])
        bytes_before = np.concatenate(([0], np.cumsum(lengths)))
        offsets = bytes_before[np.array(encoding.offsets).reshape(-1, 2)]
        numbers.append(np.column_stack((encoding.ids, offsets)).ravel().astype(np.uint64))
    hashed = np.concatenate(numbers)[::-1]
    powers = np.multiply.accumulate(np.concatenate(([1], np.full(len(hashed) - 1, FACTOR))).astype(np.uint64))
    return f"{int((hashed * powers).sum(dtype=np.uint64)):x}"


def scalar_digests(every: bool) -> str:
    """The tokens of each scalar, as one digest for `DIGEST_SCALARS` of them.

    Any scalar that is not itself the normal form of another is unknown to the vocabulary, so it shows only whether it
    is dropped, parts words or stands alone. Planes 4 to 13, 15 and 16, which hold nothing but unassigned and private
    scalars, are left out but for their ends unless `every` is given.
    """
    nfd, lower = normalizers.NFD().normalize_str, normalizers.Lowercase().normalize_str
    forms = {form for code in SCALARS for form in nfd(chr(code)) + lower(chr(code)) if form != chr(code)}
    pieces = [*SPECIALS, *(p + f for f in sorted({*"abez", *forms}) for p in ("", "##"))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    definition = starter_definition()
    definition |= {"model": definition["model"] | {"vocab": vocabulary}}
    definitions = {
        f"{'lower-case' if lowercase else 'cased'}, strip_accents {json.dumps(strip)}": variant(
            definition, normalizer={"lowercase": lowercase, "strip_accents": strip}
        )
        for lowercase in (True, False)
        for strip in (None, True, False)
        if strip is None or strip != lowercase
    }
    parts = []
    for first in range(0, 0x110000, DIGEST_SCALARS):
        inside = 0 < first & 0xFFFF < 0xF000 and (first >> 16) not in (0, 1, 2, 3, 14)
        if every or not inside:
            parts.append([code for code in range(first, first + DIGEST_SCALARS) if not 0xD800 <= code <= 0xDFFF])
    made = []
    for name, settings in definitions.items():
        tokenizer = load(settings)
        digests = [digest(tokenizer, scalar_texts(part)) for part in parts]
        made.append({"name": name, "file": json.dumps(without_vocabulary(settings)[0]), "digests": digests})
    return dump(
        {"vocabulary": json.dumps(vocabulary), "firsts": [part[0] for part in parts if part], "tokenizers": made}
    )


def random_texts(count: int, vocabulary: Sequence[str], seed: int = 11) -> Iterator[str]:
    """Short texts of scalars from everywhere, pieces of the vocabulary, marks, ideographs, emoji and odd spaces."""
    choice = random.Random(seed)
    ranges = ((0x20, 0x7E), (0, 0x24F), (0x300, 0x36F), (0x370, 0x1FFF), (0x590, 0x8FF), (0x2000, 0x2BFF))
    ranges += ((0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0x10000, 0x1FFFF))
    ranges += ((0x1D100, 0x1D1FF), (0x1F300, 0x1FAFF), (0x20000, 0x2FA1F), (0xE000, 0x10FFFF))
    special = (*SPECIALS, "[sep]", "\u200d", "\ufe0f", "\u00ad", "\u0301", "\u0316", "\U0001d165", "\u302e", "İ", "Σ")
    for _ in range(count):
        parts = []
        for _ in range(int(choice.random() * 24)):
            kind = choice.random()
            if kind < 0.4:
                first, last = choice.choice(ranges)
                parts.append(chr(first + int(choice.random() * (last - first + 1))))
            elif kind < 0.75:
                parts.append(choice.choice(vocabulary).removeprefix("##"))
            elif kind < 0.85:
                parts.append(choice.choice(special))
            else:
                parts.append(" ")
        yield "".join(parts)


FILES = {
    "starter.json": starter_set,
    "hard.json": hard,
    "blocks.json": blocks,
    "scalars.json": lambda: scalar_digests(every=False),
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    print(f"{path}: {len(text):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="a real tokenizer.json of BERT: writes Golden/Local")
    parser.add_argument("--squad", type=Path, nargs="*", default=[], help="SQuAD v1.1 files, tokenised with it")
    parser.add_argument("--fuzz", type=int, default=0, help="so many random texts, tokenised with it")
    parser.add_argument("--every-scalar", action="store_true", help="digests of all scalars, to Golden/Local")
    arguments = parser.parse_args()
    if (arguments.squad or arguments.fuzz) and not arguments.tokenizer:
        sys.exit("--squad and --fuzz need --tokenizer")
    if arguments.tokenizer and not (arguments.squad or arguments.fuzz):
        sys.exit("--tokenizer is for --squad and --fuzz: give one of them")
    if not (arguments.tokenizer or arguments.every_scalar):
        for name, make in FILES.items():
            write(GOLDEN / "Tokens" / name, make())
        return
    local = GOLDEN / "Local"
    if arguments.every_scalar:
        write(local / "scalars.json", scalar_digests(every=True))
    if arguments.tokenizer:
        definition = json.loads(arguments.tokenizer.read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
        both = {"uncased": definition, "cased": cased(definition)}
        for path in arguments.squad:
            texts = list(squad_texts(json.loads(path.read_text(encoding="utf-8"))))
            write(local / f"{path.stem}.json", golden(texts, both))
        if arguments.fuzz:
            vocabulary = sorted(definition["model"]["vocab"])
            settings = both | {
                "uncased with accents": variant(definition, normalizer={"lowercase": True, "strip_accents": False}),
                "cased without accents": variant(definition, normalizer={"lowercase": False, "strip_accents": True}),
            }
            write(local / "fuzz.json", golden(list(random_texts(arguments.fuzz, vocabulary)), settings))


if __name__ == "__main__":
    main()
