"""Everyday words outside the studio's lexicon, in groups: things that people search for.

They teach the mini rephraser to keep words that the studio does not have, and which expectations suit which
kind of subject. One word in `HELD_OUT_EVERY` is held out for the evaluation.
"""

from collections.abc import Sequence

HELD_OUT_EVERY, HELD_OUT_INDEX = 6, 5

GROUPS: dict[str, str] = {
    "animal": """elephant tiger lion bear wolf fox rabbit squirrel deer moose owl eagle parrot flamingo swan
        duck goose hen rooster sheep goat cow bull pig donkey camel llama giraffe zebra monkey
        gorilla panda koala kangaroo dolphin whale shark seal otter turtle lizard snake frog
        crab octopus jellyfish bee dragonfly spider hedgehog raccoon hamster crow seagull
        peacock hummingbird""",
    "outdoor": """waterfall river lake canyon volcano glacier island cliff valley hill cave lagoon reef rapids
        geyser prairie jungle swamp orchard vineyard farm garden park trail road path pier
        harbour canal coastline sunrise rainbow thunderstorm lightning aurora galaxy
        constellation eclipse comet moon sky cloudscape avalanche campsite playground stadium
        racetrack skyline rooftop alley square fountain""",
    "building": """church cathedral mosque temple pagoda belfry skyscraper bridge barn farmhouse villa mansion
        museum library school factory warehouse station airport hotel shop bakery bookstore
        monastery ruin arch gate wall monument statue obelisk pyramid dam observatory
        greenhouse igloo treehouse hut chapel""",
    "vehicle": """truck bus train tram locomotive tractor motorcycle scooter van taxi ambulance helicopter
        glider rocket canoe kayak ferry submarine ship tugboat gondola raft jet wagon carriage sled
        skateboard caravan bulldozer crane""",
    "plant": """rose daisy sunflower orchid lily iris poppy lavender dandelion fern ivy moss bamboo palm pine
        willow maple birch cherry blossoming lotus peony magnolia wheat corn pumpkin vine leaf
        bouquet seedling""",
    "food": """apple pear peach lemon grapes strawberry blueberry banana mango cake pie cookie bread croissant
        pancake waffle cheese pizza pasta sushi soup salad sandwich burger omelette coffee
        espresso cocktail wine juice chocolate honey noodles dumpling steak olives""",
    "object": """lamp candle clock book bottle mug plate bowl spoon basket mirror piano violin drum trumpet
        flute camera telescope typewriter laptop keyboard phone radio wardrobe sofa bed bookshelf
        pillow carpet curtain suitcase backpack watch necklace ring crown mask doll puppet toy
        robot kite lantern globe compass anchor rope ladder hammer key chessboard dice scissors
        pencil envelope""",
    "people": """girl boy woman man child baby couple family grandmother farmer fisherman dancer ballerina
        musician chef painter astronaut cyclist runner surfer skier climber swimmer soldier
        monk bride pilot firefighter teacher toddler hiker singer crowd wedding portrait""",
}  # fmt: skip
QUALIFIERS = """old tiny huge small big wooden golden silver black brown grey turquoise beige striped
    spotted antique vintage modern rusty broken abandoned empty crowded sleeping
    running flying jumping swimming smiling lonely wet frozen burning glowing shiny
    colourful dark bright ancient wild young elegant fluffy transparent giant curly
    handmade floating hidden distant dusty steep narrow round square ripe fresh"""
OUTDOOR_PLACES = (
    "on a hill", "by the river", "near a waterfall", "on a bridge", "in the park", "under a tree",
    "in the rain", "on a rock", "at the lake", "in the jungle", "on the road", "in the savannah",
    "by the harbour", "on a cliff", "in the clouds", "on a farm", "in tall grass", "under a bridge",
)  # fmt: skip
INDOOR_PLACES = (
    "in the kitchen", "on a shelf", "in a museum", "on a bed", "in a studio", "by the window", "on a desk",
    "in a cafe", "in a basket", "on a plate", "in a church", "in the library", "on the sofa", "in a shop",
)  # fmt: skip


def group_words(group: str, held_out: bool) -> list[str]:
    """The training words of a group, or its held-out words."""
    return split(GROUPS[group].split(), held_out)


def qualifiers(held_out: bool) -> list[str]:
    """The training adjectives, or the held-out ones."""
    return split(QUALIFIERS.split(), held_out)


def split(items: Sequence[str], held_out: bool) -> list[str]:
    """Every `HELD_OUT_EVERY`-th item if `held_out`, else all others."""
    return [
        item for index, item in enumerate(items) if (index % HELD_OUT_EVERY == HELD_OUT_INDEX) == held_out
    ]
