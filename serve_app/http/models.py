"""What goes over the wire: requests and answers of the endpoint, as OpenAPI shows them."""

import datetime
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
FIRST_YEAR, LAST_YEAR = 1001, 9998

ImageId = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="sha256 of the file's bytes, 64 hex")]
Words = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Side = Annotated[int, Field(ge=1, le=1_000_000)]


def _no_number(value: Any) -> Any:
    """pydantic would take a number for Unix time, which OpenAPI's `date-time` is not."""
    if isinstance(value, int | float):
        raise PydanticKnownError("string_type")
    return value


def _in_years(value: datetime.datetime) -> datetime.datetime:
    """Four digits in every time zone: Python has no year 10,000, and SQL reads no year 999."""
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        years = {"first": FIRST_YEAR, "last": LAST_YEAR}
        raise PydanticCustomError("year", "not in the years {first} to {last}", years)
    return value


Moment = Annotated[
    datetime.datetime, BeforeValidator(_no_number), AfterValidator(_in_years), Field(strict=False)
]


class Body(BaseModel):
    """A request body: no unknown fields, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _with(name: str, **rule: Any) -> dict[str, Any]:
    """JSON Schema: the field is there, not null, and follows the rule."""
    return {"required": [name], "properties": {name: rule}}


class ImageInput(Body):
    """An image to search with: exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_with(name, type="string") for name in ("image_id", "data", "url")]}
    )

    image_id: ImageId | None = Field(None, description="an image of the store")
    data: str | None = Field(None, description="an image file's bytes, base64")
    url: str | None = Field(
        None, max_length=2000, description="where the server shall fetch it, if it is allowed to"
    )

    @model_validator(mode="after")
    def _one(self) -> "ImageInput":
        if sum(value is not None for value in (self.image_id, self.data, self.url)) != 1:
            raise PydanticCustomError("one_image", "not one image")
        return self


class Filters(Body):
    """What a result must be; what is left out does not matter."""

    tags_all: list[Name] = Field([], max_length=MAX_NAMES, description="every one of these tags")
    tags_any: list[Name] = Field([], max_length=MAX_NAMES, description="at least one of these tags")
    tags_none: list[Name] = Field([], max_length=MAX_NAMES, description="none of these tags")
    sources: list[Name] = Field([], max_length=MAX_NAMES, description="from one of these sources")
    min_width_px: Side | None = Field(None, description="width of the original at least, pixels")
    max_width_px: Side | None = Field(None, description="width of the original at most, pixels")
    min_height_px: Side | None = Field(None, description="height of the original at least, pixels")
    max_height_px: Side | None = Field(None, description="height of the original at most, pixels")
    added_from: Moment | None = Field(None, description="added at this moment or later")
    added_before: Moment | None = Field(None, description="added before this moment")
    min_aesthetic: float | None = Field(
        None, ge=0, le=1, description="aesthetic score by prompt pairs at least, 0 to 1"
    )


class Diversity(Body):
    """Results that differ from each other: maximal marginal relevance (Carbonell and Goldstein 1998)."""

    weight: float = Field(0.3, ge=0, le=1, description="0 = relevance alone, 1 = difference alone")
    num_candidates: int = Field(100, ge=1, le=MAX_CANDIDATES, description="nearest images to choose from")


class SearchBase(Body):
    """A search. `k` and `system` join in `search_request`, where their bounds are known."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [_with("query", pattern=r"\S"), _with("image", type="object")]}
    )

    query: str = Field(
        "",
        max_length=MAX_QUERY_CHARS,
        description="what to look for, in words; may be empty where an image is given",
        examples=["red sailboat at sunset"],
    )
    image: ImageInput | None = Field(None, description="an image to look for, alone or with words")
    image_weight: float = Field(
        0.5, ge=0, le=1, description="share of the image where words are given too, 0 to 1"
    )
    negatives: list[Words] = Field(
        [], max_length=MAX_NEGATIVES, description="what not to show, in words", examples=[["people"]]
    )
    negative_weight: float = Field(0.5, ge=0, le=1, description="how hard to keep away from those, 0 to 1")
    tastes: dict[Name, Annotated[float, Field(ge=-1, le=1)]] = Field(
        {}, max_length=MAX_NAMES, description="how far to lean along each of /v1/tastes, -1 to 1"
    )
    filters: Filters = Field(Filters(), description="what a result must be")
    diversity: Diversity | None = Field(None, description="prefer results that differ from each other")
    cursor: str = Field("", max_length=1000, description="`next` of the page before, empty = the first page")

    @model_validator(mode="after")
    def _asks_for_something(self) -> "SearchBase":
        self.query = self.query.strip()
        if not self.query and self.image is None:
            raise PydanticCustomError("empty_query", "nothing asked for")
        return self


def search_request(systems: Sequence[str], max_k: int) -> type[SearchBase]:
    """The request model of a server with those systems, the first the default, that returns up to `max_k`."""
    k = Field(min(DEFAULT_K, max_k), ge=1, le=max_k, description="how many images to return")
    system = Field(systems[0], description="which system answers")
    return create_model(
        "SearchRequest", __base__=SearchBase, k=(int, k), system=(Literal[tuple(systems)], system)
    )


def search_body(request: type[SearchBase]) -> Any:
    """What the endpoint takes: one search, or several at once under `searches`."""
    searches = Field(min_length=1, max_length=MAX_SEARCHES, description="several searches, answered together")
    many = create_model("SearchesRequest", __base__=Body, searches=(list[request], searches))
    return Annotated[
        Annotated[request, Tag("one")] | Annotated[many, Tag("many")],
        Discriminator(lambda body: "many" if isinstance(body, dict) and "searches" in body else "one"),
    ]


class SearchResult(BaseModel):
    """One image found."""

    image_id: str = Field(description="sha256 of the image file's bytes, 64 hex characters")
    score: float = Field(description="cosine similarity of query and image, -1 to 1; the teacher's: 1 to 5")
    caption: str = Field(description="the image's caption, may be empty")
    preview_url: str = Field(description="path of a JPEG whose longer side is at most 256 px")
    width_px: int = Field(description="width of the original, pixels")
    height_px: int = Field(description="height of the original, pixels")


class SearchResponse(BaseModel):
    """The images found, best first."""

    search_id: str = Field(description="names this answer in /v1/feedback; signed, valid for a day")
    query: str = Field(description="the query as it was understood")
    rephrased: str = Field(description="what the teacher searched for, empty for the others")
    system: str = Field(description="the system that answered; `candidate` where an experiment chose it")
    encoder: str = Field(description="fingerprint of its encoder, 16 hex characters")
    results: list[SearchResult] = Field(description="best first, at most `k`")
    next: str = Field(description="cursor of the next page, empty after the last")
    timings_ms: dict[str, float] = Field(
        description="where the time went, milliseconds: image, encode, search, diversify, rephrase, judge "
        "(those that were needed), and total"
    )


class SearchesResponse(BaseModel):
    """The answers to several searches, in their order."""

    answers: list[SearchResponse]


class SystemHealth(BaseModel):
    """One system that answers."""

    encoder: str = Field(description="fingerprint of its encoder")
    parent: str = Field(description="fingerprint of the encoder it was aligned from, empty for a root")
    num_rows: int | None = Field(description="images in its index, null = the store does not answer")
    recall_at_10: float | None = Field(
        description="recall@10 of its index against exact search, null = not measured"
    )


class Health(BaseModel):
    """Whether the server answers, and with what."""

    status: Literal["ok"] = "ok"
    systems: dict[str, SystemHealth]
    max_k: int = Field(description="largest `k` a request may ask for")
    max_upload_bytes: int = Field(description="largest image file that a request may carry, bytes")
    url_images: bool = Field(description="whether an image may be given by its URL")
    keys_required: bool = Field(description="whether requests need `Authorization: Bearer <key>`")


class Ready(BaseModel):
    """The server can answer searches now."""

    status: Literal["ready"] = "ready"


class Examples(BaseModel):
    """Queries worth a try on these images."""

    queries: list[str]


class Taste(BaseModel):
    """A direction in which results can be leaned."""

    name: str = Field(description="its key in `tastes` of a search")
    less: str = Field(description="what -1 leans to", examples=["darker"])
    more: str = Field(description="what 1 leans to", examples=["brighter"])


class Tastes(BaseModel):
    """The directions of the default system, fitted to the images of its index."""

    tastes: list[Taste]


class Heatmap(BaseModel):
    """Which parts of an image speak for a query."""

    encoder: str = Field(description="fingerprint of the encoder that looked")
    values: list[list[float]] = Field(
        description="cosine of query and image part, rows from top to bottom, over the whole preview"
    )


class FeedbackRequest(Body):
    """What a person did with one or two answers.

    `click`: opened `image_id`. `prefer`: found `image_id` better than `over`. `blind`: compared two answers
    without knowing their systems; each verdict names the better answer.
    """

    kind: Literal["click", "prefer", "blind"]
    search_id: str = Field(max_length=4000, description="`search_id` of the answer (blind: of answer a)")
    results: list[ImageId] = Field(
        min_length=1, max_length=1000, description="image_ids of that answer, in its order"
    )
    image_id: ImageId | None = Field(None, description="click, prefer: the image chosen")
    over: ImageId | None = Field(None, description="prefer: the image of the same answer that is less good")
    other_search_id: str = Field("", max_length=4000, description="blind: `search_id` of answer b")
    other_results: list[ImageId] = Field([], max_length=1000, description="blind: image_ids of answer b")
    accuracy: Literal["a", "b", "tie"] | None = Field(None, description="blind: which fits the query better")
    aesthetics: Literal["a", "b", "tie"] | None = Field(None, description="blind: which is more beautiful")
    diversity: Literal["a", "b", "tie"] | None = Field(None, description="blind: which is more varied")


class FeedbackResponse(BaseModel):
    """The feedback is on the disk."""

    event_id: str = Field(description="names the event; the same event again has the same id")
    new: bool = Field(description="false where it was known already and nothing was added")
    num_preferences: int = Field(description="preferences that it added")


class Deleted(BaseModel):
    """The image is gone from every table and every index."""

    image_id: str
    num_rows: int = Field(description="rows removed, of all tables")
