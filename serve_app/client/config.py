"""Options of `kallos search`."""

from typing import Annotated

import tyro
from pydantic import Field

from cluster import command
from serve_app.models import MAX_BEAUTY


class SearchConfig(command.ProfileConfig):
    """Search a running server."""

    query: tyro.conf.Positional[str] = Field(default="", description="what to search for, in words")
    image: str | None = Field(
        default=None, description="image to search for: a file, an image_id, or an http(s) URL; default: none"
    )
    negatives: tuple[str, ...] = Field(default=(), description="what the results should not show, in words")
    beauty: float | None = Field(
        default=None,
        ge=0,
        le=MAX_BEAUTY,
        description="how far to move from literal towards beautiful; default: 0, literal",
    )
    system: str | None = Field(
        default=None, description="system that answers, such as live or baseline; default: the server's first"
    )
    k: Annotated[int | None, tyro.conf.arg(aliases=["-k"])] = Field(
        default=None, ge=1, description="number of results; default: the server's"
    )
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        default=False, description="print the response as one line of JSON"
    )
    server: str | None = Field(
        default=None,
        description="address of the server; default: the profile's serve.host and serve.port",
    )
    key: str | None = Field(default=None, description="API key; default: the environment variable KALLOS_KEY")
