"""Request and response bodies of the endpoint, as OpenAPI documents them."""

import datetime
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

MAX_QUERY_CHARS = 500
MAX_SEARCHES = 16
MAX_NEGATIVES = 8
MAX_NAMES = 32
DEFAULT_K = 12
MAX_CANDIDATES = 500
MAX_BEAUTY = 2.0
FIRST_YEAR, LAST_YEAR = 1001, 9998
RANGES = (
    ("min_width_px", "max_width_px"),
    ("min_height_px", "max_height_px"),
    ("added_from", "added_before"),
)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# Letters and symbols that Unicode defines as blank: fillers of Hangul and the empty Braille pattern.
BLANK_SYMBOLS = "\u115f\u1160\u2800\u3164\uffa0"


def has_visible_character(text: str) -> bool:
    """Whether a person would see anything: blanks, control and format characters and marks do not count."""
    return any(_is_visible(char) for char in text)


def _is_visible(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cn":  # unassigned, or assigned since this version of Python: perhaps a new emoji
        return ord(char) & 0xFFFE != 0xFFFE and not 0xFDD0 <= ord(char) <= 0xFDEF
    return category[0] not in "CMZ" and char not in BLANK_SYMBOLS


def _check_visible(value: str) -> str:
    if not has_visible_character(value):
        raise PydanticCustomError("invisible", "no visible character")
    return value


ImageId = Annotated[
    str, Field(pattern="^[0-9a-f]{64}$", description="sha256 of the file's bytes, 64 hex characters")
]


def _strip(value: str) -> str:
    """The text without surrounding blanks; blanks alone count as no text."""
    value = value.strip()
    return _check_visible(value) if value else value


Words = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS), AfterValidator(_check_visible)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_visible)]
Side = Annotated[int, Field(ge=1, le=1_000_000)]


def _require_date(value: Any) -> Any:
    """pydantic would read a number, also one in a string such as "20300101", as Unix time."""
    if isinstance(value, datetime.datetime):  # not from JSON
        return value
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    if not DATE.match(value):
        raise PydanticCustomError("no_date", "not a date")
    return value


def _check_year(value: datetime.datetime) -> datetime.datetime:
    """The time, in UTC if it has no time zone.

    The year must have four digits in every time zone: Python ends at 9999, and SQL cannot read 999.
    """
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        years = {"first": FIRST_YEAR, "last": LAST_YEAR}
        raise PydanticCustomError("year", "not in the years {first} to {last}", years)
    return value if value.tzinfo else value.replace(tzinfo=datetime.UTC)


Moment = Annotated[
    datetime.datetime, BeforeValidator(_require_date), AfterValidator(_check_year), Field(strict=False)
]


class ErrorDetail(BaseModel):
    """What went wrong, and which field caused it."""

    code: str = Field(description="a stable name for programs, such as `empty_query`")
    message: str = Field(description="one sentence for people")
    field: str = Field(description="the field of the request at fault, empty if there is none")


class ErrorBody(BaseModel):
    """The body of every response whose status is 400 or above."""

    error: ErrorDetail


class RequestBody(BaseModel):
    """A request body: unknown fields are refused and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _stop_at_the_first_unknown_field(cls, body: Any) -> Any:
        """Drop all other unknown fields: pydantic would report each, which takes seconds for a million."""
        if not isinstance(body, dict) or len(body) <= len(cls.model_fields):
            return body
        unknown = next(name for name in body if name not in cls.model_fields)
        known = {name: body[name] for name in cls.model_fields if name in body}
        return {unknown: body[unknown], **known}


def _refuse_too_many(value: Any) -> Any:
    """pydantic would check all entries of an object before it counts them."""
    if isinstance(value, dict) and len(value) > MAX_NAMES:
        limit = {"field_type": "Dictionary", "max_length": MAX_NAMES, "actual_length": len(value)}
        raise PydanticKnownError("too_long", limit)
    return value


def _requires(name: str, **rule: Any) -> dict[str, Any]:
    """JSON Schema: the field is present, not null, and follows the rule."""
    return {"required": [name], "properties": {name: rule}}


class ImageInput(RequestBody):
    """An image to search with: exactly one of the three fields."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_requires(name, type="string") for name in ("image_id", "data", "url")]}
    )

    image_id: ImageId | None = Field(None, description="an image in the store")
    data: str | None = Field(None, description="the bytes of an image file, base64")
    url: str | None = Field(None, max_length=2000, description="public URL, fetched if the server allows it")

    @model_validator(mode="after")
    def _check_one_given(self) -> "ImageInput":
        if sum(value is not None for value in (self.image_id, self.data, self.url)) != 1:
            raise PydanticCustomError("one_image", "not exactly one image")
        return self


class Filters(RequestBody):
    """Conditions that every result meets. A missing field sets no condition."""

    tags_all: list[Name] = Field([], max_length=MAX_NAMES, description="has all of these tags")
    tags_any: list[Name] = Field([], max_length=MAX_NAMES, description="has at least one of these tags")
    tags_none: list[Name] = Field([], max_length=MAX_NAMES, description="has none of these tags")
    sources: list[Name] = Field([], max_length=MAX_NAMES, description="comes from one of these sources")
    min_width_px: Side | None = Field(None, description="minimum width of the original, pixels")
    max_width_px: Side | None = Field(None, description="maximum width of the original, pixels")
    min_height_px: Side | None = Field(None, description="minimum height of the original, pixels")
    max_height_px: Side | None = Field(None, description="maximum height of the original, pixels")
    added_from: Moment | None = Field(None, description="added at this time or later")
    added_before: Moment | None = Field(None, description="added before this time")
    min_aesthetic: float | None = Field(None, ge=0, le=1, description="minimum aesthetic score, 0 to 1")

    @model_validator(mode="after")
    def _check_order(self) -> "Filters":
        """Bounds in the wrong order would silently find nothing."""
        for low, high in RANGES:
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise PydanticCustomError("order", "{low} above {high}", {"low": low, "high": high})
        return self


class Diversity(RequestBody):
    """Results that differ from each other, by maximal marginal relevance (Carbonell and Goldstein 1998)."""

    weight: float = Field(0.3, ge=0, le=1, description="0 = relevance alone, 1 = difference alone")
    num_candidates: int = Field(
        100, ge=1, le=MAX_CANDIDATES, description="how many of the nearest images to choose from"
    )


class BaseSearchRequest(RequestBody):
    """A search. `search_request` narrows `k` and `system` to what a server offers."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [_requires("query", pattern=r"\S"), _requires("image", type="object")]}
    )

    query: Annotated[str, Field(max_length=MAX_QUERY_CHARS), AfterValidator(_strip)] = Field(
        "",
        description="what to search for, in words; may be empty if there is an image",
        examples=["red sailboat at sunset"],
    )
    image: ImageInput | None = Field(None, description="an image to search with, alone or with words")
    image_weight: float = Field(0.5, ge=0, le=1, description="share of the image against the words, 0 to 1")
    negatives: list[Words] = Field(
        [], max_length=MAX_NEGATIVES, description="what not to show, in words", examples=[["people"]]
    )
    negative_weight: float = Field(0.5, ge=0, le=1, description="how strongly to avoid the negatives, 0 to 1")
    tastes: Annotated[
        dict[Name, Annotated[float, Field(ge=-1, le=1)]],
        Field(max_length=MAX_NAMES),
        BeforeValidator(_refuse_too_many),
    ] = Field({}, description="how far to shift along each taste of /v1/tastes, -1 to 1")
    beauty: float = Field(
        0.0,
        ge=0,
        le=MAX_BEAUTY,
        description=f"how far to move from literal towards beautiful, 0 to {MAX_BEAUTY:g}",
    )
    filters: Filters = Field(Filters.model_validate({}), description="conditions that every result meets")
    diversity: Diversity | None = Field(None, description="prefer results that differ from each other")
    cursor: str = Field(
        "", max_length=1000, description="`next` of the previous page, empty = the first page"
    )
    k: int = Field(DEFAULT_K, ge=1)
    system: str = "live"

    @model_validator(mode="after")
    def _check_not_empty(self) -> "BaseSearchRequest":
        if not self.query and self.image is None:
            raise PydanticCustomError("empty_query", "neither query nor image")
        return self


def search_request(systems: Sequence[str], max_k: int) -> type[BaseSearchRequest]:
    """The request model of a server: its systems, the default first, and at most `max_k` results."""
    k = Field(min(DEFAULT_K, max_k), ge=1, le=max_k, description="how many images to return")
    system = Field(systems[0], description="which system answers")
    names: Any = Literal[tuple(systems)]
    return create_model("SearchRequest", __base__=BaseSearchRequest, k=(int, k), system=(names, system))


def search_body(request: Any) -> Any:
    """The body of /v1/search: one search, or several under `searches`."""
    field = Field(min_length=1, max_length=MAX_SEARCHES, description="several searches, run together")
    searches: Any = (list[request], field)  # pyright: ignore[reportInvalidTypeForm] (a type made at run time)
    many: Any = create_model("SearchesRequest", __base__=RequestBody, searches=searches)
    return Annotated[
        Annotated[request, Tag("one")] | Annotated[many, Tag("many")],
        Discriminator(lambda body: "many" if isinstance(body, dict) and "searches" in body else "one"),
    ]


class WordsRead(BaseModel):
    """How much of a text the encoder read: it cuts off what exceeds its context."""

    given: int = Field(description="number of words in the text, separated by blanks")
    read: int = Field(description="number of words, from the start of the text, that were read completely")


class SearchResult(BaseModel):
    """One result: an image with its score."""

    image_id: str = Field(description="sha256 of the image file's bytes, 64 hex characters")
    score: float = Field(
        description="cosine similarity of query and image, -1 to 1; from the teacher, beauty from 1 to 5"
    )
    caption: str = Field(description="the image's caption, may be empty")
    preview_url: str = Field(description="path of a JPEG whose longer side is at most 256 px")
    width_px: int = Field(description="width of the original, pixels")
    height_px: int = Field(description="height of the original, pixels")


class SearchResponse(BaseModel):
    """The answer to one search."""

    search_id: str = Field(description="identifies this answer in /v1/feedback; signed, valid for a day")
    query: str = Field(description="the query, without surrounding spaces")
    query_words: WordsRead = Field(description="how many words of the query were read")
    negatives_words: list[WordsRead] = Field(description="how many words of each negative were read")
    rephrased: str = Field(
        description="the words that `teacher`, `rephrase` or `suffix` searched for instead of the query, "
        "empty for other systems"
    )
    system: str = Field(description="the system that answered; `candidate` if an experiment assigned it")
    encoder: str = Field(description="fingerprint of its encoder, 16 hex characters")
    results: list[SearchResult] = Field(description="best first, at most `k`")
    next: str = Field(description="cursor of the next page, empty after the last")
    timings_ms: dict[str, float] = Field(
        description="milliseconds of each step that ran (image, encode, search, diversify, rephrase, judge), "
        "and their total"
    )


class SearchesResponse(BaseModel):
    """The answers to several searches, in the order of the searches."""

    answers: list[SearchResponse]


class BeautyAxis(BaseModel):
    """The axis along which `beauty` moves a query."""

    source: Literal["fitted", "prompts"] = Field(
        description="`fitted` by `kallos align` to its preferences and captions, or from `prompts` such as "
        "beautiful minus ugly"
    )
    strength: float = Field(description="how far a `beauty` of 1 moves a query vector of length 1")


class SystemHealth(BaseModel):
    """One system that can be searched."""

    encoder: str = Field(description="fingerprint of its encoder")
    parent: str = Field(description="fingerprint of its parent, empty if it has none")
    num_rows: int | None = Field(description="images in its index, null if the store does not respond")
    recall_at_10: float | None = Field(description="recall@10 against exact search, null if not measured")
    beauty: BeautyAxis


class Health(BaseModel):
    """The running process: its systems and limits."""

    status: Literal["ok"] = "ok"
    systems: dict[str, SystemHealth]
    suffix: str | None = Field(
        description="what `suffix` adds to every query; null if no aligned encoder has fitted `suffix` and "
        "`axis` for the baseline"
    )
    max_k: int = Field(description="largest `k` of a search")
    max_upload_bytes: int = Field(description="largest image file in a request, bytes")
    url_images: bool = Field(description="whether a search may give an image by its URL")
    keys_required: bool = Field(description="whether requests need `Authorization: Bearer <key>`")


class Ready(BaseModel):
    """The server can answer searches now."""

    status: Literal["ready"] = "ready"


class Examples(BaseModel):
    """Example queries for the indexed images."""

    queries: list[str]


class Taste(BaseModel):
    """A direction in which results can be shifted."""

    name: str = Field(description="its key in the `tastes` of a search")
    less: str = Field(description="what -1 shifts towards", examples=["darker"])
    more: str = Field(description="what 1 shifts towards", examples=["brighter"])


class Tastes(BaseModel):
    """The tastes of the default system, fitted to the images in its index."""

    tastes: list[Taste]


class Heatmap(BaseModel):
    """How similar each part of an image is to a query."""

    encoder: str = Field(description="fingerprint of the encoder")
    query_words: WordsRead = Field(description="how many words of the query were read")
    values: list[list[float]] = Field(
        description="cosine of the query and each part of the preview, rows from top to bottom"
    )


class FeedbackRequest(RequestBody):
    """What a person chose in one or two answers.

    `click`: the person opened `image_id`. `prefer`: they find `image_id` better than `over`. `blind`: they
    compared two answers without knowing their systems; each verdict names the better answer.
    """

    kind: Literal["click", "prefer", "blind"]
    search_id: str = Field(max_length=4000, description="`search_id` of the answer (blind: of answer a)")
    results: list[ImageId] = Field(
        min_length=1, max_length=1000, description="all image_ids of that answer, in order"
    )
    image_id: ImageId | None = Field(None, description="click, prefer: the chosen image")
    over: ImageId | None = Field(None, description="prefer: the worse image of the same answer")
    other_search_id: str = Field("", max_length=4000, description="blind: `search_id` of answer b")
    other_results: list[ImageId] = Field([], max_length=1000, description="blind: image_ids of answer b")
    accuracy: Literal["a", "b", "tie"] | None = Field(None, description="blind: which fits the query better")
    aesthetics: Literal["a", "b", "tie"] | None = Field(None, description="blind: which is more beautiful")
    diversity: Literal["a", "b", "tie"] | None = Field(None, description="blind: which is more varied")


class FeedbackResponse(BaseModel):
    """The feedback has been written to disk."""

    event_id: str = Field(description="id of the event; repeating an event gives the same id")
    new: bool = Field(description="false if the event was known already and nothing was added")
    num_preferences: int = Field(description="number of preferences that were added")


class Deleted(BaseModel):
    """The image has been removed from every table and every index."""

    image_id: str
    num_rows: int = Field(description="number of rows removed, over all tables")
