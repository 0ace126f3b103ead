"""The studio's lexicon: what an image can show, and the words that people use for it.

All code that draws, describes, searches or judges studio scenes takes its words from here. A new synonym is
one line in this file; a new subject also needs a drawing in `subjects.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A possible subject of a scene, with the settings in which it occurs; the first is the most typical."""

    name: str
    plural: str
    synonyms: tuple[str, ...]
    settings: tuple[str, ...]
    airborne: bool = False


_LAND = ("beach", "desert", "forest", "mountains", "meadow", "city", "snow")
_HOME = ("room", "table", "meadow", "beach")
_SKY = ("sea", "desert", "mountains", "meadow", "city", "snow")

_SUBJECTS = (
    Subject("sailboat", "sailboats", ("sailing boat", "yacht", "boat"), ("sea",)),
    Subject("lighthouse", "lighthouses", ("light tower", "beacon"), ("sea", "beach", "snow")),
    Subject("bicycle", "bicycles", ("bike", "cycle"), _LAND),
    Subject("car", "cars", ("automobile", "auto"), _LAND),
    Subject("house", "houses", ("cottage", "cabin", "home"), _LAND),
    Subject("windmill", "windmills", ("mill",), _LAND),
    Subject("tree", "trees", ("oak",), _LAND),
    Subject("cactus", "cacti", ("cactuses", "saguaro"), ("desert", "room", "table", "meadow")),
    Subject("mushroom", "mushrooms", ("toadstool",), ("forest", "meadow", "table", "mountains")),
    Subject("tulip", "tulips", ("flower", "blossom"), ("meadow", "forest", "mountains", "room", "table")),
    Subject("horse", "horses", ("pony", "stallion"), _LAND),
    Subject("dog", "dogs", ("puppy", "hound"), (*_LAND, "room")),
    Subject("cat", "cats", ("kitten", "kitty"), (*_LAND, "room", "table")),
    Subject(
        "butterfly",
        "butterflies",
        ("moth",),
        ("forest", "meadow", "mountains", "room", "table"),
        airborne=True,
    ),
    Subject("hot air balloon", "hot air balloons", ("balloon",), _SKY, airborne=True),
    Subject("airplane", "airplanes", ("plane", "aeroplane", "aircraft"), _SKY, airborne=True),
    Subject("tent", "tents", ("camping tent",), _LAND),
    Subject("castle", "castles", ("fortress", "palace"), _LAND),
    Subject("chair", "chairs", ("seat", "armchair"), (*_HOME, "city")),
    Subject("teapot", "teapots", ("kettle", "tea pot"), _HOME),
    Subject("vase", "vases", ("urn", "jug"), _HOME),
    Subject("guitar", "guitars", ("ukulele",), _HOME),
    Subject("umbrella", "umbrellas", ("parasol",), ("beach", "city", "meadow", "desert", "room")),
    Subject("penguin", "penguins", ("penguin bird",), ("snow", "beach", "sea", "room")),
)
SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in _SUBJECTS}

COLOURS: dict[str, str] = {
    "red": "#d0342c",
    "orange": "#ef8a24",
    "yellow": "#f4cf3a",
    "green": "#3f9b52",
    "blue": "#2f6fc4",
    "purple": "#7d48b0",
    "pink": "#ee86ad",
    "white": "#f1efe9",
}
COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "orange": ("tangerine",),
    "yellow": ("golden yellow", "lemon"),
    "green": ("emerald",),
    "blue": ("azure", "navy"),
    "purple": ("violet",),
    "pink": ("rose",),
    "white": ("ivory",),
}

# The setting of a scene: phrases that follow the subject, then other words for it.
SETTINGS: dict[str, tuple[str, ...]] = {
    "sea": ("on the sea", "at sea", "on the water", "sea", "ocean", "water"),
    "beach": ("on the beach", "at the beach", "by the shore", "beach", "shore", "coast"),
    "desert": ("in the desert", "among the dunes", "desert", "dunes"),
    "forest": ("in the forest", "in the woods", "forest", "woods", "woodland"),
    "mountains": ("in the mountains", "below the peaks", "mountains", "mountain", "alps"),
    "meadow": ("in a meadow", "in a field", "meadow", "field", "grass", "garden"),
    "city": ("in the city", "in the street", "city", "street", "town", "urban"),
    "snow": ("in the snow", "in winter", "snow", "snowy", "winter"),
    "room": ("in a living room", "indoors", "room", "indoor", "interior"),
    "table": ("on a table", "as a still life", "table", "still life", "tabletop"),
}

# The light of a scene: phrases for it, then how much people like it in a photograph, in [0, 1].
LIGHTS: dict[str, tuple[str, ...]] = {
    "sunset": ("at sunset", "at golden hour", "in the evening sun", "sunset", "golden hour"),
    "dusk": ("at dusk", "at blue hour", "at twilight", "dusk", "twilight", "blue hour"),
    "mist": ("in the morning mist", "in the fog", "mist", "misty", "fog", "foggy"),
    "night": ("at night", "under the stars", "night", "moonlight", "starry"),
    "midday": ("at midday", "at noon", "midday", "noon", "sunny"),
    "overcast": ("on a grey day", "under an overcast sky", "overcast", "cloudy", "grey day"),
}
LIGHT_APPEAL: dict[str, float] = {
    "sunset": 1.0, "dusk": 0.85, "mist": 0.75, "night": 0.55, "midday": 0.3, "overcast": 0.1,
}  # fmt: skip

# A small second object: its name in a detailed caption, "" for none.
COMPANIONS: dict[str, str] = {
    "none": "",
    "birds": "birds in the sky",
    "clouds": "white clouds",
    "rocks": "grey rocks",
    "fence": "a wooden fence",
    "flowers": "small flowers",
    "ball": "a striped ball",
    "crate": "a wooden crate",
}
INDOOR_SETTINGS = frozenset({"room", "table"})
OUTDOOR_COMPANIONS = frozenset({"birds", "clouds", "fence"})
COUNT_WORDS: dict[int, tuple[str, ...]] = {1: ("a", "one"), 2: ("two", "a pair of"), 3: ("three",)}
PLACES: dict[str, str] = {"left": "on the left", "centre": "in the middle", "right": "on the right"}

# Phrases about an image that is good, or bad, in one aspect; "overall" is about the whole image.
GOOD_PHRASES: dict[str, tuple[str, ...]] = {
    "light": ("beautiful light", "golden hour light", "soft light", "dramatic light"),
    "composition": ("rule of thirds", "well composed", "balanced composition"),
    "focus": ("sharp focus", "crisp detail", "tack sharp"),
    "exposure": ("well exposed", "balanced exposure"),
    "palette": ("vivid colours", "harmonious palette", "rich colours"),
    "clutter": ("clean background", "uncluttered", "minimalist"),
    "level": ("level horizon", "straight horizon"),
    "grain": ("fine detail", "clean image"),
    "overall": ("beautiful", "stunning", "award winning photo", "masterpiece", "professional photo"),
}
BAD_PHRASES: dict[str, tuple[str, ...]] = {
    "light": ("flat light", "dull light", "harsh light"),
    "composition": ("badly framed", "off balance"),
    "focus": ("blurry", "out of focus"),
    "exposure": ("badly exposed", "washed out", "too dark"),
    "palette": ("muddy colours", "dull colours"),
    "clutter": ("messy background", "cluttered"),
    "level": ("crooked", "tilted horizon"),
    "grain": ("grainy", "noisy"),
    "overall": ("bad photo", "snapshot", "amateur photo", "ugly"),
}
ASPECTS = tuple(aspect for aspect in GOOD_PHRASES if aspect != "overall")
