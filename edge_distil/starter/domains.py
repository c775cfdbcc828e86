"""What passages are about: for each domain the slots of an entity, and the sentences that state them.

Every sentence names its entity in full as `{subject}`. All phrasings of a statement state the same slots, so that the
choice of a phrasing never changes what can be asked. Slots without a question kind of their name are decoration.
"""

from dataclasses import dataclass

from edge_distil.starter.values import Slot, amount, name, one_of, person, town, year, years_after


@dataclass(frozen=True)
class Domain:
    """One sort of entity and the ways to write about it.

    `takes_article` tells whether the name is preceded by "the"; `pronoun` is what may stand for the subject right after
    a sentence that opens with it (`None`: the last word of the name). `introductions` hold no facts that are asked for;
    `remarks` are about all entities of a passage at once.
    """

    key: str
    noun: str
    takes_article: bool
    pronoun: str | None
    slots: dict[str, Slot]
    introductions: tuple[str, ...]
    statements: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]


PERSON = Domain(
    key="person",
    noun="person",
    takes_article=False,
    pronoun=None,
    slots={
        "name": person(),
        "birth_year": year(1780, 1930),
        "birthplace": town(),
        "occupation": one_of(
            "painter, composer, botanist, engineer, astronomer, poet, chemist, glassmaker, sculptor, surgeon, "
            "clockmaker, geologist, teacher, printer, photographer, architect, pianist, sailor, gardener, judge"
        ),
        "university": name("University of {town}"),
        "award": name("{thing} Prize", "{thing} Medal", "{family} Award"),
        "award_year": years_after("birth_year", 28, 60),
        "family_trade": one_of("farmers, bakers, weavers, fishermen, miners, carpenters, tailors, merchants"),
    },
    introductions=(
        "{subject} came from a family of {family_trade}.",
        "The parents of {subject} were {family_trade}.",
        "{subject} grew up among {family_trade}.",
    ),
    statements=(
        (
            "{subject} was born in the town of {birthplace} in {birth_year}.",
            "In {birth_year}, {subject} was born in {birthplace}.",
            "{subject} was born in {birth_year} in {birthplace}.",
        ),
        (
            "{subject} worked as a {occupation} for many years.",
            "By profession, {subject} was a {occupation}.",
            "{subject} made a living as a {occupation}.",
        ),
        (
            "{subject} studied at the {university}.",
            "As a student, {subject} went to the {university}.",
            "{subject} attended the {university} for four years.",
        ),
        (
            "In {award_year}, {subject} received the {award}.",
            "{subject} won the {award} in {award_year}.",
            "The {award} was given to {subject} in {award_year}.",
        ),
    ),
    remarks=(
        "Their letters were printed long after their deaths.",
        "Little is known about their private lives.",
        "Streets in many towns are named after them.",
    ),
)

COMPANY = Domain(
    key="company",
    noun="company",
    takes_article=False,
    pronoun="It",
    slots={
        "name": name("{thing} Industries", "{thing} Works", "{family} and Sons", "{thing} Manufacturing"),
        "founder": person(),
        "founding_year": year(1800, 1990),
        "headquarters": town(),
        "product": one_of(
            "clocks, bicycles, pianos, lamps, boats, stoves, engines, carpets, shoes, windows, cameras, knives, "
            "tractors, pumps, umbrellas, violins, pencils, candles, mirrors, scales, radios, locks"
        ),
        "employees": amount(120, 9800, 20),
        "ownership": one_of("a family company, a company with many owners, one of the oldest companies of its kind"),
    },
    introductions=(
        "{subject} is {ownership}.",
        "{subject} has always been {ownership}.",
    ),
    statements=(
        (
            "{subject} was founded in {founding_year} by {founder}.",
            "In {founding_year}, {founder} founded {subject}.",
            "{founder} started {subject} in {founding_year} with borrowed money.",
        ),
        (
            "{subject} is based in {headquarters}.",
            "The headquarters of {subject} are in the town of {headquarters}.",
            "{subject} has its main office in {headquarters}.",
        ),
        (
            "{subject} makes {product}.",
            "{subject} is known for its {product}.",
            "The factory of {subject} makes {product}.",
        ),
        (
            "{subject} employs {employees} people.",
            "Today {employees} people work for {subject}.",
            "{subject} has {employees} employees.",
        ),
    ),
    remarks=(
        "These companies have been rivals for a long time.",
        "In the last war their factories stood still.",
        "These companies often sell to the same shops.",
    ),
)

BRIDGE = Domain(
    key="bridge",
    noun="bridge",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name("{thing} Bridge", "{family} Bridge", "{town} Bridge"),
        "river_crossed": name("{thing} River"),
        "length": amount(60, 1900, 2, "metres"),
        "opening_year": year(1800, 2005),
        "architect": person(),
        "material": one_of("steel, stone, concrete, iron, oak, brick, granite"),
        "traffic": one_of("trains, cars, people on foot, trams, cyclists, farm carts"),
    },
    introductions=(
        "{subject} was built for {traffic}.",
        "{subject} is mostly used by {traffic}.",
    ),
    statements=(
        (
            "{subject} crosses the {river_crossed}.",
            "{subject} leads over the {river_crossed}.",
            "Travellers cross the {river_crossed} by {subject}.",
        ),
        (
            "{subject} is {length} long.",
            "The length of {subject} is {length}.",
            "With a length of {length}, {subject} is easy to see from the hills.",
        ),
        (
            "{subject} was opened in {opening_year} after years of work.",
            "In {opening_year}, {subject} was opened.",
            "{subject} opened to the public in {opening_year}.",
        ),
        (
            "{architect} was the architect of {subject}.",
            "{subject} was designed by {architect}.",
            "The plans for {subject} were drawn by {architect}.",
        ),
        (
            "{subject} is built of {material}.",
            "The builders of {subject} used {material}.",
            "{subject} is made of {material}.",
        ),
    ),
    remarks=(
        "These bridges are painted every ten years.",
        "No toll is paid on these bridges today.",
        "Both locals and visitors like to take pictures of these bridges.",
    ),
)

TOWN = Domain(
    key="town",
    noun="town",
    takes_article=False,
    pronoun="It",
    slots={
        "name": town(),
        "population": amount(900, 98000, 100),
        "river": name("{thing} River"),
        "festival": name("{thing} Festival", "{thing} Fair"),
        "mayor": person(),
        "product": one_of(
            "cheese, paper, glass, wool, honey, salt, wine, soap, leather, bricks, tea, ropes, beer, furniture"
        ),
        "landscape": one_of("wide fields, low hills, dark woods, green meadows, steep rocks, old orchards"),
    },
    introductions=(
        "{subject} is a town among {landscape}.",
        "{subject} is surrounded by {landscape}.",
    ),
    statements=(
        (
            "{subject} has {population} inhabitants.",
            "The population of {subject} is {population}.",
            "About {population} people live in {subject}.",
        ),
        (
            "{subject} lies on the {river}.",
            "The {river} flows through {subject}.",
            "{subject} was built on both banks of the {river}.",
        ),
        (
            "Every year {subject} holds the {festival}.",
            "The {festival} takes place in {subject} each autumn.",
            "{subject} is the home of the {festival}.",
        ),
        (
            "The mayor of {subject} is {mayor}.",
            "{subject} is governed by its mayor, {mayor}.",
            "{mayor} is the mayor of {subject}.",
        ),
        (
            "{subject} is known for its {product}.",
            "{subject} makes {product} for the whole country.",
            "Most workers in {subject} make {product}.",
        ),
    ),
    remarks=(
        "A railway line joins these towns.",
        "Many young people have left these towns for the city.",
        "These towns share a hospital and a fire brigade.",
    ),
)

EXPEDITION = Domain(
    key="expedition",
    noun="expedition",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name("{thing} Expedition", "{family} Expedition"),
        "leader": person(),
        "departure_year": year(1770, 1960),
        "duration": amount(3, 60, 1, "months"),
        "ship": name("{given} Star", "{thing} Queen", "Lady {given}"),
        "destination": name("{thing} Island", "Cape {thing}", "{thing} Bay"),
        "sponsor": one_of("a king, a museum, a newspaper, a rich merchant, a university, the navy"),
    },
    introductions=(
        "{subject} was paid for by {sponsor}.",
        "The money for {subject} came from {sponsor}.",
    ),
    statements=(
        (
            "{subject} was led by {leader}.",
            "{leader} was the leader of {subject}.",
            "The members of {subject} were led by {leader}.",
        ),
        (
            "{subject} set out in {departure_year}.",
            "In {departure_year}, {subject} began.",
            "{subject} departed in the spring of {departure_year}.",
        ),
        (
            "{subject} lasted {duration}.",
            "In all, {subject} took {duration}.",
            "After {duration}, {subject} was over.",
        ),
        (
            "{subject} sailed on the {ship}.",
            "The ship of {subject} was called the {ship}.",
            "A ship named the {ship} carried {subject}.",
        ),
        (
            "{subject} went to {destination}.",
            "The destination of {subject} was {destination}.",
            "{subject} reached {destination} in bad weather.",
        ),
    ),
    remarks=(
        "The diaries of these expeditions can be read in a museum.",
        "No lives were lost on these expeditions.",
        "These expeditions brought home many drawings.",
    ),
)

MOUNTAIN = Domain(
    key="mountain",
    noun="mountain",
    takes_article=False,
    pronoun="It",
    slots={
        "name": name("Mount {thing}", "{thing} Peak"),
        "height": amount(1200, 7900, 10, "metres"),
        "first_climber": person(),
        "first_climb_year": year(1790, 1970),
        "nearest_town": town(),
        "cover": one_of("snow, ice, clouds, mist, frost"),
    },
    introductions=(
        "{subject} is covered with {cover} for half of the year.",
        "The upper part of {subject} is often covered with {cover}.",
    ),
    statements=(
        (
            "{subject} is {height} high.",
            "The height of {subject} is {height}.",
            "{subject} rises to {height} above the sea.",
        ),
        (
            "{subject} was first climbed by {first_climber} in {first_climb_year}.",
            "In {first_climb_year}, {first_climber} was the first to reach the top of {subject}.",
            "{first_climber} first climbed {subject} in {first_climb_year}.",
        ),
        (
            "The town nearest to {subject} is {nearest_town}.",
            "The town of {nearest_town} lies at the foot of {subject}.",
            "Walkers start for {subject} from the town of {nearest_town}.",
        ),
    ),
    remarks=(
        "Climbers are warned of sudden storms on these mountains.",
        "On clear days these mountains can be seen from the coast.",
        "There are huts for tired walkers on these mountains.",
    ),
)

DOMAINS = (PERSON, COMPANY, BRIDGE, TOWN, EXPEDITION, MOUNTAIN)
