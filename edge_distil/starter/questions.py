"""The kinds of question: how each is asked, and how its answer is told.

A kind bears the name of the slot that it asks for. `{subject}` is the entity, with its article where it takes one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionKind:
    """One kind of fact about an entity.

    `asks` are the ways to ask for the slot's value given the entity; `identifies`, where there are any, the ways to ask
    for the entity given the value; `reply` states the fact, and so answers both.
    """

    asks: tuple[str, ...]
    reply: str
    identifies: tuple[str, ...] = ()


KINDS = {
    "birth_year": QuestionKind(
        ("When was {subject} born?", "In what year was {subject} born?", "What is the birth year of {subject}?"),
        "{subject} was born in {birth_year}.",
        (
            "Who was born in {birth_year}?",
            "Which person was born in {birth_year}?",
            "Whose birth year is {birth_year}?",
        ),
    ),
    "birthplace": QuestionKind(
        ("Where was {subject} born?", "In which town was {subject} born?", "What is the birthplace of {subject}?"),
        "{subject} was born in {birthplace}.",
        (
            "Who was born in {birthplace}?",
            "Which person was born in {birthplace}?",
            "Whose birthplace is {birthplace}?",
        ),
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
        ("Who received the {award}?", "Who won the {award}?", "To whom was the {award} given?"),
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
        (
            "What did {founder} found?",
            "Which {noun} was founded by {founder}?",
            "Of which {noun} is {founder} the founder?",
        ),
    ),
    "founding_year": QuestionKind(
        (
            "When was {subject} founded?",
            "In what year was {subject} founded?",
            "What is the founding year of {subject}?",
        ),
        "{subject} was founded in {founding_year}.",
        (
            "Which {noun} was founded in {founding_year}?",
            "What {noun} dates from {founding_year}?",
            "Which {noun} has existed since {founding_year}?",
        ),
    ),
    "headquarters": QuestionKind(
        (
            "Where is {subject} based?",
            "In which town does {subject} have its headquarters?",
            "Where are the headquarters of {subject}?",
        ),
        "{subject} is based in {headquarters}.",
        (
            "Which {noun} is based in {headquarters}?",
            "What {noun} has its headquarters in {headquarters}?",
            "Which {noun} can be found in {headquarters}?",
        ),
    ),
    "product": QuestionKind(
        ("What does {subject} make?", "What is made by {subject}?", "Which product is {subject} known for?"),
        "{subject} makes {product}.",
        ("Which {noun} makes {product}?", "What {noun} is known for its {product}?", "Which {noun} sells {product}?"),
    ),
    "employees": QuestionKind(
        (
            "How many people does {subject} employ?",
            "How many people work for {subject}?",
            "What is the number of employees of {subject}?",
        ),
        "{subject} employs {employees} people.",
    ),
    "director": QuestionKind(
        ("Who directs {subject}?", "Who is the director of {subject}?", "Who is in charge of {subject}?"),
        "{subject} is directed by {director}.",
        (
            "What does {director} direct?",
            "Which {noun} is directed by {director}?",
            "Of which {noun} is {director} in charge?",
        ),
    ),
    "subject_studied": QuestionKind(
        ("What is studied at {subject}?", "What does {subject} study?", "What is the field of {subject}?"),
        "{subject} studies {subject_studied}.",
        (
            "Which {noun} studies {subject_studied}?",
            "At which {noun} can one study {subject_studied}?",
            "What {noun} is devoted to {subject_studied}?",
        ),
    ),
    "length": QuestionKind(
        ("How long is {subject}?", "What is the length of {subject}?", "What length does {subject} have?"),
        "{subject} is {length} long.",
        ("Which {noun} is {length} long?", "What has a length of {length}?", "Which {noun} measures {length}?"),
    ),
    "height": QuestionKind(
        ("How high is {subject}?", "What is the height of {subject}?", "How tall is {subject}?"),
        "{subject} is {height} high.",
        ("Which {noun} is {height} high?", "What has a height of {height}?", "Which {noun} rises to {height}?"),
    ),
    "opening_year": QuestionKind(
        ("When was {subject} opened?", "In what year did {subject} open?", "What is the opening year of {subject}?"),
        "{subject} was opened in {opening_year}.",
        (
            "Which {noun} was opened in {opening_year}?",
            "What {noun} opened in {opening_year}?",
            "Which {noun} has been open since {opening_year}?",
        ),
    ),
    "architect": QuestionKind(
        ("Who was the architect of {subject}?", "Who designed {subject}?", "By whom was {subject} designed?"),
        "{subject} was designed by {architect}.",
        (
            "What did {architect} design?",
            "Which {noun} was designed by {architect}?",
            "Of which {noun} was {architect} the architect?",
        ),
    ),
    "river_crossed": QuestionKind(
        (
            "Which river does {subject} cross?",
            "What river is crossed by {subject}?",
            "Over which river does {subject} lead?",
        ),
        "{subject} crosses the {river_crossed}.",
        (
            "Which {noun} crosses the {river_crossed}?",
            "What {noun} leads over the {river_crossed}?",
            "By which {noun} can one cross the {river_crossed}?",
        ),
    ),
    "material": QuestionKind(
        ("What is {subject} made of?", "Of what material is {subject} built?", "What material was used for {subject}?"),
        "{subject} is built of {material}.",
        ("Which {noun} is made of {material}?", "What {noun} is built of {material}?", "What was made of {material}?"),
    ),
    "town": QuestionKind(
        ("In which town is {subject}?", "Where does {subject} stand?", "In what town can one visit {subject}?"),
        "{subject} stands in {town}.",
        ("Which {noun} stands in {town}?", "What {noun} can one visit in {town}?", "Which {noun} is in {town}?"),
    ),
    "population": QuestionKind(
        (
            "How many people live in {subject}?",
            "What is the population of {subject}?",
            "How many inhabitants does {subject} have?",
        ),
        "{subject} has {population} inhabitants.",
        (
            "Which {noun} has {population} inhabitants?",
            "Where do {population} people live?",
            "What {noun} has a population of {population}?",
        ),
    ),
    "river": QuestionKind(
        (
            "Which river flows through {subject}?",
            "On which river does {subject} lie?",
            "What river does {subject} stand on?",
        ),
        "{subject} lies on the {river}.",
        (
            "Which {noun} lies on the {river}?",
            "Through which {noun} does the {river} flow?",
            "What {noun} stands on the {river}?",
        ),
    ),
    "festival": QuestionKind(
        (
            "Which festival is held in {subject}?",
            "What festival takes place in {subject}?",
            "What is the festival of {subject} called?",
        ),
        "{subject} holds the {festival}.",
        (
            "Where is the {festival} held?",
            "Which {noun} holds the {festival}?",
            "In which {noun} does the {festival} take place?",
        ),
    ),
    "mayor": QuestionKind(
        ("Who is the mayor of {subject}?", "Who governs {subject}?", "Which mayor does {subject} have?"),
        "{mayor} is the mayor of {subject}.",
        (
            "Of which {noun} is {mayor} the mayor?",
            "Which {noun} is governed by {mayor}?",
            "Where is {mayor} the mayor?",
        ),
    ),
    "leader": QuestionKind(
        ("Who led {subject}?", "Who was the leader of {subject}?", "By whom was {subject} led?"),
        "{subject} was led by {leader}.",
        (
            "What did {leader} lead?",
            "Which {noun} was led by {leader}?",
            "Of which {noun} was {leader} the leader?",
        ),
    ),
    "departure_year": QuestionKind(
        ("When did {subject} depart?", "In what year did {subject} set out?", "When did {subject} begin?"),
        "{subject} set out in {departure_year}.",
        (
            "Which {noun} departed in {departure_year}?",
            "What {noun} set out in {departure_year}?",
            "Which {noun} began in {departure_year}?",
        ),
    ),
    "duration": QuestionKind(
        ("How long did {subject} last?", "How long did {subject} take?", "What was the duration of {subject}?"),
        "{subject} lasted {duration}.",
        ("Which {noun} lasted {duration}?", "What {noun} took {duration}?", "Which {noun} was over after {duration}?"),
    ),
    "ship": QuestionKind(
        (
            "On which ship did {subject} sail?",
            "What was the ship of {subject} called?",
            "Which ship carried {subject}?",
        ),
        "{subject} sailed on the {ship}.",
        (
            "Which {noun} sailed on the {ship}?",
            "What {noun} was carried by the {ship}?",
            "Which {noun} used the {ship}?",
        ),
    ),
    "destination": QuestionKind(
        ("Where did {subject} go?", "What was the destination of {subject}?", "Which place did {subject} reach?"),
        "{subject} went to {destination}.",
        (
            "Which {noun} went to {destination}?",
            "What {noun} reached {destination}?",
            "Which {noun} travelled to {destination}?",
        ),
    ),
    "discoverer": QuestionKind(
        (
            "Who discovered {subject}?",
            "Who was the discoverer of {subject}?",
            "By whom was {subject} discovered?",
        ),
        "{subject} was discovered by {discoverer}.",
        (
            "What did {discoverer} discover?",
            "Which {noun} was discovered by {discoverer}?",
            "Which {noun} did {discoverer} find?",
        ),
    ),
    "discovery_year": QuestionKind(
        (
            "When was {subject} discovered?",
            "In what year was {subject} discovered?",
            "What is the discovery year of {subject}?",
        ),
        "{subject} was discovered in {discovery_year}.",
        (
            "Which {noun} was discovered in {discovery_year}?",
            "What {noun} was found in {discovery_year}?",
            "Which {noun} has been known since {discovery_year}?",
        ),
    ),
    "habitat": QuestionKind(
        ("Where does {subject} live?", "What is the habitat of {subject}?", "In which place can one find {subject}?"),
        "{subject} lives in the {habitat}.",
        (
            "Which {noun} lives in the {habitat}?",
            "What {noun} can be found in the {habitat}?",
            "Which {noun} is at home in the {habitat}?",
        ),
    ),
    "food": QuestionKind(
        ("What does {subject} eat?", "What does {subject} feed on?", "What is the food of {subject}?"),
        "{subject} eats {food}.",
        ("Which {noun} eats {food}?", "What {noun} feeds on {food}?", "Which {noun} lives on {food}?"),
    ),
    "first_climber": QuestionKind(
        (
            "Who first climbed {subject}?",
            "Who was the first to reach the top of {subject}?",
            "By whom was {subject} first climbed?",
        ),
        "{subject} was first climbed by {first_climber}.",
        (
            "What did {first_climber} climb?",
            "Which {noun} was first climbed by {first_climber}?",
            "The top of which {noun} was first reached by {first_climber}?",
        ),
    ),
    "first_climb_year": QuestionKind(
        (
            "When was {subject} first climbed?",
            "In what year was {subject} first climbed?",
            "When was the top of {subject} first reached?",
        ),
        "{subject} was first climbed in {first_climb_year}.",
        (
            "Which {noun} was first climbed in {first_climb_year}?",
            "What {noun} was climbed in {first_climb_year}?",
            "The top of which {noun} was first reached in {first_climb_year}?",
        ),
    ),
    "nearest_town": QuestionKind(
        (
            "Which town is nearest to {subject}?",
            "From which town do walkers start for {subject}?",
            "What town lies at the foot of {subject}?",
        ),
        "The town nearest to {subject} is {nearest_town}.",
    ),
    "stadium": QuestionKind(
        (
            "Where does {subject} play?",
            "What is the stadium of {subject} called?",
            "In which stadium does {subject} play?",
        ),
        "{subject} plays at the {stadium}.",
        ("Which {noun} plays at the {stadium}?", "Whose home is the {stadium}?", "What {noun} uses the {stadium}?"),
    ),
    "colours": QuestionKind(
        (
            "Which colours does {subject} wear?",
            "What are the colours of {subject}?",
            "In what colours does {subject} play?",
        ),
        "{subject} wears {colours}.",
        (
            "Which {noun} wears {colours}?",
            "What {noun} plays in {colours}?",
            "The colours of which {noun} are {colours}?",
        ),
    ),
    "coach": QuestionKind(
        ("Who coaches {subject}?", "Who is the coach of {subject}?", "Who trains the players of {subject}?"),
        "{subject} is coached by {coach}.",
        (
            "Of which {noun} is {coach} the coach?",
            "Which {noun} is coached by {coach}?",
            "What {noun} does {coach} train?",
        ),
    ),
    "author": QuestionKind(
        ("Who wrote {subject}?", "Who is the author of {subject}?", "By whom was {subject} written?"),
        "{subject} was written by {author}.",
        (
            "What did {author} write?",
            "Which {noun} was written by {author}?",
            "Of which {noun} is {author} the author?",
        ),
    ),
    "publication_year": QuestionKind(
        (
            "When was {subject} published?",
            "In what year did {subject} appear?",
            "What is the publication year of {subject}?",
        ),
        "{subject} was published in {publication_year}.",
        (
            "Which {noun} was published in {publication_year}?",
            "What {noun} appeared in {publication_year}?",
            "Which {noun} came out in {publication_year}?",
        ),
    ),
    "setting": QuestionKind(
        (
            "Where is {subject} set?",
            "In which town is {subject} set?",
            "In what town does the story of {subject} take place?",
        ),
        "{subject} is set in {setting}.",
        (
            "Which {noun} is set in {setting}?",
            "What {noun} takes place in {setting}?",
            "Which {noun} tells a story from {setting}?",
        ),
    ),
    "main_character": QuestionKind(
        (
            "Who is the main character of {subject}?",
            "Who is {subject} about?",
            "Whose life does {subject} describe?",
        ),
        "{subject} is about {main_character}.",
        (
            "Which {noun} is about {main_character}?",
            "What {noun} tells of {main_character}?",
            "Which {noun} describes the life of {main_character}?",
        ),
    ),
    "visitors": QuestionKind(
        (
            "How many visitors does {subject} have each year?",
            "How many people visit {subject} every year?",
            "What is the yearly number of visitors of {subject}?",
        ),
        "{subject} has {visitors} visitors each year.",
        (
            "Which {noun} has {visitors} visitors each year?",
            "What {noun} do {visitors} people visit every year?",
            "Which {noun} draws {visitors} visitors?",
        ),
    ),
    "collection": QuestionKind(
        ("What does {subject} show?", "What is on display at {subject}?", "What does {subject} collect?"),
        "{subject} shows {collection}.",
        (
            "Which {noun} shows {collection}?",
            "What {noun} collects {collection}?",
            "At which {noun} are {collection} on display?",
        ),
    ),
}
