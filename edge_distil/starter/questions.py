"""The kinds of question: how each is asked, and how its answer is told.

A kind bears the name of the slot that it asks for. `{subject}` is the entity, with its article where it takes one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionKind:
    """One kind of fact about an entity: the ways to ask for it, and the sentence that states it."""

    asks: tuple[str, ...]
    reply: str


KINDS = {
    "birth_year": QuestionKind(
        ("When was {subject} born?", "In what year was {subject} born?", "What is the birth year of {subject}?"),
        "{subject} was born in {birth_year}.",
    ),
    "birthplace": QuestionKind(
        ("Where was {subject} born?", "In which town was {subject} born?", "What is the birthplace of {subject}?"),
        "{subject} was born in {birthplace}.",
    ),
    "occupation": QuestionKind(
        (
            "What was the occupation of {subject}?",
            "What did {subject} do for a living?",
            "What was the profession of {subject}?",
        ),
        "{subject} was a {occupation}.",
    ),
    "award": QuestionKind(
        ("Which award did {subject} receive?", "What prize did {subject} win?", "Which prize was given to {subject}?"),
        "{subject} received the {award}.",
    ),
    "award_year": QuestionKind(
        (
            "When did {subject} receive a prize?",
            "In what year did {subject} win a prize?",
            "When was a prize given to {subject}?",
        ),
        "{subject} won a prize in {award_year}.",
    ),
    "university": QuestionKind(
        (
            "Where did {subject} study?",
            "Which university did {subject} attend?",
            "At which university was {subject} a student?",
        ),
        "{subject} studied at the {university}.",
    ),
    "founder": QuestionKind(
        ("Who founded {subject}?", "Who was the founder of {subject}?", "By whom was {subject} founded?"),
        "{subject} was founded by {founder}.",
    ),
    "founding_year": QuestionKind(
        (
            "When was {subject} founded?",
            "In what year was {subject} founded?",
            "What is the founding year of {subject}?",
        ),
        "{subject} was founded in {founding_year}.",
    ),
    "headquarters": QuestionKind(
        (
            "Where is {subject} based?",
            "In which town does {subject} have its headquarters?",
            "Where are the headquarters of {subject}?",
        ),
        "{subject} is based in {headquarters}.",
    ),
    "product": QuestionKind(
        ("What does {subject} make?", "What is made by {subject}?", "Which product is {subject} known for?"),
        "{subject} makes {product}.",
    ),
    "employees": QuestionKind(
        (
            "How many people does {subject} employ?",
            "How many people work for {subject}?",
            "What is the number of employees of {subject}?",
        ),
        "{subject} employs {employees} people.",
    ),
    "length": QuestionKind(
        ("How long is {subject}?", "What is the length of {subject}?", "What length does {subject} have?"),
        "{subject} is {length} long.",
    ),
    "height": QuestionKind(
        ("How high is {subject}?", "What is the height of {subject}?", "How tall is {subject}?"),
        "{subject} is {height} high.",
    ),
    "opening_year": QuestionKind(
        ("When was {subject} opened?", "In what year did {subject} open?", "What is the opening year of {subject}?"),
        "{subject} was opened in {opening_year}.",
    ),
    "architect": QuestionKind(
        ("Who was the architect of {subject}?", "Who designed {subject}?", "By whom was {subject} designed?"),
        "{subject} was designed by {architect}.",
    ),
    "river_crossed": QuestionKind(
        (
            "Which river does {subject} cross?",
            "What river is crossed by {subject}?",
            "Over which river does {subject} lead?",
        ),
        "{subject} crosses the {river_crossed}.",
    ),
    "material": QuestionKind(
        ("What is {subject} made of?", "Of what material is {subject} built?", "What material was used for {subject}?"),
        "{subject} is built of {material}.",
    ),
    "population": QuestionKind(
        (
            "How many people live in {subject}?",
            "What is the population of {subject}?",
            "How many inhabitants does {subject} have?",
        ),
        "{subject} has {population} inhabitants.",
    ),
    "river": QuestionKind(
        (
            "Which river flows through {subject}?",
            "On which river does {subject} lie?",
            "What river does {subject} stand on?",
        ),
        "{subject} lies on the {river}.",
    ),
    "festival": QuestionKind(
        (
            "Which festival is held in {subject}?",
            "What festival takes place in {subject}?",
            "What is the festival of {subject} called?",
        ),
        "{subject} holds the {festival}.",
    ),
    "mayor": QuestionKind(
        ("Who is the mayor of {subject}?", "Who governs {subject}?", "Which mayor does {subject} have?"),
        "{mayor} is the mayor of {subject}.",
    ),
    "leader": QuestionKind(
        ("Who led {subject}?", "Who was the leader of {subject}?", "By whom was {subject} led?"),
        "{subject} was led by {leader}.",
    ),
    "departure_year": QuestionKind(
        ("When did {subject} depart?", "In what year did {subject} set out?", "When did {subject} begin?"),
        "{subject} set out in {departure_year}.",
    ),
    "duration": QuestionKind(
        ("How long did {subject} last?", "How long did {subject} take?", "What was the duration of {subject}?"),
        "{subject} lasted {duration}.",
    ),
    "ship": QuestionKind(
        (
            "On which ship did {subject} sail?",
            "What was the ship of {subject} called?",
            "Which ship carried {subject}?",
        ),
        "{subject} sailed on the {ship}.",
    ),
    "destination": QuestionKind(
        ("Where did {subject} go?", "What was the destination of {subject}?", "Which place did {subject} reach?"),
        "{subject} went to {destination}.",
    ),
    "first_climber": QuestionKind(
        (
            "Who first climbed {subject}?",
            "Who was the first to reach the top of {subject}?",
            "By whom was {subject} first climbed?",
        ),
        "{subject} was first climbed by {first_climber}.",
    ),
    "first_climb_year": QuestionKind(
        (
            "When was {subject} first climbed?",
            "In what year was {subject} first climbed?",
            "When was the top of {subject} first reached?",
        ),
        "{subject} was first climbed in {first_climb_year}.",
    ),
    "nearest_town": QuestionKind(
        (
            "Which town is nearest to {subject}?",
            "From which town do walkers start for {subject}?",
            "What town lies at the foot of {subject}?",
        ),
        "The town nearest to {subject} is {nearest_town}.",
    ),
}
