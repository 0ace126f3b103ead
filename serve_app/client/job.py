"""`kallos search`: search a running server from the command line.

    kallos search "red sailboat at sunset" -k 6 --negatives people
    kallos search --image boat.jpg --server http://search.example:8000 --json

Pass an API key in the environment variable KALLOS_KEY: other users of the machine can see --key. With --json
the last line of stdout is one JSON object, the response of /v1/search.
"""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx
from PIL import Image
from pyarrow import fs
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cluster import command
from cluster.errors import UserError, shown
from cluster.files import read_file
from cluster.profile import Serve
from cluster.text_files import is_unicode
from serve_app.client.client import Client, ClientError, SearchFields, is_reference
from serve_app.client.config import SearchConfig
from serve_app.config import local_address
from serve_app.models import SearchResponse

PICTURE_CELLS = 24  # width of a picture in a terminal
PIPE_CELLS = 400
MAX_SHOWN = 200  # characters of an address in a message


def run(config: SearchConfig) -> None:
    """Search and print the results.

    Raises:
        UserError: there is no server at the address, it refuses the search, or an option cannot be used.
    """
    fields = search_fields(config)
    address = (config.server or address_of(command.profile_of(config).serve)).rstrip("/")
    with explained(address[:MAX_SHOWN]), client_of(address, key_of(config)) as client:
        response = client.search(config.query, **fields)
        if config.json_:
            print(response.model_dump_json(), flush=True)
        else:
            show(response, client, address)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn every failure between the client and the server into a UserError."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise UserError(
            f"There is no server at {address} ({_reason(error)}): start one with `kallos serve`, or give "
            "--server."
        ) from None
    except httpx.TimeoutException:
        raise UserError(f"{address} does not answer in time: try again, or give another --server.") from None
    except httpx.RequestError as error:
        raise UserError(
            f"{address} sent no valid HTTP response ({_reason(error)}): try again, or give another --server."
        ) from None
    except ClientError as error:
        wait = f"; try again in {error.retry_after_s:g} s" if error.retry_after_s else ""
        raise UserError(f"{address} refused the search: {error}{wait}") from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def client_of(address: str, key: str) -> Client:
    """A client of the server. Raises UserError for a malformed address or proxy."""
    try:
        return Client(address, key)
    except (httpx.InvalidURL, ValueError, ImportError) as error:  # ImportError: an unsupported kind of proxy
        raise UserError(
            f"No connection to {address[:MAX_SHOWN]} is possible ({error}): correct --server, or the proxy "
            "in the environment."
        ) from None


def key_of(config: SearchConfig) -> str:
    """The API key, "" for none. Raises UserError, which does not show the key, if a header cannot hold it."""
    key = (config.key or os.environ.get("KALLOS_KEY", "")).strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise UserError("The API key has characters other than printable ASCII: correct --key or KALLOS_KEY.")
    return key


def search_fields(config: SearchConfig) -> SearchFields:
    """The options that were given, as fields of a search, with the content of an image file.

    Raises UserError for a file that cannot be read, and for words that are not valid UTF-8.
    """
    if not all(map(is_unicode, (config.query, *config.negatives, config.system or ""))):
        raise UserError(
            "The search contains bytes that are not UTF-8: correct them, or use a UTF-8 terminal."
        )
    given = {name: getattr(config, name) for name in ("image", "negatives", "beauty", "system", "k")}
    if config.image is not None and not is_reference(config.image):
        given["image"] = _content(config.image)
    return cast(SearchFields, {name: value for name, value in given.items() if value})


def _content(path: str) -> bytes:
    try:
        data = read_file(fs.LocalFileSystem(), path)
    except OSError as error:
        raise UserError(f"The image {shown(path)} cannot be read: {error.strerror or error}.") from None
    if not data:
        raise UserError(f"The image {shown(path)} is empty: give another file.")
    return data


def address_of(serve: Serve) -> str:
    """The address of `kallos serve` with these settings. Raises UserError if the port is 0 (any free one)."""
    if not serve.port:
        raise UserError("The profile's serve.port is 0, which is any free port: give --server.")
    return local_address(serve.host, serve.port)


class _Console(Console):
    """A console that raises BrokenPipeError for a closed pipe, like `print`; rich exits with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def show(response: SearchResponse, client: Client, address: str) -> None:
    """Print a table of the results, with pictures if the terminal can draw them."""
    # Without a terminal the table is wide enough to keep every row on one line.
    console = _Console(width=None if sys.stdout.isatty() else PIPE_CELLS)
    picture = _picture_type() if console.is_terminal else None
    table = Table("#", "score", "caption", Column("image id", overflow="fold"))
    table.add_column("picture" if picture else "preview", overflow="fold")
    for rank, result in enumerate(response.results, start=1):
        preview = (picture and _drawn(picture, client, result.image_id)) or address + result.preview_url
        table.add_row(str(rank), f"{result.score:.3f}", _plain(result.caption), result.image_id, preview)
    console.print(table)
    footer = f"{response.system} ({response.encoder}), {response.timings_ms.get('total', 0):.0f} ms"
    rephrased = f", searched for: {response.rephrased}" if response.rephrased else ""
    console.print(_plain(footer + rephrased))
    texts = {"the query": response.query_words}
    texts |= {f"negative {number}": words for number, words in enumerate(response.negatives_words, start=1)}
    for name, words in texts.items():
        if words.read < words.given:
            console.print(f"The encoder read {words.read} of the {words.given} words of {name}: shorten it.")


def _drawn(picture: Any, client: Client, image_id: str) -> Any:
    """The preview as a picture, None if it cannot be fetched or decoded: the image may just be deleted."""
    try:
        image = Image.open(io.BytesIO(client.preview(image_id)))
        image.load()
    except (ClientError, OSError):
        return None
    return picture(image, width=PICTURE_CELLS)


def _plain(text: str) -> Text:
    """Text without markup or control characters, so that neither rich nor the terminal interprets it."""
    return Text("".join(char if char.isprintable() else " " for char in text))


def _picture_type() -> Any:
    """The renderable that draws a picture in this terminal, None if it cannot draw any."""
    # The import queries the terminal, so it must not happen without one.
    from textual_image import renderable

    drawn = renderable.Image
    return drawn if drawn in (renderable.SixelImage, renderable.TGPImage) else None
