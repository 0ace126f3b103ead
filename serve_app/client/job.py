"""`kallos search`: search a running server from the command line.

    kallos search "red sailboat at sunset" -k 6 --negatives people
    kallos search --image boat.jpg --server http://search.example:8000 --json

Pass an API key in the environment variable KALLOS_KEY: other users of the machine can see --key. With --json
the last line of stdout is one JSON object, the response of /v1/search.
"""

import io
import os
import sys
from typing import Any, cast

import httpx
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cluster import command
from cluster.errors import UserError
from cluster.profile import Serve
from serve_app.client.client import Client, ClientError, SearchFields
from serve_app.client.config import SearchConfig
from serve_app.config import local_address
from serve_app.models import SearchResponse

PICTURE_CELLS = 24  # width of a picture in a terminal
PIPE_CELLS = 400


def run(config: SearchConfig) -> None:
    """Search and print the results.

    Raises:
        UserError: there is no server at the address, it refuses the search, or the image cannot be read.
    """
    address = (config.server or address_of(command.profile_of(config).serve)).rstrip("/")
    with Client(address, config.key or os.environ.get("KALLOS_KEY", "")) as client:
        try:
            response = client.search(config.query, **search_fields(config))
            if config.json_:
                print(response.model_dump_json(), flush=True)
            else:
                show(response, client, address)
        except httpx.TransportError as error:
            raise UserError(
                f"There is no server at {address} ({type(error).__name__}): start one with `kallos serve`, "
                "or give --server."
            ) from None
        except ClientError as error:
            raise UserError(f"{address} refused the search: {error}") from None
        except OSError as error:
            raise UserError(f"The image {config.image} cannot be read: {error}.") from None


def search_fields(config: SearchConfig) -> SearchFields:
    """The options that were given, as fields of a search."""
    given = {name: getattr(config, name) for name in ("image", "negatives", "system", "k")}
    return cast(SearchFields, {name: value for name, value in given.items() if value})


def address_of(serve: Serve) -> str:
    """The address of `kallos serve` with these settings. Raises UserError if the port is 0 (any free one)."""
    if not serve.port:
        raise UserError("The profile's serve.port is 0, which is any free port: give --server.")
    return local_address(serve.host, serve.port)


def show(response: SearchResponse, client: Client, address: str) -> None:
    """Print a table of the results, with pictures if the terminal can draw them."""
    # Without a terminal the table is wide enough to keep every row on one line.
    console = Console(width=None if sys.stdout.isatty() else PIPE_CELLS)
    picture = _picture_type() if console.is_terminal else None
    table = Table("#", "score", "caption", Column("image id", overflow="fold"))
    table.add_column("picture" if picture else "preview", overflow="fold")
    for rank, result in enumerate(response.results, start=1):
        if picture:
            preview = picture(io.BytesIO(client.preview(result.image_id)), width=PICTURE_CELLS)
        else:
            preview = address + result.preview_url
        table.add_row(str(rank), f"{result.score:.3f}", _plain(result.caption), result.image_id, preview)
    console.print(table)
    footer = f"{response.system} ({response.encoder}), {response.timings_ms.get('total', 0):.0f} ms"
    rephrased = f", searched for: {response.rephrased}" if response.rephrased else ""
    console.print(_plain(footer + rephrased))


def _plain(text: str) -> Text:
    """Text without markup or control characters, so that neither rich nor the terminal interprets it."""
    return Text("".join(char if char.isprintable() else " " for char in text))


def _picture_type() -> Any:
    """The renderable that draws a picture in this terminal, None if it cannot draw any."""
    # The import queries the terminal, so it must not happen without one.
    from textual_image.renderable import Image, SixelImage, TGPImage

    return Image if Image in (SixelImage, TGPImage) else None
