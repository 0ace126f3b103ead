"""Cursors: where the next page of a search begins, and of which encoder, table version and search it is.

A page is cut from the table as it was when the first one was: images added meanwhile shift nothing.
"""

import base64
import binascii
import hashlib

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.http.errors import ApiError
from serve_app.http.models import SearchBase

# What may differ from page to page of one search.
OWN_TO_A_PAGE = {"cursor", "k"}
# A search that begins further down costs all that stands above it, and nobody looks there.
MAX_OFFSET = 10_000


class Cursor(BaseModel):
    """The beginning of a page."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encoder: str = Field(max_length=16, description="fingerprint of the encoder that answers")
    version: int = Field(ge=1, lt=1 << 62, description="version of its table")
    offset: int = Field(ge=0, le=MAX_OFFSET, description="results before the page")
    search: str = Field(max_length=16, description="digest of what is searched for")
    num_candidates: int | None = Field(
        None, ge=1, description="images that diversity chose from, none = it was not asked for"
    )

    def encode(self) -> str:
        """Text for `SearchResponse.next`."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")


def read(request: SearchBase) -> Cursor | None:
    """The request's cursor, None for a first page.

    Raises ApiError (422) for a text that is no cursor, or the cursor of another search.
    """
    if not request.cursor:
        return None
    try:
        padded = request.cursor + "=" * (-len(request.cursor) % 4)
        cursor = Cursor.model_validate_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValidationError, binascii.Error, ValueError):
        raise ApiError(422, "bad_cursor", "`cursor` is not the `next` of an answer.", "cursor") from None
    if cursor.search != digest(request):
        raise ApiError(422, "other_search", "`cursor` belongs to another search: repeat that one.", "cursor")
    return cursor


def digest(request: SearchBase) -> str:
    """What the search is for, as 16 hex characters; the same for all its pages."""
    asked = request.model_dump_json(exclude=OWN_TO_A_PAGE)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]
