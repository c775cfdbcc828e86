"""Passages: two or three entities of one domain, the same kinds of fact about each, and the questions these answer.

Since every fact has a rival of its own kind in the same passage, a reader that does not match the entity of the
question picks the wrong one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
from typing import TypeVar

from edge_distil.starter.domains import DOMAINS, Domain
from edge_distil.starter.names import Draw
from edge_distil.starter.questions import KINDS

T = TypeVar("T")

SEED = 1729
FEWEST_WORDS, MOST_WORDS = 60, 150
FEWEST_QUESTIONS, MOST_QUESTIONS = 5, 8
ENTITY_BY_ENTITY_RATE = 0.6
PRONOUN_RATE = 0.1


@dataclass(frozen=True)
class Question:
    """A question, its answer at `start` (in characters of the passage), and the sentence that repeats the fact.

    `kind` is the slot asked for; `rivals` are the answers that would be right for the other entities of the passage.
    """

    kind: str
    text: str
    answer: str
    start: int
    reply: str
    rivals: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """A generated text. `names` are the full names drawn for it, `words` the invented words in them."""

    title: str
    domain: str
    text: str
    questions: tuple[Question, ...]
    names: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class _Sentence:
    """A sentence about one entity, with the character at which each of its slots starts."""

    text: str
    entity: dict[str, str]
    starts: dict[str, int]


def passages(split: str, count: int, seed: int = SEED) -> Iterator[Passage]:
    """Yield the first `count` passages of a split.

    Passage number i depends on the seed, the split and i alone, so that a smaller count gives a prefix of a larger one.
    """
    for index in range(count):
        # A string seeds `Random` through SHA-512, the same in every process and version of Python.
        yield _passage(split, random.Random(f"{seed}/{split}/{index}"))


def _passage(split: str, rng: random.Random) -> Passage:
    domain = rng.choice(DOMAINS)
    while True:
        draw = Draw(split, rng)
        entities = [_entity(domain, draw) for _ in range(rng.choice((2, 2, 2, 3)))]
        sentences = _sentences(domain, entities, rng)
        remark = rng.choice((*domain.remarks, ""))
        text = " ".join([*(sentence.text for sentence in sentences), remark]).rstrip()
        if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS:
            break
    questions = _questions(sentences, entities, rng)
    return Passage(entities[0]["name"], domain.key, text, questions, tuple(draw.names), tuple(draw.words))


def _entity(domain: Domain, draw: Draw) -> dict[str, str]:
    """The values of all slots of a new entity, and the ways to refer to it."""
    entity = {"noun": domain.noun}
    for slot, value in domain.slots.items():
        entity[slot] = value(draw, entity)
    entity["subject"] = f"the {entity['name']}" if domain.takes_article else entity["name"]
    entity["short"] = domain.pronoun or entity["name"].split()[-1]
    return entity


def _sentences(domain: Domain, entities: list[dict[str, str]], rng: random.Random) -> list[_Sentence]:
    """Sentences that state the same kinds of fact about every entity, one entity after another or fact by fact."""
    statements = rng.sample(domain.statements, rng.randint(3, len(domain.statements)) if len(entities) == 2 else 3)
    order: list[tuple[dict[str, str], tuple[str, ...]]] = []
    if rng.random() < ENTITY_BY_ENTITY_RATE:
        for entity in entities:
            order += [(entity, phrasings) for phrasings in (domain.introductions, *_shuffled(statements, rng))]
    else:
        for phrasings in (domain.introductions, *statements):
            order += [(entity, phrasings) for entity in _shuffled(entities, rng)]

    sentences: list[_Sentence] = []
    for entity, phrasings in order:
        template = rng.choice(phrasings)
        # A pronoun stands only right after a sentence that opens with its antecedent.
        antecedent = bool(sentences) and sentences[-1].entity is entity and sentences[-1].starts.get("subject") == 0
        if antecedent and template.startswith("{subject}") and rng.random() < PRONOUN_RATE:
            template = template.replace("{subject}", "{short}")
        sentences.append(_render(template, entity))
    return sentences


def _shuffled(items: list[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))


def _render(template: str, entity: dict[str, str]) -> _Sentence:
    """Fill the slots of a template, and note where each of them starts."""
    text, starts = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is None:
            continue
        value = entity[slot]
        if text.endswith(" a ") and value[0].lower() in "aeiou":
            text = text[:-1] + "n "
        starts[slot] = len(text)
        text += value
    return _Sentence(text[0].upper() + text[1:], entity, starts)


def _questions(sentences: list[_Sentence], entities: list[dict[str, str]], rng: random.Random) -> tuple[Question, ...]:
    """A few of the questions that the sentences answer, in random order."""
    questions = []
    offset = 0
    for sentence in sentences:
        entity = sentence.entity
        for slot in sentence.starts:
            if slot not in KINDS:
                continue
            questions.append(
                Question(
                    kind=slot,
                    text=_render(rng.choice(KINDS[slot].asks), entity).text,
                    answer=entity[slot],
                    start=offset + sentence.starts[slot],
                    reply=_render(KINDS[slot].reply, entity).text,
                    rivals=tuple(other[slot] for other in entities if other is not entity),
                )
            )
        offset += len(sentence.text) + 1
    wanted = rng.randint(FEWEST_QUESTIONS, MOST_QUESTIONS)
    return tuple(rng.sample(questions, min(wanted, len(questions))))
