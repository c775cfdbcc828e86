"""The tokeniser inside an ONNX graph: strings in, logits and the places of tokens in the text out.

onnxruntime-extensions has an operator for BERT's whole tokeniser, but it disagrees with `tokenizer.json` on accents, on
letters that are more than one byte, on [SEP] in a text and on words that are known in part. So the graph holds the
rules of `tokenizer.json` itself, as a table that is made by running it on every character of Unicode:

    texts → bytes → code points → (table) what each becomes → words → WordPiece → ids, offsets

Two operators of the extensions are used: `TrieTokenizer`, which cuts a text into the longest of its entries from left
to right, once for bytes and once for WordPiece, and `StringJoin`. All else is standard ONNX.

Shapes: T texts, N tokens of the longest, K symbols that a character becomes at most, R rows of the encoder's batch
(windows or texts), L their length, B texts to classify, C classes.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime
from edge_distil.tasks import Task
from edge_distil.tasks.classification import encode
from edge_distil.tasks.decoding import Answer, Decoding, best_spans
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, MAX_QUESTION_TOKENS, Question, Window, windows
from edge_distil.tasks.texts import Example
from edge_distil.tokenization import load_tokenizer, pad, special_tokens

EXTENSIONS_FLOOR = "0.14"  # the oldest release that the toolkit is tested with
_EXTENSIONS = "ai.onnx.contrib"  # the domain of the extensions' operators
_PREFIX = "tokenizer"  # of the names of all that is added to a graph

_CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)  # of UTF-16, no characters
_PAGE = 128  # of the table of characters: most pages are equal to another and are kept once
_NO_CHARACTER = _CODE_POINTS  # its row of that table
_NONE, _SPACE = 0, 1  # symbols
_PRIVATE_USE = range(0xE000, 0xF900)
_NUL, _REPLACEMENT = "\0", "\ufffd"  # both are dropped by `clean_text`

# Rounding alone makes logits differ, where ONNX Runtime arranges the two graphs differently; another token far more.
_LOGIT_TOLERANCE = 1e-3
_REPORT = "this is a fault of the exporter: please report it with the tokenizer.json and the text"
# What tokenisers differ on; `check` tokenises these beside the user's own.
HARD_TEXTS = (
    "Café Zürich Ångström İstanbul ΟΔΥΣΣΕΎΣ ﬁne naïve",
    "e\u0301a\u0300 cafe\u0301, q\u0307\u0323! \u0301x",
    "東京は日本の首都。서울 한국어 ไทย हिन्दी",
    "👩\u200d🚀👍🏽 a\u200db\u200cc \ufeffd 🇩🇪 ☃x",
    "tab\tline\nreturn\rno\u00a0break\u3000wide\u2028end\x85\x07bell",
    "[SEP] a[MASK]b [sep] [CLS][UNK] x",
    f"{'x' * 100} {'y' * 101} {'z' * 300}",
    "it’s — “so”… $5 ^a `b` ~c §d €10 №1 ½",
    "nul\0nul",
)


@dataclass(frozen=True, slots=True)
class _Tables:
    """A tokeniser as arrays. A symbol is a character that the vocabulary uses, any other one, or a special token.

    `pages` [rows, K] says which symbols and blanks a character becomes. Its rows are in pages of 128: the page of code
    points 128 p to 128 p + 127 is number `page_of[p]`. Past the last code point come a row for what is no character,
    and one for each special token; `special_texts` are theirs.

    `symbols` spells each symbol as one character, and `begin` is another one, written before each word. `pieces` are
    what words so spelt are cut into, numbered from 1; those that begin a word come last, from `first_begin` on.
    `piece_ids` are their ids in the vocabulary, −1 for a piece that makes its word unknown; `piece_lengths` count their
    symbols.
    """

    page_of: np.ndarray
    pages: np.ndarray
    symbols: list[str]
    begin: str
    special_texts: list[str]
    pieces: list[str]
    first_begin: int
    piece_ids: np.ndarray
    piece_lengths: np.ndarray
    longest_word: int
    unknown_id: int


def text_graph_path(path: str) -> str:
    """The path of the graph with the tokeniser, given that of the one without: `onnx/model_with_tokenizer.onnx`."""
    without = PurePosixPath(path)
    return str(without.with_name(f"{without.stem}_with_tokenizer{without.suffix}"))


def _tables(tokenizer: Tokenizer, where: str) -> _Tables:
    """The tables of a tokeniser. Raises `UserError` for one whose rules are not those of BERT's WordPiece."""
    state = json.loads(tokenizer.to_str())
    _check_kind(state, where)
    model, vocabulary = state["model"], state["model"]["vocab"]
    prefix = model["continuing_subword_prefix"]
    alphabet = sorted({character for token in vocabulary for character in token} - {" ", "\n"})
    free = (character for character in map(chr, _PRIVATE_USE) if character not in alphabet)
    begin, other = next(free), next(free)
    added = {entry["content"]: entry["id"] for entry in state["added_tokens"]}
    spelling = {content: next(free) for content in added}
    symbols = ["", " ", other, *alphabet, *spelling.values()]

    rules = state["normalizer"]
    pages = _characters(rules["handle_chinese_chars"], rules["strip_accents"], rules["lowercase"])
    outside = re.compile(f"[^ \n{re.escape(''.join(alphabet))}]")
    pages = [outside.sub(other, page) for page in pages]
    last = ["", *(f" {character} " for character in spelling.values())]
    pages += ["\n".join(rows) for rows in _batched([*last, *[""] * (-len(last) % _PAGE)])]
    page_of = {page: place for place, page in enumerate(dict.fromkeys(pages))}

    # Pieces inside a word first. What fits nowhere else is a piece without an id, one symbol long.
    inside = {token[len(prefix) :]: token_id for token, token_id in vocabulary.items() if token.startswith(prefix)}
    inside.pop("", None)
    inside = dict.fromkeys((other, *alphabet), -1) | inside
    at_begin = {begin: -1} | {begin + token: token_id for token, token_id in vocabulary.items()}
    at_begin |= {begin + spelling[content]: token_id for content, token_id in added.items()}
    return _Tables(
        page_of=np.array([page_of[page] for page in pages], dtype=np.int32),
        pages=_as_numbers(list(page_of), symbols),
        symbols=symbols,
        begin=begin,
        special_texts=list(added),
        pieces=[*inside, *at_begin],
        first_begin=1 + len(inside),  # 0 is padding
        piece_ids=np.array([*inside.values(), *at_begin.values()], dtype=np.int32),
        piece_lengths=np.array([*map(len, inside), *(len(piece) - 1 for piece in at_begin)], dtype=np.int32),
        longest_word=model["max_input_chars_per_word"],
        unknown_id=vocabulary[model["unk_token"]],
    )


def _check_kind(state: dict[str, Any], where: str) -> None:
    """Refuse a tokeniser, given as the content of its `tokenizer.json`, whose rules the tables cannot hold."""
    hint = "export without --with-tokenizer, and tokenise in the application"

    def kind(part: str) -> str:
        return state[part]["type"] if state[part] else "none"

    expected = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    for part, name in expected.items():
        if kind(part) != name:
            raise UserError(
                f"{where}: its {part.replace('_', '-')} is {kind(part)}; only {name} can be put into a graph", hint
            )
    if not state["normalizer"]["clean_text"]:
        raise UserError(f"{where}: keeps control characters, which a graph's strings cannot hold all", hint)
    for entry in state["added_tokens"]:
        if any(entry[flag] for flag in ("normalized", "single_word", "lstrip", "rstrip")):
            raise UserError(
                f"{where}: the added token {entry['content']!r} is matched by rules of its own "
                "(normalized, single_word, lstrip or rstrip)",
                hint,
            )


def _batched(rows: Sequence[str]) -> Iterator[Sequence[str]]:
    return (rows[first : first + _PAGE] for first in range(0, len(rows), _PAGE))


@lru_cache(maxsize=4)
def _characters(chinese: bool, strip_accents: bool | None, lower_case: bool) -> list[str]:
    """What each code point becomes, with blanks where words end, in pages of one line each.

    BERT's normaliser, whose settings these are, and its pre-tokeniser look at one character at a time, so that a text
    becomes what its characters do.
    """
    normalizer = BertNormalizer(
        handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lower_case, clean_text=True
    )
    codes = ["" if code in _SURROGATES else chr(code) for code in range(_CODE_POINTS)]
    return ["\n".join(_cut(_each(normalizer, characters))) for characters in _batched(codes)]


def _each(normalizer: BertNormalizer, characters: Sequence[str]) -> list[str]:
    """Characters normalised one by one: all at once with a letter between them, unless one becomes that letter."""
    between = "q"
    parts = normalizer.normalize_str(between.join(["", *characters, ""])).split(between)[1:-1]
    if len(parts) != len(characters):
        parts = [normalizer.normalize_str(character) for character in characters]
    return parts


def _cut(parts: Sequence[str]) -> list[str]:
    """Parts with a blank around each character that is a word of its own, and in place of those between words."""
    # Letters at even places: between two of them a blank cuts, and what stands alone is a word of its own.
    text = "q".join(["", *(character for part in parts for character in part), ""])
    words = BertPreTokenizer().pre_tokenize_str(text)
    if len(words) == 1 and words[0][0] == text:  # as almost everywhere
        return list(parts)
    spelt = dict.fromkeys(range(1, len(text), 2), " ")
    for _, (start, end) in words:
        alone = end == start + 1
        spelt |= {place: f" {text[place]} " if alone else text[place] for place in range(start, end) if place % 2}
    places = iter(spelt)
    return ["".join(spelt[next(places)] for _ in part) for part in parts]


def _as_numbers(pages: Sequence[str], symbols: Sequence[str]) -> np.ndarray:
    """`_Tables.pages` of what each character of a page becomes."""
    number = {symbol: index for index, symbol in enumerate(symbols)}
    rows = [[number[symbol] for symbol in row] for page in pages for row in page.split("\n")]
    table = np.full((len(rows), max(map(len, rows))), _NONE, dtype=np.uint16 if len(symbols) < 1 << 16 else np.int32)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


def _trie(entries: Sequence[bytes]) -> str:
    """The vocabulary of a `TrieTokenizer`: entries numbered from 1, each with its length in bytes."""

    def literal(entry: bytes) -> str:
        if all(32 < byte < 127 and byte not in b"\\'\"" for byte in entry):
            return entry.decode()
        # All of it, as an escape does not end before a letter that could be one more of its digits.
        return "".join(f"\\x{byte:02x}" for byte in entry)

    return "\n".join(f"{number} b'{literal(entry)}' {len(entry)}" for number, entry in enumerate(entries, 1))


class _Nodes:
    """Nodes and constants in the order in which they are added. Methods return the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._known: dict[tuple[Any, ...], str] = {}

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        array: np.ndarray = np.array(value, dtype=dtype)
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._known:
            self._known[key] = f"{_PREFIX}.constant.{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def strings(self, values: Sequence[str]) -> str:
        name = f"{_PREFIX}.constant.{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(values, dtype=object), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{_PREFIX}.{len(self.nodes)}.{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, domain=domain, **attributes))
        return name

    def integer(self, condition: str) -> str:
        return self.add("Cast", condition, to=TensorProto.INT64)

    def total(self, values: str) -> str:
        """Running totals of the rows of an array [T, X]."""
        return self.add("CumSum", values, self.constant(1))

    def row_sum(self, values: str) -> str:
        """Sums [T, 1] of the rows of an array [T, X]."""
        return self.add("ReduceSum", values, self.constant([1]), keepdims=1)

    def at(self, values: str, indices: str) -> str:
        """values[t, indices[t, x]], both [T, …]."""
        return self.add("GatherElements", values, indices, axis=1)

    def size(self, values: str, axis: int) -> str:
        """The size of an axis, [1]."""
        return self.add("Shape", values, start=axis, end=axis + 1)

    def range(self, count: str) -> str:
        """0 … count − 1, for a `count` [1]."""
        return self.add("Range", self.constant(0), self.add("Squeeze", count), self.constant(1))

    def zeros(self, rows: str, columns: str) -> str:
        """Zeros [T, X], for a `rows` and a `columns` [1]."""
        shape = self.add("Concat", rows, columns, axis=0)
        return self.add("Expand", self.constant(0), shape)

    def columns(self, values: str, first: int, end: int | None = None) -> str:
        """values[:, first:end]."""
        last = self.constant([np.iinfo(np.int64).max if end is None else end])
        return self.add("Slice", values, self.constant([first]), last, self.constant([1]))

    def compact(self, kept: str) -> tuple[str, str, str]:
        """Where the kept elements of each row are.

        `kept` is bool [T, X]. Returns their places [T, Y], from the left and 0 where a row has no more; how many there
        are in each row, [T, 1]; and 0 … Y − 1. Y is one more than the most that a row has.
        """
        flags = self.integer(kept)
        counts = self.row_sum(flags)
        room = self.add("Add", self.add("ReduceMax", counts, keepdims=0), self.constant([1]))
        rank = self.add("Sub", self.total(flags), self.constant(1))
        # What is not kept goes into the last column, where no row has an element.
        target = self.add("Where", kept, rank, self.add("Sub", room, self.constant(1)))
        index = self.add("Expand", self.range(self.size(kept, 1)), self.add("Shape", kept))
        places = self.add("ScatterElements", self.zeros(self.size(kept, 0), room), target, index, axis=1)
        numbers = self.range(room)
        there = self.add("Less", numbers, counts)
        return self.add("Where", there, places, self.constant(0)), counts, numbers


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Names of what tokenising T texts gives: `ids` [T, N], `offsets` [T, N, 2] in characters, how many tokens there
    are, `counts` [T, 1], and whether there is any text, `filled` bool [T, 1]. N is one more than the longest has.
    """

    ids: str
    offsets: str
    counts: str
    filled: str


def _tokenize(graph: _Nodes, texts: str, tables: _Tables) -> _Tokens:
    """Add the nodes that tokenise `texts`, string [T], without special tokens."""
    # Bytes, numbered from 1; a special token's text is one unit. One more column stands for the end of the texts.
    specials = tables.special_texts
    entries = [bytes([byte]) for byte in range(256)] + [content.encode() for content in specials]
    units = graph.add("TrieTokenizer", texts, domain=_EXTENSIONS, vocab=_trie(entries))
    units = graph.add("Pad", units, graph.constant([0, 0, 0, 4]), graph.constant(0))

    # A character of n bytes: the bits of its first byte and those of the n − 1 after it, six each.
    first_bits = {1: 0x7F, 2: 0x1F, 3: 0x0F, 4: 0x07}
    sizes = [0, *(_utf8_size(byte) for byte in range(256)), *(1 for _ in specials)]
    bits = [0, *(byte & first_bits.get(_utf8_size(byte), 0x3F) for byte in range(256))]
    bits += [_NO_CHARACTER + 1 + index for index in range(len(specials))]
    shifts = [[1 << 6 * (size - 1 - place) if place < size else 0 for place in range(4)] for size in range(5)]
    width = graph.add("Sub", graph.size(units, 1), graph.constant([3]))
    places = graph.add("Unsqueeze", graph.range(width), graph.constant([1]))
    nearby = graph.add("Gather", units, graph.add("Add", places, graph.constant([0, 1, 2, 3])), axis=1)
    units = graph.columns(units, 0, -3)
    size = graph.add("Gather", graph.constant(sizes), units)
    factors = graph.add("Gather", graph.constant(shifts), size)
    parts = graph.add("Mul", graph.add("Gather", graph.constant(bits), nearby), factors)
    code = graph.add("ReduceSum", parts, graph.constant([2]), keepdims=0)
    within = graph.add("Equal", size, graph.constant(0))
    row = graph.add("Where", within, graph.constant(_NO_CHARACTER), code)

    lengths = [*(min(size, 1) for size in sizes[:257]), *map(len, specials)]
    length = graph.add("Gather", graph.constant(lengths), units)
    unit_ends = graph.total(length)
    unit_starts = graph.add("Sub", unit_ends, length)

    # Symbols, then only those that are part of words, each with the number of blanks before it.
    page = graph.add("Gather", graph.constant(tables.page_of, np.int32), graph.add("Div", row, graph.constant(_PAGE)))
    page = graph.add("Mul", graph.integer(page), graph.constant(_PAGE))
    place = graph.add("Add", page, graph.add("Mod", row, graph.constant(_PAGE)))
    symbols = graph.integer(graph.add("Gather", graph.constant(tables.pages, tables.pages.dtype.type), place))
    symbols = graph.add("Reshape", symbols, graph.constant([0, -1]))
    blanks = graph.total(graph.integer(graph.add("Equal", symbols, graph.constant(_SPACE))))
    place, symbol_counts, numbers = graph.compact(graph.add("Greater", symbols, graph.constant(_SPACE)))
    symbols, blanks = graph.at(symbols, place), graph.at(blanks, place)
    symbols = graph.add("Where", graph.add("Less", numbers, symbol_counts), symbols, graph.constant(_NONE))
    unit = graph.add("Div", place, graph.constant(tables.pages.shape[1]))
    symbol_starts, symbol_ends = graph.at(unit_starts, unit), graph.at(unit_ends, unit)

    # Words, each begun by a mark that nothing else is spelt with, so that no piece reaches over two of them.
    before = graph.add("Pad", graph.columns(blanks, 0, -1), graph.constant([0, 1, 0, 0]), graph.constant(-1))
    begins = graph.add("Not", graph.add("Equal", blanks, before))
    spelt = graph.strings([*tables.symbols, "", *(tables.begin + symbol for symbol in tables.symbols[1:])])
    shift = graph.add("Mul", graph.integer(begins), graph.constant(len(tables.symbols)))
    letters = graph.add("Gather", spelt, graph.add("Add", symbols, shift))
    words = graph.add("StringJoin", letters, graph.strings([""]), graph.constant([1]), domain=_EXTENSIONS)

    # WordPiece: the longest piece from the left. One piece without an id, or too many symbols, and the word is unknown.
    pieces = graph.add("TrieTokenizer", words, domain=_EXTENSIONS, vocab=_trie([p.encode() for p in tables.pieces]))
    pieces = graph.add("Pad", pieces, graph.constant([0, 0, 0, 1]), graph.constant(0))
    ids = graph.integer(graph.add("Gather", graph.constant([0, *tables.piece_ids], np.int32), pieces))
    length = graph.integer(graph.add("Gather", graph.constant([0, *tables.piece_lengths], np.int32), pieces))
    is_first = graph.add("GreaterOrEqual", pieces, graph.constant(tables.first_begin))
    word = graph.total(graph.integer(is_first))
    too_long = graph.constant(tables.longest_word + 1)
    weight = graph.add("Where", graph.add("Less", ids, graph.constant(0)), too_long, length)
    columns = graph.add("Add", graph.size(pieces, 1), graph.constant([1]))
    word_weights = graph.zeros(graph.size(pieces, 0), columns)
    word_weights = graph.add("ScatterElements", word_weights, word, weight, axis=1, reduction="add")
    unknown = graph.add("GreaterOrEqual", graph.at(word_weights, word), too_long)
    ids = graph.add("Where", unknown, graph.constant(tables.unknown_id), ids)
    first_symbols = graph.add("Sub", graph.total(length), length)

    # Of an unknown word its first piece stays, which then reaches to the next token, as every token does.
    real = graph.add("Greater", pieces, graph.constant(0))
    kept = graph.add("And", real, graph.add("Or", is_first, graph.add("Not", unknown)))
    place, counts, numbers = graph.compact(kept)
    there = graph.add("Less", numbers, counts)
    ids = graph.at(ids, place)
    first_symbols = graph.add("Where", there, graph.at(first_symbols, place), symbol_counts)
    next_symbols = graph.add("Concat", graph.columns(first_symbols, 1), symbol_counts, axis=1)
    last_symbols = graph.add("Max", graph.add("Sub", next_symbols, graph.constant(1)), graph.constant(0))
    starts, ends = graph.at(symbol_starts, first_symbols), graph.at(symbol_ends, last_symbols)
    axis = graph.constant([2])
    offsets = graph.add("Concat", graph.add("Unsqueeze", starts, axis), graph.add("Unsqueeze", ends, axis), axis=2)
    filled = graph.add("Greater", graph.columns(unit_ends, -1), graph.constant(0))
    return _Tokens(ids, offsets, counts, filled)


def _utf8_size(byte: int) -> int:
    """Of how many bytes the character is that begins with a byte; 0 where none does."""
    if byte < 0x80:
        return 1
    return next((size for size, low in ((4, 0xF0), (3, 0xE0), (2, 0xC0)) if byte >= low), 0)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Names of what R rows are made of, `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`.

    `first_text` and `second_text` [R, 1] say which text each comes from, `second_start` [R, 1] at which of its tokens
    the second begins, `first` and `second` [R, 1] how many tokens they have; `has_second`, 0 or 1, [R, 1].
    """

    first_text: str
    first: str
    second_text: str
    second_start: str
    second: str
    has_second: str


def _rows(graph: _Nodes, tokens: _Tokens, parts: _Parts, cls: int, sep: int, pad_id: int) -> tuple[str, str, str]:
    """`input_ids`, `attention_mask` [R, L], padded to the longest, and `offsets` [R, L, 2], −1 outside the second."""
    first_end = graph.add("Add", parts.first, graph.constant(1))  # where the first [SEP] is
    with_second = graph.add("Mul", parts.has_second, graph.add("Add", parts.second, graph.constant(1)))
    last = graph.add("Add", first_end, with_second)  # where the last [SEP] is
    width = graph.add("Add", graph.add("ReduceMax", last, keepdims=0), graph.constant([1]))
    column = graph.range(width)

    # The texts' tokens in one line, with the special ones before them: 0 [CLS], 1 [SEP], 2 [PAD].
    special = [cls, sep, pad_id]
    line = graph.add("Concat", graph.constant(special), graph.add("Reshape", tokens.ids, graph.constant([-1])), axis=0)
    text_width = graph.size(tokens.ids, 1)

    def begin(text: str, token: str, at: str) -> str:
        """What is added to a column to have its place in the line, where column `at` holds the text's `token`."""
        place = graph.add("Add", graph.add("Mul", text, text_width), graph.add("Sub", token, at))
        return graph.add("Add", place, graph.constant(len(special)))

    one = graph.constant(1)
    second_first = graph.add("Add", first_end, one)
    in_first = graph.add("Add", column, begin(parts.first_text, graph.constant(0), one))
    in_second = graph.add("Add", column, begin(parts.second_text, parts.second_start, second_first))
    is_second = graph.add("And", graph.add("Greater", column, first_end), graph.add("Less", column, last))
    is_first = graph.add("And", graph.add("Greater", column, graph.constant(0)), graph.add("Less", column, first_end))
    is_sep = graph.add("Or", graph.add("Equal", column, first_end), graph.add("Equal", column, last))
    inside = graph.add("LessOrEqual", column, last)
    is_cls = graph.add("Equal", column, graph.constant(0))
    index = graph.add("Where", is_cls, graph.constant(0), graph.constant(2))
    index = graph.add("Where", is_sep, graph.constant(1), index)
    index = graph.add("Where", is_first, in_first, index)
    index = graph.add("Where", is_second, in_second, index)

    nowhere = graph.constant([[-1, -1]] * len(special))
    places = graph.add("Concat", nowhere, graph.add("Reshape", tokens.offsets, graph.constant([-1, 2])), axis=0)
    offset_index = graph.add("Where", is_second, index, graph.constant(0))
    return graph.add("Gather", line, index), graph.integer(inside), graph.add("Gather", places, offset_index)


def _windows(graph: _Nodes, tokens: _Tokens, max_length: int, doc_stride: int) -> _Parts:
    """The windows of a context, text 1, under a question, text 0: those of `edge_distil.tasks.squad.windows`."""
    question = graph.add("Gather", tokens.counts, graph.constant([0]))
    question = graph.add("Min", question, graph.constant(min(MAX_QUESTION_TOKENS, max_length // 2)))
    context = graph.add("Gather", tokens.counts, graph.constant([1]))
    room = graph.add("Sub", graph.constant(max_length - 3), question)
    stride = graph.add("Min", room, graph.constant(doc_stride))
    beyond = graph.add("Max", graph.add("Sub", context, room), graph.constant(0))
    # One window, and one more for each stride or part of one that it leaves.
    rounded_up = graph.add("Add", beyond, graph.add("Sub", stride, graph.constant(1)))
    count = graph.add("Add", graph.add("Div", rounded_up, stride), graph.constant(1))
    number = graph.add("Unsqueeze", graph.range(count), graph.constant([1]))
    start = graph.add("Mul", number, stride)
    none = graph.add("Mul", number, graph.constant(0))
    one = graph.add("Add", none, graph.constant(1))
    left = graph.add("Min", graph.add("Sub", context, start), room)
    return _Parts(none, graph.add("Add", none, question), one, start, left, one)


def _texts(graph: _Nodes, tokens: _Tokens, max_length: int) -> _Parts:
    """One row for each of B texts, texts 0 … B − 1, with its pair, texts B … 2B − 1, where that is not empty.

    Cut as `edge_distil.tasks.classification.encode` cuts them.
    """
    half = graph.add("Div", graph.size(tokens.counts, 0), graph.constant(2))
    number = graph.add("Unsqueeze", graph.range(half), graph.constant([1]))
    pair_number = graph.add("Add", number, half)

    def of(values: str, rows: str) -> str:
        return graph.add("Gather", values, graph.add("Squeeze", rows, graph.constant([1])))

    text, pair = of(tokens.counts, number), of(tokens.counts, pair_number)
    has_pair = graph.integer(of(tokens.filled, pair_number))
    room = graph.add("Sub", graph.constant(max_length - 2), has_pair)
    longer = graph.integer(graph.add("Greater", text, pair))
    each = graph.add("Div", graph.add("Add", room, longer), graph.constant(2))
    most = graph.add("Max", graph.add("Sub", room, pair), each)
    most = graph.add("Where", graph.add("Equal", has_pair, graph.constant(0)), room, most)
    first = graph.add("Min", text, most)
    second = graph.add("Min", pair, graph.add("Sub", room, first))
    none = graph.add("Mul", number, graph.constant(0))
    return _Parts(number, first, pair_number, none, second, has_pair)


def _text_inputs(task: Task) -> tuple[str, str]:
    inputs = {"question-answering": ("question", "context"), "text-classification": ("text", "pair")}.get(task)
    if inputs is None:
        raise UserError(
            f"a graph for {task} does not take text: what it masks are tokens",
            "export without --with-tokenizer, or a model for question answering or text classification",
        )
    return inputs


def check_possible(folder: Path, task: Task) -> None:
    """Raise the `UserError` of `with_tokenizer`, and of a missing library to run its graph with, before any work."""
    extensions_library()
    _text_inputs(task)
    _tables(load_tokenizer(folder), str(folder))


def with_tokenizer(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    max_length: int = MAX_LENGTH,
    doc_stride: int = DOC_STRIDE,
    task: Task = "question-answering",
) -> onnx.ModelProto:
    """An encoder's graph with the tokeniser of a model folder in front of it. `proto` itself is not changed.

    `proto` takes `input_ids` and `attention_mask`, int64 or int32 [batch, length].

    For "question-answering" the graph takes `question` and `context`, string [1] each, and gives `start_logits` and
    `end_logits`, float [windows, length], and `offsets`, int64 [windows, length, 2]: the first and one-past-last
    character (code point) of each token of the context, −1 for every other token. Windows are cut in the graph, as
    `edge_distil.tasks.squad.windows` cuts them for this `max_length` and `doc_stride`, and padded to the longest.

    For "text-classification" it takes `text` and `pair`, string [batch] each, `pair` "" where there is none, which is
    also its default; and gives `logits`, float [batch, classes].

    Raises `UserError` for another task, and for a tokeniser that is not a BERT WordPiece with BERT's normaliser.
    """
    inputs = _text_inputs(task)
    tokenizer = load_tokenizer(folder)
    tables = _tables(tokenizer, str(folder))
    special = special_tokens(tokenizer)
    graph = _Nodes()
    if task == "question-answering":
        texts = graph.add("Concat", *inputs, axis=0)
        tokens = _tokenize(graph, texts, tables)
        parts = _windows(graph, tokens, max_length, doc_stride)
    else:
        pairs = graph.add("Expand", "pair", graph.add("Shape", "text"))
        tokens = _tokenize(graph, graph.add("Concat", "text", pairs, axis=0), tables)
        parts = _texts(graph, tokens, max_length)
    input_ids, mask, offsets = _rows(graph, tokens, parts, special.cls, special.sep, special.pad)

    integer = proto.graph.input[0].type.tensor_type.elem_type
    merged = onnx.ModelProto()
    merged.CopyFrom(proto)
    graph.nodes += [
        helper.make_node("Cast", [name], [output], f"{_PREFIX}.{output}", to=integer)
        for name, output in ((input_ids, "input_ids"), (mask, "attention_mask"))
    ]
    del merged.graph.input[:]
    del merged.graph.node[:]
    merged.graph.node.extend([*graph.nodes, *proto.graph.node])
    merged.graph.initializer.extend(graph.initializers)
    if task == "question-answering":
        merged.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in inputs)
        merged.graph.node.append(helper.make_node("Identity", [offsets], ["offsets"], f"{_PREFIX}.offsets"))
        shape: list[str | int | None] = ["batch", "length", 2]
        merged.graph.output.append(helper.make_tensor_value_info("offsets", TensorProto.INT64, shape))
    else:
        merged.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.STRING, [size])
            for name, size in zip(inputs, ("batch", "pairs"), strict=True)
        )
        merged.graph.initializer.append(numpy_helper.from_array(np.array([""], dtype=object), "pair"))
    merged.opset_import.append(helper.make_opsetid(_EXTENSIONS, 1))
    merged.metadata_props.add(key="onnxruntime_extensions", value=f">={EXTENSIONS_FLOOR}")
    return merged


def extensions_library() -> str:
    """The path of the library with the extensions' operators. Raises `UserError` when the package is not installed."""
    try:
        from onnxruntime_extensions import get_library_path
    except ModuleNotFoundError:
        raise UserError(
            "a graph with the tokeniser in it needs onnxruntime-extensions, which is not installed",
            "pip install 'edge-distil[tokenizer]'",
        ) from None
    return get_library_path()


class TextGraph:
    """A graph with the tokeniser in it: questions or texts in, answers or logits out."""

    def __init__(self, path: Path, *, decoding: Decoding | None = None, threads: int | None = None) -> None:
        """Open the file of a graph. `decoding` is that of the export which the file is part of, unless one is given.

        Raises `UserError` when onnxruntime-extensions is not installed, when the file does not load or takes no text.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: one for every core
        options.log_severity_level = 3
        options.register_custom_ops_library(extensions_library())
        self.path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # onnxruntime's exceptions share no public base class
            raise UserError(f"{path}: ONNX Runtime cannot load it: {fault}", "export the model again") from None
        self.inputs = tuple(given.name for given in self._session.get_inputs())
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        if "input_ids" in self.inputs:
            raise UserError(
                f"{path}: takes token ids, not text", "export with --with-tokenizer, or open it with open_runtime"
            )
        self.decoding = decoding or Decoding.load(path.parent.parent)

    def ask(self, question: str, context: str, *, n_best: int = 1, unanswerable: bool = False) -> list[Answer]:
        """The `n_best` answers to one question, best first, with character offsets into the context as given.

        Raises `UserError` for a question or a context without a single token, and for a graph that answers no
        questions.
        """
        spans = best_spans(self.windows(question, context), context)
        return self.decoding.answers(spans, unanswerable=unanswerable)[:n_best]

    def windows(self, question: str, context: str) -> list[tuple[Window, np.ndarray, np.ndarray]]:
        """The windows of a context with their start and end logits [L], as `best_spans` takes them. Raises as `ask`.

        The graph does not return token ids, so those of a window are empty.
        """
        self._need("question", "answers no questions")
        values = self._run({"question": [question], "context": [context]})
        result = []
        for start_L, end_L, offsets_L2 in zip(
            values["start_logits"], values["end_logits"], values["offsets"], strict=True
        ):
            of_context = np.flatnonzero(offsets_L2[:, 0] >= 0)
            # [CLS] question [SEP] context: the context begins at 2 where the question is empty.
            if len(of_context) == 0 or of_context[0] == 2:
                empty = "question" if len(of_context) else "context"
                raise UserError(f"the {empty} is empty", f"give a {empty} with some text in it")
            window = Window(0, [], int(of_context[0]), offsets_L2[of_context])
            result.append((window, start_L[: window.context_end + 1], end_L[: window.context_end + 1]))
        return result

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """The logits [B, C] of B texts, each with the other half of its pair where there is one.

        Raises `UserError` for a graph that classifies no texts.
        """
        self._need("text", "classifies no texts")
        return self._run({"text": texts} | ({} if pairs is None else {"pair": pairs}))["logits"]

    def _need(self, name: str, lacks: str) -> None:
        if name not in self.inputs:
            raise UserError(f"{self.path}: {lacks}, it takes {', '.join(self.inputs)}", "give a graph of that task")

    def _run(self, texts: dict[str, Sequence[str]]) -> dict[str, np.ndarray]:
        # A string ends at NUL for the extensions. BERT's normaliser drops it like the character that takes its place.
        given = {
            name: np.array([text.replace(_NUL, _REPLACEMENT) for text in of_input], dtype=object)
            for name, of_input in texts.items()
        }
        return dict(zip(self.outputs, self._session.run(None, given), strict=True))


def check(
    graph: TextGraph,
    runtime: Runtime,
    questions: Sequence[Question],
    *,
    task: Task = "question-answering",
    max_length: int = MAX_LENGTH,
    doc_stride: int = DOC_STRIDE,
    progress: Callable[[float], None] = lambda questions_done: None,
) -> dict[str, Any]:
    """Hold a graph with the tokeniser against the Python path over the graph without it, in the same precision.

    Every question must be cut into windows with the same offsets and have the same answer: text, start and end. A
    classifier must give the same logits for its context alone, and for question and context as a pair. So must
    `HARD_TEXTS` in place of contexts. Each is run by itself, so that both graphs see the same batch, on which the codes
    of a graph in int8 depend. `progress` is told 1 for each question.

    Returns `questions`, how many were compared, and `same_answers`, 100 per cent, or `max_logit_difference`. Raises
    `UserError` for the first that differs.
    """
    asked = [*questions, *(Question(f"hard-{i}", "Which of these?", text, ()) for i, text in enumerate(HARD_TEXTS))]
    runtime.batch_size = None  # the graph has all windows of a question in one batch
    if task == "question-answering":
        answerer = QuestionAnswerer(runtime, max_length=max_length, doc_stride=doc_stride)
        for question in asked:
            _compare_answers(graph, answerer, question)
            progress(1)
        return {"questions": len(asked), "same_answers": 100.0}
    tokenizer, largest = load_tokenizer(runtime.folder), 0.0
    for question in asked:
        largest = max(largest, _compare_logits(graph, runtime, tokenizer, max_length, question))
        progress(1)
    return {"questions": len(asked), "max_logit_difference": largest}


def _compare_answers(graph: TextGraph, answerer: QuestionAnswerer, question: Question) -> None:
    stride = answerer.doc_stride
    expected_windows = windows([question], answerer.tokenizer, max_length=answerer.max_length, doc_stride=stride)
    found_windows = graph.windows(question.question, question.context)
    if len(found_windows) != len(expected_windows) or any(
        found.context_start != expected.context_start or not np.array_equal(found.offsets_C2, expected.offsets_C2)
        for (found, _, _), expected in zip(found_windows, expected_windows, strict=True)
    ):
        raise UserError(f"question {question.id!r}: the graph cuts its context into other tokens", _REPORT)
    expected = answerer.ask_all([question], batch_size=len(expected_windows))[question.id][0]
    found = answerer.decoding.answers(best_spans(found_windows, question.context))[0]
    if (found.text, found.start, found.end) != (expected.text, expected.start, expected.end):
        raise UserError(
            f"question {question.id!r}: the graph with the tokeniser answers {found.text!r} at {found.start}, "
            f"the one without it {expected.text!r} at {expected.start}",
            _REPORT,
        )


def _compare_logits(
    graph: TextGraph, runtime: Runtime, tokenizer: Tokenizer, max_length: int, question: Question
) -> float:
    """The largest difference of the logits of a context, and of a question with it."""
    texts, pairs = [question.context, question.question], [None, question.context]
    examples = [Example("", text, pair, "") for text, pair in zip(texts, pairs, strict=True)]
    ids_B = encode(examples, tokenizer, max_length)
    expected_BC = runtime(*pad(ids_B, special_tokens(tokenizer).pad))["logits"]
    found_BC = graph.logits(texts, [pair or "" for pair in pairs])
    difference = float(np.abs(found_BC - expected_BC).max())
    if not difference <= _LOGIT_TOLERANCE:  # so written, it also holds for NaN
        raise UserError(
            f"question {question.id!r}: the logits of the graph with the tokeniser differ by {difference:.3g}", _REPORT
        )
    return difference
