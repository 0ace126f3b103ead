"""`kallos search`: ask a running server from the command line.

    kallos search "red sailboat at sunset" -k 6 --negatives people
    kallos search --image boat.jpg --server http://search.example:8000 --json

An API key is best given in the environment variable KALLOS_KEY: other users of the machine can see --key.
With --json the last line of stdout is one JSON object, the answer of /v1/search.
"""

import io
import os
import sys

import httpx
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cluster.errors import UserError
from cluster.profile import load_profile
from serve_app.client.client import Client, ClientError, SearchFields
from serve_app.client.config import SearchArgs
from serve_app.http.models import SearchResponse

PICTURE_CELLS = 24  # width of a picture in a terminal
PIPE_CELLS = 400


def run(args: SearchArgs) -> None:
    """Ask the server and print what it found.

    Raises:
        UserError: nothing answers, the server refuses, or the image cannot be read.
    """
    address = args.server.rstrip("/") or address_of(args.profile)
    with Client(address, args.key or os.environ.get("KALLOS_KEY", "")) as client:
        try:
            found = client.search(args.query, **fields(args))
            if args.json_:
                print(found.model_dump_json(), flush=True)
            else:
                show(found, client, address)
        except httpx.TransportError as error:
            raise UserError(
                f"Nothing answers at {address} ({type(error).__name__}): start it with `kallos serve`, "
                "or give --server."
            ) from None
        except ClientError as error:
            raise UserError(f"{address} refuses: {error}") from None
        except OSError as error:
            raise UserError(f"The image {args.image} cannot be read: {error}.") from None


def fields(args: SearchArgs) -> SearchFields:
    """What was given, as fields of a search."""
    given = {name: getattr(args, name) for name in ("image", "negatives", "system", "k")}
    return {name: value for name, value in given.items() if value}


def address_of(profile: str) -> str:
    """Where `kallos serve` with that profile answers. Raises UserError for an unknown profile."""
    serve = load_profile(profile).serve
    host = "127.0.0.1" if serve.host in ("0.0.0.0", "::") else serve.host
    return f"http://{f'[{host}]' if ':' in host else host}:{serve.port}"


def show(found: SearchResponse, client: Client, address: str) -> None:
    """A table of the results on stdout, with pictures where the terminal draws them."""
    # Where no terminal limits it, every row stays one line.
    console = Console(width=None if sys.stdout.isatty() else PIPE_CELLS)
    picture = _renderable() if console.is_terminal else None
    table = Table("#", "score", "caption", Column("image id", overflow="fold"))
    table.add_column("picture" if picture else "preview", overflow="fold")
    for rank, result in enumerate(found.results, start=1):
        if picture:
            preview = picture(io.BytesIO(client.preview(result.image_id)), width=PICTURE_CELLS)
        else:
            preview = address + result.preview_url
        table.add_row(str(rank), f"{result.score:.3f}", _plain(result.caption), result.image_id, preview)
    console.print(table)
    told = f"{found.system} ({found.encoder}), {found.timings_ms.get('total', 0):.0f} ms"
    console.print(_plain(f"{told}, searched for: {found.rephrased}" if found.rephrased else told))


def _plain(words: str) -> Text:
    """Text that neither rich nor the terminal takes for a command."""
    return Text("".join(char if char.isprintable() else " " for char in words))


def _renderable() -> type | None:
    """What draws a picture in this terminal, None where it has no way to."""
    # The import asks the terminal what it can do, so it is made only where there is one.
    from textual_image.renderable import Image, SixelImage, TGPImage

    return Image if Image in (SixelImage, TGPImage) else None
