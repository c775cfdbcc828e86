"""Exact match and F1: worked out by hand, and held against the official scripts' rules written down once more."""

import random
import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from edge_distil.tasks.metrics import exact_match, f1, normalize_answer, score_squad
from edge_distil.tasks.squad import Question


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Bridge", "bridge"),
        ("An A-Team, the\tbest!", "ateam best"),
        ("theatre and anthem", "theatre and anthem"),
        ("U.S. $5.00", "us 500"),
        ("Café – “quoted”", "café – “quoted”"),
        ("a an the", ""),
        ("\u00a0one\n two ", "one two"),
        ("T.h.e bridge", "bridge"),
    ],
)
def test_an_answer_is_normalised_in_the_official_order(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "gold", "match", "overlap"),
    [
        ("The Bridge!", "bridge", 1, 1),
        ("stone bridge", "bridge", 0, 2 / 3),  # precision 1/2, recall 1
        ("old stone bridge", "stone bridge of Ambry", 0, 4 / 7),  # 2 shared of 3 and 4
        ("new new york", "new york york", 0, 2 / 3),  # repeated words are shared as often as both have them
        ("bridge stone", "stone bridge", 0, 1),
        ("tower", "bridge", 0, 0),
        ("", "bridge", 0, 0),
        ("1,912", "1912", 1, 1),
    ],
)
@pytest.mark.parametrize("version_2", [False, True])
def test_exact_match_and_f1_are_those_worked_out_by_hand(
    prediction: str, gold: str, match: float, overlap: float, version_2: bool
) -> None:
    assert exact_match(prediction, gold) == match
    assert f1(prediction, gold, version_2=version_2) == pytest.approx(overlap)


@pytest.mark.parametrize(
    ("prediction", "gold", "version_1_1", "version_2"),
    [("the", "a", 0, 1), ("", "", 0, 1), ("the", "bridge", 0, 0), ("bridge", "", 0, 0)],
)
def test_an_answer_of_which_nothing_is_left_scores_as_in_each_official_script(
    prediction: str, gold: str, version_1_1: float, version_2: float
) -> None:
    assert f1(prediction, gold) == version_1_1
    assert f1(prediction, gold, version_2=True) == version_2


def question(identifier: str, *golds: str) -> Question:
    return Question(identifier, "?", " ".join(golds), tuple((gold, 0) for gold in golds))


def test_each_question_takes_its_best_gold_and_a_missing_prediction_is_wrong() -> None:
    questions = [
        question("one", "stone bridge", "the bridge"),
        question("two", "stone bridge", "tower of Ambry"),
        question("three", "1912"),
        question("missing", "1912"),
    ]
    predictions = {"one": "bridge", "two": "stone", "three": "1915"}
    # Exact: 1 of 4. F1: 1, max(2/3, 0), 0, 0 over 4.
    assert score_squad(questions, predictions) == {
        "exact_match": pytest.approx(25),
        "f1": pytest.approx(100 * (1 + 2 / 3) / 4),
        "examples": 4,
    }


@pytest.mark.parametrize(
    ("golds", "prediction", "version_2", "match", "overlap"),
    [
        ((), "", True, 100, 100),
        ((), "bridge", True, 0, 0),
        (("bridge",), "", True, 0, 0),
        (("the", "bridge"), "", True, 0, 0),  # an article is no gold answer in v2.0
        (("the",), "", True, 100, 100),
        (("the",), "", False, 100, 0),  # as v1.1 has it: equal, with no word in common
    ],
)
def test_the_empty_answer_scores_as_in_each_official_script(
    golds: tuple[str, ...], prediction: str, version_2: bool, match: float, overlap: float
) -> None:
    result = score_squad([question("q", *golds)], {"q": prediction}, version_2=version_2)
    assert (result["exact_match"], result["f1"], result["examples"]) == (match, overlap, 1)


# The official scripts, evaluate-v1.1.py and evaluate-v2.0.py, step by step from their definition: slow and literal.


def official_normal(text: str) -> str:
    text = text.lower()
    for mark in string.punctuation:
        text = text.replace(mark, "")
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def official_f1_1(prediction: str, gold: str) -> float:
    prediction_tokens, gold_tokens = official_normal(prediction).split(), official_normal(gold).split()
    same = sum((Counter(prediction_tokens) & Counter(gold_tokens)).values())
    if same == 0:
        return 0
    precision, recall = same / len(prediction_tokens), same / len(gold_tokens)
    return (2 * precision * recall) / (precision + recall)


def official_f1_2(gold: str, prediction: str) -> float:
    gold_tokens = official_normal(gold).split() if gold else []
    prediction_tokens = official_normal(prediction).split() if prediction else []
    if len(gold_tokens) == 0 or len(prediction_tokens) == 0:
        return int(gold_tokens == prediction_tokens)
    return official_f1_1(prediction, gold)


Entries = list[dict[str, Any]]


def official_1(entries: Entries, predictions: Mapping[str, str]) -> dict[str, float]:
    f1 = exact_match = total = 0.0
    for entry in entries:
        total += 1
        if entry["id"] not in predictions:
            continue  # it will receive score 0
        prediction = predictions[entry["id"]]
        exact_match += max(official_normal(prediction) == official_normal(gold) for gold in entry["answers"])
        f1 += max(official_f1_1(prediction, gold) for gold in entry["answers"])
    return {"exact_match": 100.0 * exact_match / total, "f1": 100.0 * f1 / total, "examples": total}


def official_2(entries: Entries, predictions: Mapping[str, str]) -> dict[str, float]:
    """Under our names for its `exact`, `total` and `HasAns_…`. The script knows no score of what is not predicted."""
    exact: dict[str, float] = {}
    overlap: dict[str, float] = {}
    for entry in entries:
        golds = [gold for gold in entry["answers"] if official_normal(gold)]
        if not golds:
            golds = [""]
        prediction = predictions[entry["id"]]
        exact[entry["id"]] = max(int(official_normal(gold) == official_normal(prediction)) for gold in golds)
        overlap[entry["id"]] = max(official_f1_2(gold, prediction) for gold in golds)
    result: dict[str, float] = {}
    for prefix, ids in (
        ("", [entry["id"] for entry in entries]),
        ("has_answer_", [entry["id"] for entry in entries if bool(entry["answers"])]),
        ("no_answer_", [entry["id"] for entry in entries if not bool(entry["answers"])]),
    ):
        if ids:
            result[f"{prefix}exact_match"] = 100.0 * sum(exact[key] for key in ids) / len(ids)
            result[f"{prefix}f1"] = 100.0 * sum(overlap[key] for key in ids) / len(ids)
            result[f"{prefix}examples"] = len(ids)
    return result


PIECES = [
    *[
        "a",
        "an",
        "the",
        "A",
        "The",
        "THE",
        "theatre",
        "Ana",
        "bridge",
        "Bridge",
        "stone",
        "1912",
        "1,912",
        "U.S.",
        "of",
    ],
    *string.punctuation,
    *["'s", "“", "”", "–", "…", "·", "¿", "！", "，", "．", "Ａ", "ｔｈｅ", "、", "。", "€", "$5"],
    *[
        "café",
        "cafe\u0301",
        "\u0301",
        "a\u0301",
        "the\u0308",
        "ÉCOLE",
        "ß",
        "ẞ",
        "SS",
        "İ",
        "ı",
        "i\u0307",
        "Σ",
        "ς",
        "ﬁ",
        "ǅ",
    ],
    *["東京", "東", "京", "ไทย", "한국", "कि", "عربي", "👍🏽", "👍", "👩\u200d👧", "🇫🇷", "❤\ufe0f"],
    *["\u200b", "\u200d", "\ufeff", "\u00ad", "\u2060", "_a_", "a_", "a-an", "the's", "ª", "½", "²", "٣"],
]
BLANKS = [" "] * 8 + [
    "",
    "",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u2028",
    "\x1c",
    "\x85",
    "\u180e",
]


def random_text(source: random.Random) -> str:
    """A few pieces, of few kinds, so that two texts often have words in common."""
    pieces = source.choices(PIECES, k=source.randint(0, 5))
    return "".join(piece + source.choice(BLANKS) for piece in pieces)


def like(text: str, source: random.Random) -> str:
    """Another spelling, a part, or the text itself; sometimes a text of its own."""
    words = text.split(" ")
    return source.choice(
        [
            text,
            text.upper(),
            text.title(),
            f"the {text}.",
            text.replace("e", "e\u200b"),
            " ".join(words[1:]),
            " ".join(words[::-1]),
            f"{text} {random_text(source)}",
            random_text(source),
            "",
            source.choice(["a", "The", "an.", "...", "\u00a0"]),
        ]
    )


def random_entries(seed: int, count: int, *, version_2: bool) -> tuple[Entries, dict[str, str]]:
    source = random.Random(seed)
    entries, predictions = [], {}
    for index in range(count):
        first = random_text(source) or "the"
        golds = [first, *(gold for _ in range(source.randint(0, 3)) if (gold := like(first, source)))]
        if version_2 and source.random() < 0.3:
            golds = []
        entries.append({"id": str(index), "answers": golds})
        predictions[str(index)] = like(source.choice(golds or [first]), source)
    return entries, predictions


def as_questions(entries: Entries) -> list[Question]:
    return [Question(entry["id"], "?", "", tuple((gold, 0) for gold in entry["answers"])) for entry in entries]


@pytest.mark.parametrize("version_2", [False, True])
def test_single_answers_score_as_the_official_scripts_rules_say(version_2: bool) -> None:
    entries, predictions = random_entries(1, 4000, version_2=version_2)
    official = official_2 if version_2 else official_1
    seen: Counter[Any] = Counter()
    for entry, asked in zip(entries, as_questions(entries), strict=True):
        expected = official([entry], predictions)
        assert score_squad([asked], predictions, version_2=version_2) == pytest.approx(expected), (
            entry,
            predictions[entry["id"]],
        )
        seen[expected["exact_match"]] += 1
        seen["between"] += 0 < expected["f1"] < 100
    # Neither all right nor all wrong, or nothing would have been compared.
    assert min(seen[0.0], seen[100.0], seen["between"]) > 200


def test_a_text_is_normalised_as_by_the_official_rules() -> None:
    for text in PIECES + BLANKS + [f"{blank}a{piece}the" for blank in BLANKS for piece in PIECES]:
        assert normalize_answer(text) == official_normal(text)


@pytest.mark.parametrize("seed", range(5))
def test_whole_files_score_as_the_official_scripts_rules_say(seed: int) -> None:
    entries, predictions = random_entries(seed, 600, version_2=True)
    assert score_squad(as_questions(entries), predictions, version_2=True) == pytest.approx(
        official_2(entries, predictions)
    )
    answerable = [entry for entry in entries if entry["answers"]]
    for left_out in random.Random(seed).sample(answerable, k=50):
        del predictions[left_out["id"]]
    assert score_squad(as_questions(answerable), predictions) == pytest.approx(official_1(answerable, predictions))


def test_a_group_without_questions_has_no_figures() -> None:
    asked = [question("one", "bridge"), question("two")]
    predictions = {"one": "bridge", "two": "bridge"}
    assert score_squad(asked, predictions, version_2=True) == {
        "exact_match": 50,
        "f1": 50,
        "examples": 2,
        "has_answer_exact_match": 100,
        "has_answer_f1": 100,
        "has_answer_examples": 1,
        "no_answer_exact_match": 0,
        "no_answer_f1": 0,
        "no_answer_examples": 1,
    }
    assert not any(name.startswith("no_answer") for name in score_squad(asked[:1], predictions, version_2=True))
    assert not any(name.startswith("has_answer") for name in score_squad(asked[1:], predictions, version_2=True))
