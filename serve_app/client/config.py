"""Options of `kallos search`."""

from typing import Annotated

import tyro
from pydantic import Field

from cluster import command


class SearchConfig(command.ProfileConfig):
    """Search a running server."""

    query: tyro.conf.Positional[str] = Field("", description="what to search for, in words")
    image: str | None = Field(
        None, description="image to search for: a file, an image_id, or an http(s) URL; default: none"
    )
    negatives: tuple[str, ...] = Field((), description="what the results should not show, in words")
    system: str | None = Field(
        None, description="system that answers, such as live or baseline; default: the server's first"
    )
    k: Annotated[int | None, tyro.conf.arg(aliases=["-k"])] = Field(
        None, ge=1, description="results, a count; default: the server's"
    )
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="print the response as one line of JSON"
    )
    server: str | None = Field(
        None,
        description="address of the server; default: the profile's serve.host and serve.port",
    )
    key: str | None = Field(None, description="API key; default: the environment variable KALLOS_KEY")
