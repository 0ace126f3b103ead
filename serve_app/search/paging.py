"""Cursors: the offset of the next page, with the encoder, table version and search that it belongs to.

All pages of a search read the same table version, so images added meanwhile do not shift the results.
"""

import base64
import binascii
import hashlib

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.errors import ApiError
from serve_app.models import BaseSearchRequest

# Fields that may differ between the pages of one search.
PAGE_FIELDS = {"cursor", "k"}
# A page costs as much as all results before it, and nobody reads that far.
MAX_OFFSET = 10_000


class Cursor(BaseModel):
    """The start of a page."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encoder: str = Field(max_length=16, description="fingerprint of the encoder that answers")
    version: int = Field(ge=1, lt=1 << 62, description="version of its table")
    offset: int = Field(ge=0, le=MAX_OFFSET, description="number of results before the page")
    search: str = Field(max_length=16, description="digest of the search")
    num_candidates: int | None = Field(
        None, ge=1, description="number of images that diversity chose from, None without diversity"
    )

    def encode(self) -> str:
        """The cursor as text, for `SearchResponse.next`."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")


def read(request: BaseSearchRequest) -> Cursor | None:
    """The cursor of the request, None for a first page.

    Raises ApiError (422) for a text that is not a cursor, or that belongs to another search.
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


def digest(request: BaseSearchRequest) -> str:
    """16 hex characters that identify the search; equal for all its pages."""
    fields = request.model_dump_json(exclude=PAGE_FIELDS)
    return hashlib.sha256(fields.encode()).hexdigest()[:16]
