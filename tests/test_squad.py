"""SQuAD: every fault of a file is named, windows lose nothing, gold spans cover their answers."""

import copy
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_distil.errors import UserError
from edge_distil.tasks.squad import (
    MAX_QUESTION_TOKENS,
    Question,
    Window,
    gold_span,
    parse_squad,
    read_squad,
    windows,
)
from edge_distil.tokenization import pad, special_tokens

CONTEXT = "The bridge was built in 1912 by Ada Lor."
DOCUMENT = {
    "version": "1.1",
    "data": [
        {"title": "none", "paragraphs": []},
        {
            "title": "bridge",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "q1", "question": "When?", "answers": [{"text": "1912", "answer_start": 24}]},
                        {"id": "q2", "question": "Who?", "answers": [{"text": "Ada Lor", "answer_start": 32}]},
                    ],
                }
            ],
        },
    ],
}
PARAGRAPH = "f.json: article 1, paragraph 0"


def test_questions_keep_their_order_their_context_and_their_answers() -> None:
    assert parse_squad(DOCUMENT, "f.json") == [
        Question("q1", "When?", CONTEXT, (("1912", 24),)),
        Question("q2", "Who?", CONTEXT, (("Ada Lor", 32),)),
    ]


def at(document: Any, path: str) -> tuple[Any, Any]:
    """The container and the key at a path such as `data/1/title`."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in way:
        document = document[part]
    return document, last


QA = "data/1/paragraphs/0/qas/1"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data", None, "f.json: field 'data' is missing or not a list"),
        ("data/1/paragraphs", None, "f.json: article 1: field 'paragraphs' is missing or not a list"),
        ("data/1/paragraphs/0/context", None, f"{PARAGRAPH}: field 'context' is missing or not a str"),
        ("data/1/paragraphs/0/qas", {}, f"{PARAGRAPH}: field 'qas' is missing or not a list"),
        (f"{QA}/id", 2, f"{PARAGRAPH}: field 'id' is missing or not a str"),
        (f"{QA}/id", "q1", f"{PARAGRAPH}, question 'q1': this id was given before"),
        (f"{QA}/question", None, f"{PARAGRAPH}, question 'q2': field 'question' is missing or not a str"),
        (f"{QA}/answers", None, f"{PARAGRAPH}, question 'q2': field 'answers' is missing or not a list"),
        (f"{QA}/answers", [], f"{PARAGRAPH}, question 'q2': has no answer, as in SQuAD v2.0"),
        (f"{QA}/answers/0/text", None, f"{PARAGRAPH}, question 'q2': field 'text' is missing or not a str"),
        (f"{QA}/answers/0/answer_start", "32", f"{PARAGRAPH}, question 'q2': field 'answer_start' is missing"),
        (f"{QA}/answers/0", "Ada Lor", f"{PARAGRAPH}, question 'q2': field 'text' is missing or not a str"),
        ("data", [], "f.json: holds no question"),
        ("data/1/paragraphs/0/qas", [], "f.json: holds no question"),
    ],
)
def test_a_fault_is_named_with_its_article_paragraph_and_question(path: str, value: Any, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    container, key = at(document, path)
    if value is None:
        del container[key]
    else:
        container[key] = value
    with pytest.raises(UserError) as caught:
        parse_squad(document, "f.json")
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize(("start", "reads"), [(31, " Ada Lo"), (33, "da Lor."), (-8, "The bri"), (400, "")])
def test_an_answer_that_is_not_at_its_offset_names_the_question_and_what_stands_there(start: int, reads: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    container, key = at(document, f"{QA}/answers/0/answer_start")
    container[key] = start
    with pytest.raises(UserError) as caught:
        parse_squad(document, "f.json")
    assert caught.value.message == (
        f"{PARAGRAPH}, question 'q2': the answer 'Ada Lor' is not at character {start} of the context, "
        f"which reads {reads!r}"
    )
    assert "counts characters, not bytes" in caught.value.hint


def test_a_question_without_an_answer_is_read_with_version_2_and_hinted_at_without() -> None:
    document = copy.deepcopy(DOCUMENT)
    container, key = at(document, f"{QA}/answers")
    container[key] = []
    assert parse_squad(document, "f.json", version_2=True)[1].answers == ()
    with pytest.raises(UserError) as caught:
        parse_squad(document, "f.json")
    assert "--squad-v2" in caught.value.hint


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_json_value_of_another_form_is_refused(document: Any) -> None:
    with pytest.raises(UserError, match=r"f\.json: field 'data' is missing"):
        parse_squad(document, "f.json")


def test_a_file_is_read_as_its_document_and_a_cut_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    text = json.dumps(DOCUMENT)
    path.write_text(text)
    assert read_squad(path) == parse_squad(DOCUMENT, "any")
    path.write_text(text[:-10])
    with pytest.raises(UserError, match=r"train\.json: is not valid JSON, line 1"):
        read_squad(path)


# Windows


def asked(context: str, question: str = "Who built the bridge?", *answers: tuple[str, int]) -> Question:
    return Question("q", question, context, answers)


@pytest.mark.parametrize(("max_length", "doc_stride"), [(48, 8), (48, 31), (48, 500), (384, 128)])
def test_windows_cover_every_token_at_the_documented_places(
    questions: list[Question], tokenizer: Tokenizer, max_length: int, doc_stride: int
) -> None:
    special = special_tokens(tokenizer)
    found = windows(questions, tokenizer, max_length=max_length, doc_stride=doc_stride)
    assert [window.question for window in found] == sorted(window.question for window in found)
    for index, question in enumerate(questions):
        context = tokenizer.encode(question.context, add_special_tokens=False)
        prefix = [special.cls, *tokenizer.encode(question.question, add_special_tokens=False).ids, special.sep]
        room = max_length - len(prefix) - 1
        mine = [window for window in found if window.question == index]
        first = 0
        for number, window in enumerate(mine):
            part = slice(first, first + room)
            assert window.input_ids == [*prefix, *context.ids[part], special.sep]
            assert window.context_start == len(prefix)
            assert window.context_end == len(window.input_ids) - 1
            assert window.offsets_C2.tolist() == [list(pair) for pair in context.offsets[part]]
            # Only the last one reaches the end of the context.
            assert (first + room >= len(context.ids)) == (number == len(mine) - 1)
            first += min(doc_stride, room)
        assert max(len(window.input_ids) for window in mine) <= max_length


def test_a_long_question_is_cut_to_64_tokens_and_to_half_the_window(tokenizer: Tokenizer) -> None:
    question = asked("the bridge " * 40, "why " * 200)
    (wide,) = windows([question], tokenizer, max_length=384)
    assert wide.context_start == MAX_QUESTION_TOKENS + 2 == 66
    narrow = windows([question], tokenizer, max_length=32, doc_stride=8)
    assert {window.context_start for window in narrow} == {32 // 2 + 2}
    assert {len(window.input_ids) for window in narrow[:-1]} == {32}


@pytest.mark.parametrize(
    ("question", "context", "empty"), [(" \n", "The bridge", "question"), ("Who?", "\u200b ", "context")]
)
def test_a_text_without_a_token_is_named_by_its_question(
    tokenizer: Tokenizer, question: str, context: str, empty: str
) -> None:
    with pytest.raises(UserError) as caught:
        windows([asked(context, question)], tokenizer)
    assert caught.value.message == f"question 'q': its {empty} is empty"
    assert f"give a {empty}" in caught.value.hint


def plain(text: str) -> str:
    """Lower case without accents, as an uncased BERT sees text."""
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))


@pytest.mark.parametrize(
    "text",
    [
        "Café naïve Über",
        "cafe\u0301 nai\u0308ve bridge",
        "👍🏽 the bridge 🇫🇷 tower",
        "the\u00a0bridge\tof 東京 tower\r\n",
    ],
    ids=["accents", "combining", "emoji", "blanks"],
)
def test_offsets_cut_the_text_that_a_token_stands_for(tokenizer: Tokenizer, text: str) -> None:
    (window,) = windows([asked(text)], tokenizer)
    ids = window.input_ids[window.context_start : window.context_end]
    spelt = 0
    for token_id, (start, end) in zip(ids, window.offsets_C2, strict=True):
        token = tokenizer.id_to_token(token_id)
        assert 0 <= start < end <= len(text)
        if token != "[UNK]":
            assert plain(text[start:end]) == token.removeprefix("##")
            spelt += 1
    assert spelt >= 3


def smallest_covering(window: Window, first: int, end: int) -> tuple[int, int]:
    """By trying every run of tokens."""
    offsets = window.offsets_C2
    runs = [
        (j - i, window.context_start + i, window.context_start + j)
        for i in range(len(offsets))
        for j in range(i, len(offsets))
        if offsets[i, 0] <= first and offsets[j, 1] >= end
    ]
    return min(runs)[1:] if runs else (0, 0)


def test_the_gold_span_is_the_smallest_run_of_tokens_that_covers_the_answer(
    questions: list[Question], tokenizer: Tokenizer
) -> None:
    inside = 0
    for window in windows(questions, tokenizer, max_length=48, doc_stride=8):
        text, start = questions[window.question].answers[0]
        expected = smallest_covering(window, start, start + len(text))
        assert gold_span(window, (text, start)) == expected
        inside += expected != (0, 0)
    assert inside >= len(questions)


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("In 👍🏽 1912 the tower", "1912"),
        ("The 👍🏽 tower", "👍🏽"),
        ("The cafe\u0301 of the tower", "cafe\u0301"),
        ("The Café of the tower", "Café"),
        ("The bridge, of the tower", "bridge, "),
        ("The bridge of the tower", " bridge"),
        ("Built 1912-1915 here", "912"),
    ],
    ids=["after emoji", "emoji", "combining mark", "accent", "blank after", "blank before", "inside a token"],
)
def test_the_gold_span_finds_an_answer_whose_ends_are_no_token_boundaries(
    tokenizer: Tokenizer, context: str, answer: str
) -> None:
    start = context.index(answer)
    (window,) = windows([asked(context)], tokenizer)
    first, last = gold_span(window, (answer, start))
    assert first > 0
    inner = window.offsets_C2[first - window.context_start : last - window.context_start + 1]
    assert plain(answer).strip() in plain(context[inner[0, 0] : inner[-1, 1]])
    # One token less on either side would lose a part of the answer.
    assert inner[0, 1] > start
    assert inner[-1, 0] < start + len(answer)


def test_an_answer_at_a_windows_edge_counts_only_where_it_is_whole() -> None:
    # Tokens of three characters and a blank between them; the window shows the tokens 2 to 4.
    window = Window(0, [2, 9, 3, 10, 11, 12, 3], 3, np.array([[8, 11], [12, 15], [16, 19]]))
    assert gold_span(window, ("bbb", 8)) == (3, 3)
    assert gold_span(window, ("eee", 16)) == (5, 5)
    assert gold_span(window, ("bbb ccc ddd", 8)) == (3, 5)
    assert gold_span(window, ("aaa bbb", 4)) == (0, 0)
    assert gold_span(window, ("ddd eee", 16)) == (0, 0)
    assert gold_span(window, ("aaa", 0)) == (0, 0)
    assert gold_span(window, ("eee", 20)) == (0, 0)


def test_padding_goes_to_the_longest_window_or_to_the_least_length_that_holds_it() -> None:
    batch = [Window(0, ids, 1, np.zeros((0, 2), dtype=np.int64)) for ids in ([2, 7, 3], [2, 3])]
    ids, mask = pad([window.input_ids for window in batch], 9)
    assert ids.tolist() == [[2, 7, 3], [2, 3, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    ids, mask = pad([window.input_ids for window in batch], 9, (2, 5, 7))
    assert ids.tolist() == [[2, 7, 3, 9, 9], [2, 3, 9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
