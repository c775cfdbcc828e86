"""The golden answers that the Swift kit is held to are those of the Python path as it is now."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_distil import starter
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import open_runtime
from edge_distil.tasks.decoding import Decoding
from edge_distil.tasks.squad import Question, windows
from edge_distil.tokenization import load_tokenizer, pad, special_tokens

SCRIPTS = Path(__file__).parent.parent / "apps/ios-demo/Scripts"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        import write_golden_answers
    finally:
        sys.path.remove(str(SCRIPTS))
    return write_golden_answers


@pytest.fixture(scope="module")
def golden(script):
    return json.loads((script.GOLDEN / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def asked(golden):
    return [
        Question(str(index), question["question"], golden["passages"][question["passage"]], ())
        for index, question in enumerate(golden["questions"])
    ]


def test_the_questions_are_those_that_the_script_asks(script, asked):
    expected = [(question.question, question.context) for question in script.starter_questions()]
    assert [(question.question, question.context) for question in asked] == expected
    assert len(expected) == 200 + len(script.UNICODE)


def test_windows_are_cut_as_they_were(golden, asked):
    tokenizer = load_tokenizer(starter.teacher_folder("question-answering"))
    options = {"max_length": golden["max_length"], "doc_stride": golden["doc_stride"]}
    found = [[] for _ in asked]
    for window in windows(asked, tokenizer, **options):
        found[window.question].append((window.input_ids, window.context_start, window.offsets_C2.ravel().tolist()))
    recorded = [
        [(window["ids"], window["context_start"], window["offsets"]) for window in question["windows"]]
        for question in golden["questions"]
    ]
    assert found == recorded


def test_recorded_logits_give_the_recorded_answers(script, golden, asked):
    runtime = script.Replay(starter.teacher_folder("question-answering"), golden)
    decoding = Decoding(**golden["decoding"])
    for unanswerable, field in ((False, "answers"), (True, "answers_or_none")):
        answerer = QuestionAnswerer(
            runtime,
            max_length=golden["max_length"],
            doc_stride=golden["doc_stride"],
            decoding=decoding,
            unanswerable=unanswerable,
        )
        found = answerer.ask_all(asked, batch_size=1)
        for question in asked:
            recorded = golden["questions"][int(question.id)][field]
            answers = found[question.id][: script.N_BEST]
            assert [(a.text, a.start, a.end) for a in answers] == [(a["text"], a["start"], a["end"]) for a in recorded]
            np.testing.assert_allclose([a.score for a in answers], [a["score"] for a in recorded], atol=1e-12)


def test_the_logits_are_those_of_the_starter_teacher(script, golden):
    folder = starter.teacher_folder("question-answering")
    pad_id = special_tokens(load_tokenizer(folder)).pad
    recorded = script.Replay(folder, golden).logits
    some = list(recorded)[::60]
    logits = open_runtime(folder)(*pad(some, pad_id))
    for row, ids in enumerate(some):
        for name, expected in zip(("start_logits", "end_logits"), recorded[ids], strict=True):
            np.testing.assert_allclose(logits[name][row, : len(ids)], expected, atol=1e-3)


def test_the_tokeniser_beside_them_is_the_starter_sets(script):
    ours = json.loads((script.GOLDEN / "answers-tokenizer.json").read_text(encoding="utf-8"))
    assert ours == json.loads(load_tokenizer(starter.teacher_folder("question-answering")).to_str())
