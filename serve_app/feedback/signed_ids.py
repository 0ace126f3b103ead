"""Search ids that speak for themselves: what was asked, who answered and when, signed over what was shown.

Nothing is kept on the server. Any replica that has the secret reads an id, and only for the very images that
the answer held: their digest is signed, and not carried.

    tickets = Tickets(secret)
    search_id = tickets.issue("red boat", "live", encoder, image_ids, time.time())
    tickets.read(search_id, image_ids, time.time()).query
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.http.errors import ApiError

VALID_S = 24 * 3600.0
SIGNATURE_BYTES = 32


@dataclass(frozen=True)
class Ticket:
    """What an answer was: the query, the system and encoder that answered, when (Unix time, seconds)."""

    query: str
    system: str
    encoder: str
    issued_at: float


class Tickets:
    """Issues and reads search ids, and gives clients the names under which they are kept."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: what signs; every replica that shall read the ids needs the same."""
        self._secret = secret

    def issue(self, query: str, system: str, encoder: str, image_ids: Sequence[str], now: float) -> str:
        """The id of an answer with those images, best first: URL-safe text.

        It has 70 characters and four thirds of the bytes that its words take: with a query of 500 characters
        of four bytes each it stays below 2,900.
        """
        payload = "\0".join((f"{now:.3f}", system, encoder, query)).encode()  # the query may hold a NUL
        return _text(self._sign(payload, image_ids) + payload)

    def read(self, search_id: str, image_ids: Sequence[str], now: float, field: str = "search_id") -> Ticket:
        """The ticket behind an id of ours that was issued for an answer with those images, in that order.

        Raises ApiError, naming `field`: 422 `bad_search_id` for any other id or other images, 422
        `expired_search_id` a day after it was issued.
        """
        signed = _bytes(search_id)
        signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(payload, image_ids)):
            raise ApiError(422, "bad_search_id", f"`{field}` was not given with these images.", field)
        issued_at, system, encoder, query = payload.decode().split("\0", 3)
        if now - float(issued_at) > VALID_S:
            raise ApiError(422, "expired_search_id", f"`{field}` is older than a day: search again.", field)
        return Ticket(query, system, encoder, float(issued_at))

    def pseudonym(self, client: str) -> str:
        """16 hex characters that stand for a client; without the secret no name or address can be tried."""
        return hmac.digest(self._secret, b"client\0" + client.encode(), "sha256").hex()[:16]

    def _sign(self, payload: bytes, image_ids: Sequence[str]) -> bytes:
        shown = hashlib.sha256("\n".join(image_ids).encode()).digest()
        return hmac.digest(self._secret, b"ticket\0" + shown + payload, "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """The bytes that `_text` made the text of; of any other text none, also where it decodes to the same."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return data if _text(data) == text else b""
