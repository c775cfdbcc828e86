"""The starter set: the same on every machine, answerable, unambiguous, and without leaks between its splits."""

import hashlib
import json
import re
import subprocess
import sys

import pytest

from edge_distil import starter
from edge_distil.starter.generator import Passage, passages
from edge_distil.starter.names import SPLITS
from edge_distil.starter.questions import KINDS
from edge_distil.starter.splits import DOCUMENTS

TEST_SPLIT_SHA256 = "3400285e303858dfe5437809f72ba24ff8df9a9cc50bee92cb64c19b36ffdfa4"


@pytest.fixture(scope="module")
def universe() -> dict[str, list[Passage]]:
    """Every passage of the default corpora, and so of the default questions too."""
    return {split: list(passages(split, DOCUMENTS[split])) for split in SPLITS}


@pytest.fixture(scope="module")
def everything(universe: dict[str, list[Passage]]) -> list[Passage]:
    return [passage for split in SPLITS for passage in universe[split]]


def test_test_split_never_changes() -> None:
    text = json.dumps(starter.questions("test"), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == TEST_SPLIT_SHA256


def test_fewer_passages_are_a_prefix_of_more() -> None:
    assert starter.questions("train", passages=3)["data"] == starter.questions("train", passages=9)["data"][:3]


def test_another_seed_gives_other_passages() -> None:
    assert starter.questions("dev", passages=3, seed=1) != starter.questions("dev", passages=3, seed=2)


def test_passages_have_60_to_150_words(everything: list[Passage]) -> None:
    lengths = [len(passage.text.split()) for passage in everything]
    assert min(lengths) >= 60
    assert max(lengths) <= 150


def test_squad_answers_stand_at_their_offsets_and_not_in_their_questions() -> None:
    for split in SPLITS:
        squad = starter.questions(split)
        assert squad["version"] == "1.1"
        for article in squad["data"]:
            for paragraph in article["paragraphs"]:
                assert 5 <= len(paragraph["qas"]) <= 8
                for qa in paragraph["qas"]:
                    (answer,) = qa["answers"]
                    start, text = answer["answer_start"], answer["text"]
                    assert paragraph["context"][start : start + len(text)] == text
                    assert text.lower() not in qa["question"].lower()


def test_ids_are_unique_and_tell_the_kind() -> None:
    ids = [
        qa["id"]
        for split in SPLITS
        for article in starter.questions(split, passages=100)["data"]
        for qa in article["paragraphs"][0]["qas"]
    ]
    assert len(ids) == len(set(ids))
    kinds = {re.fullmatch(r"starter-(?:train|dev|test)-\d{5}-(\w+)-\d", name)[1] for name in ids}  # type: ignore[index]
    assert kinds == set(KINDS)


def test_default_test_split_has_at_least_500_questions() -> None:
    assert sum(len(article["paragraphs"][0]["qas"]) for article in starter.questions("test")["data"]) >= 500


def test_every_kind_is_asked_in_three_ways_or_more() -> None:
    assert len(KINDS) >= 14
    for kind in KINDS.values():
        assert len(set(kind.asks)) >= 3


def test_answer_stands_in_a_sentence_about_the_entity_of_the_question(everything: list[Passage]) -> None:
    for passage in everything:
        for question in passage.questions:
            asked_about = [name for name in passage.names if name in question.text]
            before, after = passage.text[: question.start], passage.text[question.start :]
            *earlier, opening = before.split(". ")
            sentence = opening + after.split(". ")[0]
            if asked_about[0] not in sentence:
                assert sentence.startswith(("It ", asked_about[0].split()[-1]))
                assert asked_about[0] in earlier[-1]


def test_every_answer_has_a_rival_of_its_kind_in_the_passage(everything: list[Passage]) -> None:
    for passage in everything:
        for question in passage.questions:
            assert question.rivals
            assert question.answer not in question.rivals
            assert all(rival in passage.text for rival in question.rivals)


def test_no_question_of_a_passage_has_two_answers(everything: list[Passage]) -> None:
    for passage in everything:
        texts = [question.text for question in passage.questions]
        assert len(texts) == len(set(texts))


def test_splits_share_no_name_and_no_invented_word(universe: dict[str, list[Passage]]) -> None:
    names = {split: {name.lower() for p in universe[split] for name in p.names} for split in SPLITS}
    invented = {split: {word.lower() for p in universe[split] for word in p.words} for split in SPLITS}
    written = {split: set(re.findall(r"\w+", " ".join(starter.corpus(split)).lower())) for split in SPLITS}
    for split in SPLITS:
        assert invented[split]
        for other in set(SPLITS) - {split}:
            assert not names[split] & names[other]
            assert not invented[split] & written[other]


def test_excerpts_keep_the_answer_its_rivals_and_no_other_sentence() -> None:
    for article, passage in zip(starter.excerpts("dev", 40)["data"], passages("dev", 40), strict=True):
        sentences = re.findall(r"[^. ][^.]*\.", passage.text)
        for paragraph, question in zip(article["paragraphs"], passage.questions, strict=True):
            context, (qa, *_) = paragraph["context"], paragraph["qas"]
            answer = qa["answers"][0]
            assert (qa["question"], answer["text"]) == (question.text, question.answer)
            assert context[answer["answer_start"] :].startswith(question.answer)
            needed = {question.answer, *question.rivals}
            assert all(value in context for value in needed)
            assert all(sentence in sentences for sentence in re.findall(r"[^. ][^.]*\.", context))
            assert all(any(value in sentence for value in needed) for sentence in re.findall(r"[^. ][^.]*\.", context))


def test_excerpts_ask_for_the_sentence_that_names_a_word() -> None:
    asked = [
        (paragraph["context"], qa["question"], qa["answers"][0])
        for article in starter.excerpts("dev", 20)["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"][1:]
    ]
    assert len(asked) > 50
    for context, question, answer in asked:
        word = question.removeprefix("Which sentence names ").removesuffix("?")
        assert word in answer["text"]
        assert answer["text"].count(".") == 1
        assert context[answer["answer_start"] :].startswith(answer["text"])
        assert word not in context[: answer["answer_start"]]


def test_documents_retell_facts_of_their_passage() -> None:
    documents = starter.corpus("dev", documents=20)
    for document, passage in zip(documents, passages("dev", 20), strict=True):
        text, restatements = document.split("\n")
        assert text == passage.text
        assert f"{passage.questions[0].text} {passage.questions[0].reply}" in restatements
        assert passage.questions[0].answer in passage.questions[0].reply


def test_articles_agree_with_what_follows(everything: list[Passage]) -> None:
    texts = " ".join(f"{p.text} {q.text} {q.reply}" for p in everything for q in p.questions)
    assert not re.search(r"\b[Aa] (?!uni)[aeiouAEIOU]|\b[Aa]n [^aeiouhAEIOU]|\b(\w+) \1\b", texts)


def test_example_is_answered_by_its_passage() -> None:
    question, passage, answer = starter.example()
    assert question.endswith("?")
    assert "Who first climbed" in question
    assert f"{answer} was the first to reach the top of {question.removeprefix('Who first climbed ')[:-1]}" in passage
    contexts = [article["paragraphs"][0]["context"] for article in starter.questions("test")["data"]]
    assert passage in contexts


def test_tokenizer_spells_dev_and_test_and_gives_the_text_back() -> None:
    tokenizer = starter.build_tokenizer()
    assert tokenizer.token_to_id("[PAD]") == 0
    assert 1000 <= tokenizer.get_vocab_size() <= 2000
    for split in ("dev", "test"):
        for passage in passages(split, 100):
            encoding = tokenizer.encode(passage.text)
            assert "[UNK]" not in encoding.tokens
            assert len(encoding) <= 220
            decoded = tokenizer.decode(encoding.ids)
            assert decoded.replace(" ", "") == passage.text.lower().replace(" ", "")
            assert max(len(tokenizer.encode(word, add_special_tokens=False)) for word in passage.words) <= 5


def test_tokenizer_marks_the_second_text_of_a_pair() -> None:
    encoding = starter.build_tokenizer().encode("Who?", "It.")
    assert encoding.tokens == ["[CLS]", "who", "?", "[SEP]", "it", ".", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1, 1]


def test_tokenizer_is_the_same_in_another_process() -> None:
    program = "from edge_distil import starter; print(starter.build_tokenizer().to_str())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert other.rstrip("\n") == starter.build_tokenizer().to_str()


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        starter.build_tokenizer(vocabulary_size=50)


@pytest.mark.parametrize("make", [starter.questions, starter.corpus])
def test_unknown_split_is_refused_with_the_known_ones(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="train, dev, test"):
        make("validation")


def test_unknown_teacher_is_refused_with_the_known_ones() -> None:
    assert starter.teacher_folder("masked-lm").parts[-3:] == ("starter", "teacher", "masked-lm")
    with pytest.raises(ValueError, match="masked-lm, question-answering"):
        starter.teacher_folder("classification")


def test_import_loads_no_heavy_library() -> None:
    program = (
        "import sys, edge_distil.starter; print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
