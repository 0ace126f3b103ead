"""The judge: a language-and-vision model that rates images and compares them.

Every answer is one token. The probabilities of the allowed tokens count, not the sampled token: a rating is
the expectation over the digits 1 to 5, and a comparison is the probability of the letter A, asked in both
orders. The shipped judge is trained on exactly the prompts below; they also suit a large Qwen2.5-VL.

    judge = Judge(make_engine(profile.judge), image_px=profile.judge.image_px)
    judge.aesthetics([image])            # array([3.7])
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from actors.engine import Engine, Reply, Request, generate_or_exit
from actors.images import STORED, UnusableImage, read_stored
from cluster.sql import in_list
from cluster.tables import Store

Criterion = Literal["accuracy", "aesthetics", "overall"]
RatedCriterion = Literal["accuracy", "aesthetics"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)

DIGITS = ("1", "2", "3", "4", "5")
LETTERS = ("A", "B")

SYSTEM = "You are a judge of photographs."
AESTHETICS = (
    "How beautiful is this picture? Mind light, colours, composition and sharpness. "
    "Rate it from 1 (ugly) to 5 (stunning) with one digit."
)
# The query comes after the picture, as a caption would.
ACCURACY = (
    '"{query}": how well does this picture show it? '
    "Rate it from 1 (not at all) to 5 (exactly) with one digit."
)
COMPARE: dict[Criterion, str] = {
    "accuracy": '"{query}": which picture shows it better? Answer with one letter, A or B.',
    "aesthetics": (
        "Which picture is more beautiful? Mind light, colours, composition and sharpness. "
        "Answer with one letter, A or B."
    ),
    "overall": (
        '"{query}": which picture is the better answer, both right and beautiful? '
        "Answer with one letter, A or B."
    ),
}

# The judge sees both pictures and rates one of them: the paper's `cp_scorer`.
TOGETHER: dict[RatedCriterion, str] = {
    "accuracy": (
        '"{query}": how well does picture {letter} show it? '
        "Rate it from 1 (not at all) to 5 (exactly) with one digit."
    ),
    "aesthetics": (
        "How beautiful is picture {letter}? Mind light, colours, composition and sharpness. "
        "Rate it from 1 (ugly) to 5 (stunning) with one digit."
    ),
}

SheetCriterion = Literal["accuracy", "aesthetics", "diversity"]
# Two rows of results in one image, for a large model: the shipped judge is not trained on these prompts.
SHEET: dict[SheetCriterion, str] = {
    "accuracy": (
        'The picture has two rows of search results for "{query}", A above and B below. '
        "Which row shows it better? Answer with one letter, A or B."
    ),
    "aesthetics": (
        'The picture has two rows of search results for "{query}", A above and B below. '
        "Which row is more beautiful for this search? Answer with one letter, A or B."
    ),
    "diversity": (
        'The picture has two rows of search results for "{query}", A above and B below. '
        "Which row is more varied? Answer with one letter, A or B."
    ),
}
SHEET_CRITERIA: tuple[SheetCriterion, ...] = get_args(SheetCriterion)
SHEET_CELL_PX = 448  # side of a cell of a sheet if the judge's images have no size limit

Messages = list[dict[str, Any]]

NUM_READERS = 8  # images read in parallel: files may be in an object store
IDS_PER_READ = 500
# Pixels of decoded images kept between calls, 150 MB: 4,000 images at 112 px.
MAX_CACHED_PIXELS = 50_000_000


@dataclass(frozen=True)
class Comparison:
    """Probabilities from N comparisons; NaN where either order got no answer.

    p_ab: probability that A is better when A is shown first, float64 [N] in [0, 1].
    p_ba: probability that A is better when B is shown first, float64 [N] in [0, 1].
    p: mean of both orders, float64 [N]; preferences are made from it.
    consistent: whether both orders have the same winner, bool [N].
    """

    p_ab: np.ndarray
    p_ba: np.ndarray
    p: np.ndarray
    consistent: np.ndarray


class Judge:
    """Rates and compares images with the prompts above.

    image_px: images are shrunk to this longer side before the prompt, None leaves them as they are.
    first_error: why a request of the last call has no answer, "" if all have one.
    """

    def __init__(self, engine: Engine, image_px: int | None = None):
        self.engine = engine
        self.image_px = image_px
        self.first_error = ""

    def aesthetics(self, images: Sequence[Image.Image]) -> np.ndarray:
        """How beautiful each image is: float64 [N] in [1, 5], NaN where the engine gave no answer."""
        requests = [
            Request(messages=rating_messages(AESTHETICS), images=(self._fit(image),), choices=DIGITS)
            for image in images
        ]
        return self._rate(requests)

    def accuracy(self, queries: Sequence[str], images: Sequence[Image.Image]) -> np.ndarray:
        """How well image n shows query n: float64 [N] in [1, 5], NaN where the engine gave no answer."""
        requests = [
            Request(
                messages=rating_messages(ACCURACY.format(query=plain(query))),
                images=(self._fit(image),),
                choices=DIGITS,
            )
            for query, image in zip(queries, images, strict=True)
        ]
        return self._rate(requests)

    def compare(
        self,
        criterion: Criterion,
        queries: Sequence[str],
        images_a: Sequence[Image.Image],
        images_b: Sequence[Image.Image],
    ) -> Comparison:
        """Which of two images is better, asked in both orders. "aesthetics" does not use `queries`."""
        shown_a = [self._fit(image) for image in images_a]
        shown_b = [self._fit(image) for image in images_b]
        requests = []
        for query, a, b in zip(queries, shown_a, shown_b, strict=True):
            messages = comparison_messages(criterion, query)
            requests.append(Request(messages=messages, images=(a, b), choices=LETTERS))
            requests.append(Request(messages=messages, images=(b, a), choices=LETTERS))
        p_first = np.array([first_letter_probability(reply) for reply in self._ask(requests)])
        return comparison(p_ab=p_first[0::2], p_ba=1.0 - p_first[1::2])

    def rate_together(
        self,
        criterion: RatedCriterion,
        queries: Sequence[str],
        images_a: Sequence[Image.Image],
        images_b: Sequence[Image.Image],
    ) -> np.ndarray:
        """Rate both of two images that are shown together, in both orders.

        Returns:
            float64 [N, 2, 2] in [1, 5], NaN where the engine gave no answer: for each pair and for A shown
            first and A shown second, the ratings of image A and of image B.
        """
        requests = []
        for query, a, b in zip(queries, images_a, images_b, strict=True):
            a, b = self._fit(a), self._fit(b)
            for shown, letters_of_a_and_b in (((a, b), "AB"), ((b, a), "BA")):
                for letter in letters_of_a_and_b:
                    messages = together_messages(criterion, query, letter)
                    requests.append(Request(messages=messages, images=shown, choices=DIGITS))
        return self._rate(requests).reshape(-1, 2, 2)

    def compare_rows(
        self,
        criterion: SheetCriterion,
        queries: Sequence[str],
        rows_a: Sequence[Sequence[Image.Image]],
        rows_b: Sequence[Sequence[Image.Image]],
    ) -> Comparison:
        """Which of two rows of images is better, both in one contact sheet, asked in both orders."""
        cell_px, requests = self.image_px or SHEET_CELL_PX, []
        for query, a, b in zip(queries, rows_a, rows_b, strict=True):
            question = SHEET[criterion].format(query=plain(query))
            messages = _chat([{"type": "image"}, {"type": "text", "text": question}])
            for rows in ((a, b), (b, a)):
                sheet = contact_sheet(rows, cell_px)
                requests.append(Request(messages=messages, images=(sheet,), choices=LETTERS))
        p_first = np.array([first_letter_probability(reply) for reply in self._ask(requests)])
        return comparison(p_ab=p_first[0::2], p_ba=1.0 - p_first[1::2])

    def _rate(self, requests: Sequence[Request]) -> np.ndarray:
        return np.array([expected_digit(reply) for reply in self._ask(requests)], dtype=np.float64)

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        replies = generate_or_exit(self.engine, requests)
        self.first_error = next((reply.error for reply in replies if reply.error), "")
        return replies

    def _fit(self, image: Image.Image) -> Image.Image:
        return shrink(image, self.image_px)


def identity() -> str:
    """8 hex characters that change with the prompts above, because ratings depend on them."""
    return hashlib.sha256(repr((SYSTEM, AESTHETICS, ACCURACY, COMPARE, TOGETHER)).encode()).hexdigest()[:8]


def plain(query: str) -> str:
    """The query on one line and without double quotes, which would end it in the prompt."""
    return " ".join(query.replace('"', "'").split())


def rating_messages(question: str) -> Messages:
    """A chat that shows one image, then the question."""
    return _chat([{"type": "image"}, {"type": "text", "text": question}])


def comparison_messages(criterion: Criterion, query: str) -> Messages:
    """A chat that shows two images, named A and B, then the question."""
    return _two_images(COMPARE[criterion].format(query=plain(query)))


def together_messages(criterion: RatedCriterion, query: str, letter: str) -> Messages:
    """A chat that shows two images, named A and B, then the question about the one named `letter`."""
    return _two_images(TOGETHER[criterion].format(query=plain(query), letter=letter))


def _two_images(question: str) -> Messages:
    return _chat(
        [
            {"type": "text", "text": "A:"},
            {"type": "image"},
            {"type": "text", "text": "B:"},
            {"type": "image"},
            {"type": "text", "text": question},
        ]
    )


def _chat(content: list[dict[str, str]]) -> Messages:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def expected_digit(reply: Reply) -> float:
    """Expectation over the digits' probabilities, in [1, 5]; NaN for a reply that failed."""
    if reply.error or not reply.choice_probs:
        return float("nan")
    return sum(int(digit) * reply.choice_probs[digit] for digit in DIGITS)


def first_letter_probability(reply: Reply) -> float:
    """Probability of the letter A, in [0, 1]; NaN for a reply that failed."""
    return float("nan") if reply.error or not reply.choice_probs else reply.choice_probs["A"]


def comparison(p_ab: np.ndarray, p_ba: np.ndarray) -> Comparison:
    """Combine the two orders: p = (P(A|AB) + P(A|BA)) / 2; NaN is never consistent."""
    p = (p_ab + p_ba) / 2
    consistent = ((p_ab > 0.5) == (p_ba > 0.5)) & ~np.isnan(p)
    return Comparison(p_ab=p_ab, p_ba=p_ba, p=p, consistent=consistent)


def shrink(image: Image.Image, longer_px: int | None) -> Image.Image:
    """The image with its longer side at most `longer_px` (None = its own size), never enlarged."""
    longer = max(image.size)
    if not longer_px or longer <= longer_px:
        return image
    width, height = (max(1, round(side * longer_px / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def contact_sheet(rows: Sequence[Sequence[Image.Image]], cell_px: int) -> Image.Image:
    """Two rows of images, named A and B, in one white image; each image fits a square of `cell_px`."""
    margin_px = max(cell_px // 8, 12)  # for the letters
    size = (margin_px + cell_px * max(map(len, rows)), cell_px * len(rows))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(margin_px)
    for number, (letter, row) in enumerate(zip(LETTERS, rows, strict=True)):
        top = number * cell_px
        draw.text((margin_px / 2, top + cell_px / 2), letter, "black", font, anchor="mm")
        for column, image in enumerate(row):
            cell = ImageOps.pad(image, (cell_px, cell_px), Image.Resampling.BICUBIC, "white")
            sheet.paste(cell, (margin_px + column * cell_px, top))
    return sheet


def stored_images(
    rows: Iterable[Mapping[str, Any]], image_px: int | None
) -> dict[str, Image.Image | UnusableImage]:
    """Rows of `images` (columns `actors.images.STORED`) -> the images as the judge sees them, by image_id.

    `image_px` as for `Judge`. The file is read where the preview's longer side is below it. An image whose
    preview cannot be read is replaced by its error.
    """

    def read(row: Mapping[str, Any]) -> tuple[str, Image.Image | UnusableImage]:
        longer_px = image_px or max(row["width_px"], row["height_px"])
        try:
            return row["image_id"], shrink(read_stored(row, longer_px=longer_px), image_px)
        except UnusableImage as error:
            return row["image_id"], error

    with ThreadPoolExecutor(NUM_READERS) as pool:
        return dict(pool.map(read, rows))


class ImageCache:
    """The images of a store as the judge sees them; the most recently used stay decoded.

    faults: why an image that was asked for cannot be read, by image_id.
    """

    def __init__(self, store: Store, image_px: int | None) -> None:
        self.store = store
        self.image_px = image_px
        self.decoded: OrderedDict[str, Image.Image] = OrderedDict()
        self.num_pixels = 0
        self.faults: dict[str, str] = {}

    def load(self, image_ids: Sequence[str]) -> list[Image.Image | None]:
        """The images, in order; None, and an entry in `faults`, for one that cannot be read."""
        wanted = list(dict.fromkeys(image_ids))
        missing = [i for i in wanted if i not in self.decoded and i not in self.faults]
        for start in range(0, len(missing), IDS_PER_READ):
            self._read(missing[start : start + IDS_PER_READ])
        images = [self.decoded.get(image_id) for image_id in image_ids]
        for image_id in wanted:
            if image_id in self.decoded:
                self.decoded.move_to_end(image_id)
        while self.num_pixels > MAX_CACHED_PIXELS:
            _, oldest = self.decoded.popitem(last=False)
            self.num_pixels -= oldest.width * oldest.height
        return images

    def _read(self, image_ids: Sequence[str]) -> None:
        rows = self.store.read("images", STORED, in_list("image_id", image_ids)).to_pylist()
        found = stored_images(rows, self.image_px)
        for image_id in image_ids:
            image = found.get(image_id)
            if isinstance(image, Image.Image):
                self.decoded[image_id] = image
                self.num_pixels += image.width * image.height
            else:
                reason = f"cannot be read: {image}" if image else "is not in the table images"
                self.faults[image_id] = f"image {image_id} {reason}"
