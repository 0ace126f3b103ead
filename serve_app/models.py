"""What goes over the wire: requests and answers of the endpoint, as OpenAPI shows them."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator
from pydantic_core import PydanticCustomError

MAX_QUERY_CHARS = 500
DEFAULT_K = 12


class SearchBase(BaseModel):
    """A search: what to look for. `k` and `system` join in `search_request`, where their bounds are known."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(
        min_length=1,
        max_length=MAX_QUERY_CHARS,
        description="what to look for, in words",
        examples=["red sailboat at sunset"],
    )

    @field_validator("query")
    @classmethod
    def _readable(cls, query: str) -> str:
        """Trimmed, and then not empty."""
        text = query.strip()
        if not text:
            raise PydanticCustomError("string_too_short", "blank")
        return text


def search_request(systems: Sequence[str], max_k: int) -> type[SearchBase]:
    """The request model of a server with those systems, the first the default, that returns up to `max_k`."""
    k = Field(min(DEFAULT_K, max_k), ge=1, le=max_k, description="how many images to return")
    system = Field(systems[0], description="which encoder answers")
    return create_model(
        "SearchRequest", __base__=SearchBase, k=(int, k), system=(Literal[tuple(systems)], system)
    )


class SearchResult(BaseModel):
    """One image found."""

    image_id: str = Field(description="sha256 of the image file's bytes, 64 hex characters")
    score: float = Field(description="cosine similarity of query and image, -1 to 1")
    caption: str = Field(description="the image's caption, may be empty")
    preview_url: str = Field(description="path of a JPEG whose longer side is at most 256 px")
    width_px: int = Field(description="width of the original, pixels")
    height_px: int = Field(description="height of the original, pixels")


class Timings(BaseModel):
    """Where the time of one search went, milliseconds."""

    encode: float = Field(description="text encoder, with the wait for its batch")
    search: float = Field(description="vector search")
    total: float = Field(description="from the request read to the answer ready")


class SearchResponse(BaseModel):
    """The images found, best first."""

    query: str = Field(description="the query as it was understood")
    system: str = Field(description="the system that answered")
    encoder: str = Field(description="fingerprint of its encoder, 16 hex characters")
    results: list[SearchResult] = Field(description="best first, at most `k`")
    timings_ms: Timings


class SystemHealth(BaseModel):
    """One system that answers."""

    encoder: str = Field(description="fingerprint of its encoder")
    parent: str = Field(description="fingerprint of the encoder it was aligned from, empty for a root")
    num_rows: int = Field(description="images in its index")
    recall_at_10: float | None = Field(
        description="recall@10 of its index against exact search, null = not measured"
    )


class Health(BaseModel):
    """Whether the server answers, and with what."""

    status: Literal["ok"] = "ok"
    systems: dict[str, SystemHealth]
    max_k: int = Field(description="largest `k` a request may ask for")


class Examples(BaseModel):
    """Queries worth a try on these images."""

    queries: list[str]
