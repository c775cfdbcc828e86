"""What the kit's question answering is held to: questions, each model input, its logits, and the answers, from Python.

    python apps/ios-demo/Scripts/write_golden_answers.py
    python apps/ios-demo/Scripts/write_golden_answers.py --squad dev-v1.1.json --model runs/qa-student

The first asks the starter teacher 200 questions of the starter set, and some about passages with combining marks, emoji
and right-to-left text; it writes `answers.json`, which is in the repository. The second asks any checkpoint 200
questions of a SQuAD file, and writes into `Local/`, which is not. Windows are short, so that there are several of a
passage. Logits are recorded as little-endian float32, so that a replay gives the very answers.
"""

import argparse
import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil import starter
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime, open_runtime
from edge_distil.tasks.decoding import Decoding
from edge_distil.tasks.squad import Question, Window, parse_squad, read_squad, windows
from edge_distil.tokenization import load_tokenizer

GOLDEN = Path(__file__).resolve().parent.parent / "Tests/EdgeDistilKitTests/Golden"
QUESTIONS = 200
N_BEST = 5
# So that most passages, of some 125 tokens in the starter set and 150 in SQuAD, need several windows.
WINDOWS = {"max_length": 80, "doc_stride": 40}
TEMPERATURE = 1.7

# Question and passage: what is written in several scalars, or in bytes of several numbers.
UNICODE = (
    (
        "Where did José sing?",
        "In the cafe\u0301 José sang. Then Jose\u0301 went to Zu\u0308rich, and to Bogotá by train.",
    ),
    (
        "Who met Zoe\u0308?",
        "Zoe\u0308 met Ame\u0301lie in a\u0300 la carte\u0301\u0323. They saw n\u0303andu\u0301 \u0301birds.",
    ),
    ("What was eaten?", "🍕🍕 We ate 🍕 at noon, 👩‍👩‍👧‍👦 all of us 🇩🇪🇫🇷, and then 👍🏽 nothing. ❤️ Pizza it was."),
    ("איפה", "שָׁלוֹם עֲלֵיכֶם. ירושלים היא עיר. שָׁלוֹם"),
    ("من ذهب?", "ذَهَبَ مُحَمَّدٌ إِلَى المَدْرَسَةِ، then he went home. مُحَمَّدٌ"),
    ("कहाँ", "राम दिल्ली में रहते हैं। सीता मुंबई में। दिल्ली बड़ी है।"),
    ("어디", "서울은 대한민국의 수도이다. \u1109\u1165\u110b\u116e\u11af, 각하, 꽃잎 부산은 항구이다."),
    ("東京はどこ?", "東京は日本の首都です。か\u3099き\u3099く\u3099。京都は古い都です。"),
    (
        "Which line is it?",
        "One line\r\nand another.\r\n\r\nA third\twith a tab,\u00a0and\u2003blanks\u200b\u200d here.\r\n",
    ),
    ("What is ẞ?", "İstanbul'da IŞIK. STRASSE und Straße, ẞ, ﬁne, Ǆ, Å Å A\u030a, ½ ², ① Ⅷ ℃ ｆｕｌｌ."),
    (
        "Which mark?",
        "\u0301a leading mark, [MASK] and [SEP] in the text, \ufffd\x00\x07, a\u034f\u20dd\u20e3 1️⃣ and an end e\u0301",
    ),
    ("Who sang?", "e\u0301" * 60 + " Anna sang. " + "a\u0323\u0302 " * 60),
)


class Recording:
    """A runtime that keeps the logits of every input, by its ids."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.logits: dict[tuple[int, ...], np.ndarray] = {}
        self.name, self.precision, self.outputs = runtime.name, runtime.precision, runtime.outputs
        self.lengths, self.batch_size, self.folder = runtime.lengths, runtime.batch_size, runtime.folder

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        logits = self._runtime(input_ids_BL, attention_mask_BL)
        both_B2L = np.stack([logits["start_logits"], logits["end_logits"]], axis=1).astype("<f4")
        for ids_L, mask_L, both_2L in zip(input_ids_BL, attention_mask_BL, both_B2L, strict=True):
            length = int(mask_L.sum())
            self.logits[tuple(ids_L[:length].tolist())] = both_2L[:, :length]
        return logits


class Replay:
    """A runtime that says what was recorded, and raises KeyError for another input."""

    name, precision, outputs = "recorded", "fp32", ("start_logits", "end_logits")
    lengths, batch_size = None, 1

    def __init__(self, folder: Path, golden: dict[str, Any]) -> None:
        self.folder = folder
        self.logits = {
            tuple(window["ids"]): np.frombuffer(base64.b64decode(window["logits"]), "<f4").reshape(2, -1)
            for asked in golden["questions"]
            for window in asked["windows"]
        }

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        (both_2L,) = (self.logits[tuple(ids_L.tolist())] for ids_L in input_ids_BL)
        return {"start_logits": both_2L[:1], "end_logits": both_2L[1:]}


def evenly(questions: Sequence[Question]) -> list[Question]:
    """Some of many questions, from the first to the last."""
    return [questions[index] for index in np.linspace(0, len(questions) - 1, QUESTIONS).round().astype(int)]


def starter_questions() -> list[Question]:
    """Questions of the starter set's test split, and those about `UNICODE`."""
    chosen = evenly(parse_squad(starter.questions("test"), "starter set"))
    return chosen + [Question(f"unicode-{number}", *asked, ()) for number, asked in enumerate(UNICODE)]


def golden_answers(
    runtime: Runtime, questions: Sequence[Question], *, max_length: int, doc_stride: int
) -> dict[str, Any]:
    """Everything that the kit has to repeat, for JSON. Offsets and places count code points."""
    recording = Recording(runtime)
    answerer = QuestionAnswerer(recording, max_length=max_length, doc_stride=doc_stride)
    found = answerer.spans(questions)
    # Between two questions' margins, so that the empty answer is the first of half of them.
    margin = float(np.median([spans.null_margin for spans in found.values()]))
    decoding = Decoding(temperature=TEMPERATURE, null_threshold=round(margin, 3))
    prepared = windows(questions, answerer.tokenizer, max_length=max_length, doc_stride=doc_stride)
    passages = {context: index for index, context in enumerate(dict.fromkeys(q.context for q in questions))}
    return {
        "max_length": max_length,
        "doc_stride": doc_stride,
        "decoding": {"temperature": decoding.temperature, "null_threshold": decoding.null_threshold},
        "passages": list(passages),
        "questions": [
            {
                "question": question.question,
                "passage": passages[question.context],
                "windows": [
                    _window(window, recording.logits[tuple(window.input_ids)])
                    for window in prepared
                    if window.question == index
                ],
                "answers": _answers(decoding.answers(found[question.id])),
                "answers_or_none": _answers(decoding.answers(found[question.id], unanswerable=True)),
            }
            for index, question in enumerate(questions)
        ],
    }


def _window(window: Window, logits_2L: np.ndarray) -> dict[str, Any]:
    return {
        "ids": window.input_ids,
        "context_start": window.context_start,
        "offsets": window.offsets_C2.ravel().tolist(),
        "logits": base64.b64encode(logits_2L.tobytes()).decode(),
    }


def _answers(answers: Iterable[Any]) -> list[dict[str, Any]]:
    best = list(answers)[:N_BEST]
    return [{"text": each.text, "start": each.start, "end": each.end, "score": each.score} for each in best]


def write(golden: dict[str, Any], folder: Path, path: Path) -> None:
    """Write a golden file, with a line for each question, and the tokeniser of a model folder beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {key: value for key, value in golden.items() if key != "questions"}
    lines = ",\n".join(_json(question) for question in golden["questions"])
    path.write_text(f'{_json(head)[:-1]},"questions":[\n{lines}\n]}}\n', encoding="utf-8")
    load_tokenizer(folder).save(str(path.with_name(f"{path.stem}-tokenizer.json")))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", type=Path, help="a SQuAD file; its answers go into Golden/Local/")
    parser.add_argument("--model", type=Path, help="a checkpoint, by default the starter teacher")
    arguments = parser.parse_args()
    folder = arguments.model or starter.teacher_folder("question-answering")
    if arguments.squad:
        questions, path = evenly(read_squad(arguments.squad)), GOLDEN / "Local/answers.json"
    else:
        questions, path = starter_questions(), GOLDEN / "answers.json"
    golden = golden_answers(open_runtime(folder), questions, **WINDOWS)
    write(golden, folder, path)
    asked = golden["questions"]
    empty = sum(not question["answers_or_none"][0]["text"] for question in asked)
    listed = sum(any(not answer["text"] for answer in question["answers_or_none"]) for question in asked)
    print(
        f"{path}: {len(asked)} questions, {sum(len(question['windows']) for question in asked)} windows, "
        f"{path.stat().st_size / 1e6:.2f} MB; no answer is the first of {empty}, among the first {N_BEST} of {listed}"
    )


if __name__ == "__main__":
    main()
