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

INSTITUTE = Domain(
    key="institute",
    noun="institution",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name("{thing} Institute", "{thing} Academy", "{family} Laboratory", "{thing} College"),
        "founder": person(),
        "founding_year": year(1790, 1985),
        "headquarters": town(),
        "director": person(),
        "subject_studied": one_of(
            "glaciers, earthquakes, insects, old languages, sea birds, medicine, comets, mosses, music, weather, "
            "fossils, bridges, river fish, ancient coins, volcanoes, tides, bees, maps"
        ),
        "employees": amount(20, 900, 5),
    },
    introductions=(
        "{subject} is open to students from all countries.",
        "{subject} has a large library and a small garden.",
        "{subject} is paid for by the state.",
    ),
    statements=(
        (
            "{subject} was founded by {founder} in {founding_year}.",
            "{founder} founded {subject} in {founding_year}.",
            "In {founding_year}, {subject} was founded by {founder}.",
        ),
        (
            "{subject} is based in {headquarters}.",
            "The buildings of {subject} are in {headquarters}.",
            "{subject} has its home in the town of {headquarters}.",
        ),
        (
            "The director of {subject} is {director}.",
            "{subject} is directed by {director}.",
            "Today {director} is in charge of {subject}.",
        ),
        (
            "{subject} studies {subject_studied}.",
            "{subject} is devoted to the study of {subject_studied}.",
            "Most of the work at {subject} is about {subject_studied}.",
        ),
        (
            "{subject} employs {employees} people.",
            "There are {employees} people on the staff of {subject}.",
            "{subject} has {employees} employees.",
        ),
    ),
    remarks=(
        "These institutions publish a journal together.",
        "Every summer their students meet for a week.",
        "Their work is read all over the world.",
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

BUILDING = Domain(
    key="building",
    noun="building",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name("{thing} Tower", "{family} House", "{thing} Hall", "{thing} Palace"),
        "town": town(),
        "height": amount(18, 190, 1, "metres"),
        "architect": person(),
        "opening_year": year(1790, 2010),
        "material": one_of("marble, glass, brick, sandstone, concrete, timber, limestone, granite"),
        "use": one_of("a hotel, a library, a school, a theatre, a law court, a market"),
    },
    introductions=(
        "{subject} is used as {use}.",
        "For a long time, {subject} was used as {use}.",
    ),
    statements=(
        (
            "{subject} stands in the town of {town}.",
            "In {town}, visitors can see {subject}.",
            "{subject} is a building in {town}.",
        ),
        (
            "{subject} is {height} high.",
            "The height of {subject} is {height}.",
            "{subject} rises to a height of {height}.",
        ),
        (
            "{subject} was designed by {architect}.",
            "The architect of {subject} was {architect}.",
            "{architect} drew the plans for {subject}.",
        ),
        (
            "{subject} was opened in {opening_year}.",
            "The doors of {subject} first opened in {opening_year}.",
            "In {opening_year}, {subject} opened its doors.",
        ),
        (
            "{subject} is built of {material}.",
            "The walls of {subject} are made of {material}.",
            "The builders of {subject} used {material}.",
        ),
    ),
    remarks=(
        "These buildings are protected by law.",
        "Guided tours of these buildings are held in the spring.",
        "These buildings were repaired after a storm.",
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

SPECIES = Domain(
    key="species",
    noun="animal",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name(
            "{thing} finch",
            "{thing} frog",
            "{thing} lizard",
            "{thing} newt",
            "{thing} wren",
            "{thing} shrew",
            "{thing} toad",
            "{thing} mouse",
        ),
        "discoverer": person(),
        "discovery_year": year(1780, 1995),
        "habitat": name("{thing} Forest", "{thing} Valley", "{thing} Marsh", "{thing} Hills"),
        "food": one_of(
            "seeds, berries, ants, leaves, worms, snails, flies, roots, grass, spiders, mushrooms, nuts, flowers, moss"
        ),
        "length": amount(3, 19, 1, "centimetres"),
        "habit": one_of("active at night, shy, very rare, easy to hear, hard to see, quiet in winter"),
    },
    introductions=(
        "{subject} is {habit}.",
        "{subject} is said to be {habit}.",
    ),
    statements=(
        (
            "{subject} was discovered by {discoverer} in {discovery_year}.",
            "{discoverer} discovered {subject} in {discovery_year}.",
            "In {discovery_year}, {discoverer} was the first to describe {subject}.",
        ),
        (
            "{subject} lives in the {habitat}.",
            "The habitat of {subject} is the {habitat}.",
            "{subject} is found only in the {habitat}.",
        ),
        (
            "{subject} feeds on {food}.",
            "{subject} eats {food} for most of the year.",
            "The main food of {subject} is {food}.",
        ),
        (
            "{subject} is {length} long.",
            "A full-grown {name} is {length} long.",
            "{subject} reaches a length of {length}.",
        ),
    ),
    remarks=(
        "The young of these animals are grey.",
        "Hunting these animals is against the law.",
        "These animals have become rare because of fires.",
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

CLUB = Domain(
    key="club",
    noun="club",
    takes_article=False,
    pronoun="It",
    slots={
        "name": name("{town} United", "{town} City", "{town} Athletic"),
        "founding_year": year(1860, 1990),
        "founder": person(),
        "stadium": name("{thing} Arena", "{thing} Stadium", "{family} Ground"),
        "colours": one_of(
            "red and white, blue and yellow, green and black, black and gold, blue and white, red and black, "
            "green and white, orange and blue"
        ),
        "coach": person(),
        "crowd": one_of("students, miners, sailors, farmers, families, factory workers"),
    },
    introductions=(
        "{subject} is loved above all by {crowd}.",
        "Many supporters of {subject} are {crowd}.",
    ),
    statements=(
        (
            "{subject} was founded in {founding_year} by {founder}.",
            "{founder} founded {subject} in {founding_year}.",
            "In {founding_year}, {subject} was founded by {founder}.",
        ),
        (
            "{subject} plays at the {stadium}.",
            "The home of {subject} is the {stadium}.",
            "The matches of {subject} are held at the {stadium}.",
        ),
        (
            "{subject} wears {colours}.",
            "The colours of {subject} are {colours}.",
            "The players of {subject} are dressed in {colours}.",
        ),
        (
            "The coach of {subject} is {coach}.",
            "{subject} is coached by {coach}.",
            "The players of {subject} are trained by {coach}.",
        ),
    ),
    remarks=(
        "These clubs meet twice in every season.",
        "A match between these clubs is always sold out.",
        "These clubs have never won the national cup.",
    ),
)

NOVEL = Domain(
    key="novel",
    noun="novel",
    takes_article=False,
    pronoun="It",
    slots={
        "name": name("The Lamp of {thing}", "A Winter in {town}", "The House at {thing}", "Letters from {town}"),
        "author": person(),
        "publication_year": year(1810, 2015),
        "setting": town(),
        "main_character": one_of(
            "a young doctor, a poor baker, an old sailor, a lonely widow, a village priest, a circus rider, "
            "a blind musician, a railway guard, a rich banker, an honest thief, a country judge, a lost soldier"
        ),
        "reception": one_of(
            "read in many schools, praised by critics, turned into a film, translated into ten languages, sold abroad"
        ),
    },
    introductions=(
        "{subject} was soon {reception}.",
        "{subject} has been {reception}.",
    ),
    statements=(
        (
            "{subject} was written by {author}.",
            "{author} is the author of {subject}.",
            "{author} wrote {subject} in a small flat.",
        ),
        (
            "{subject} was published in {publication_year}.",
            "In {publication_year}, {subject} appeared.",
            "{subject} came out in {publication_year}.",
        ),
        (
            "{subject} is set in the town of {setting}.",
            "The story of {subject} takes place in {setting}.",
            "{subject} tells a story from the town of {setting}.",
        ),
        (
            "{subject} is about {main_character}.",
            "{subject} describes the life of {main_character}.",
            "The hero of {subject} is {main_character}.",
        ),
    ),
    remarks=(
        "First editions of these novels are rare.",
        "These novels are still in print.",
        "Readers often compare these novels.",
    ),
)

MUSEUM = Domain(
    key="museum",
    noun="museum",
    takes_article=True,
    pronoun="It",
    slots={
        "name": name("{thing} Museum", "{family} Museum", "{family} Collection", "{thing} Gallery"),
        "town": town(),
        "opening_year": year(1830, 2010),
        "visitors": amount(4000, 950000, 1000),
        "collection": one_of(
            "old toys, oil paintings, steam engines, stuffed birds, silver coins, model ships, musical instruments, "
            "Roman pottery, wedding dresses, sea shells, printed maps, swords, tapestries, meteorites"
        ),
        "director": person(),
        "closing_day": one_of("Mondays, Tuesdays, Wednesdays, Thursdays, Fridays"),
    },
    introductions=(
        "{subject} is closed on {closing_day}.",
        "On {closing_day}, {subject} is free for children.",
    ),
    statements=(
        (
            "{subject} is in the town of {town}.",
            "{subject} stands near the station of {town}.",
            "In {town}, visitors find {subject} next to the church.",
        ),
        (
            "{subject} was opened in {opening_year}.",
            "In {opening_year}, {subject} opened with a concert.",
            "{subject} has been open since {opening_year}.",
        ),
        (
            "{subject} has {visitors} visitors each year.",
            "Every year {visitors} people visit {subject}.",
            "{subject} draws {visitors} visitors in a year.",
        ),
        (
            "{subject} shows {collection}.",
            "The rooms of {subject} are full of {collection}.",
            "{subject} is famous for its {collection}.",
        ),
        (
            "The director of {subject} is {director}.",
            "{subject} is directed by {director}.",
            "{director} is in charge of {subject}.",
        ),
    ),
    remarks=(
        "Children like these museums very much.",
        "These museums lend works to each other.",
        "These museums receive money from the state.",
    ),
)

DOMAINS = (
    PERSON,
    COMPANY,
    INSTITUTE,
    BRIDGE,
    BUILDING,
    TOWN,
    EXPEDITION,
    SPECIES,
    MOUNTAIN,
    CLUB,
    NOVEL,
    MUSEUM,
)
