"""Signed search ids. An id carries the query, system, encoder and time of an answer, signed with its images.

The server stores nothing. Any replica with the secret can read an id, but only together with the image_ids of
the answer: the signature covers their digest, which the id does not contain.

    signed_ids = SignedIds(secret)
    search_id = signed_ids.issue("red boat", "live", encoder, image_ids, time.time())
    signed_ids.read(search_id, image_ids, time.time()).query
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import ApiError

VALID_S = 24 * 3600.0
SIGNATURE_BYTES = 32


@dataclass(frozen=True)
class SignedAnswer:
    """The content of a search id; `issued_at` is Unix time in seconds."""

    query: str
    system: str
    encoder: str
    issued_at: float


class SignedIds:
    """Issues and reads search ids, and gives clients their pseudonyms."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: the signing key. Replicas can read each other's ids if they share it."""
        self._secret = secret

    def issue(self, query: str, system: str, encoder: str, image_ids: Sequence[str], now: float) -> str:
        """The id of an answer with these images, best first, as URL-safe text.

        The text has 70 characters plus four thirds of the bytes of its fields. With a query of 500 characters
        of four bytes each it stays below 2,900.
        """
        payload = "\0".join((f"{now:.3f}", system, encoder, query)).encode()  # last: a query may contain NUL
        return _encode(self._sign(payload, image_ids) + payload)

    def read(
        self, search_id: str, image_ids: Sequence[str], now: float, field: str = "search_id"
    ) -> SignedAnswer:
        """The content of an id that was issued for an answer with these images, in this order.

        Raises:
            ApiError: 422, naming `field`: `bad_search_id` for any other id or other images,
                `expired_search_id` a day after the id was issued.
        """
        signed = _decode(search_id)
        signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(payload, image_ids)):
            raise ApiError(422, "bad_search_id", f"`{field}` was not issued for these images.", field)
        issued_at, system, encoder, query = payload.decode().split("\0", 3)
        if now - float(issued_at) > VALID_S:
            raise ApiError(422, "expired_search_id", f"`{field}` is older than a day: search again.", field)
        return SignedAnswer(query, system, encoder, float(issued_at))

    def pseudonym(self, client: str) -> str:
        """16 hex characters that identify a client; without the secret no guess of its name can be tested."""
        return hmac.digest(self._secret, b"client\0" + client.encode(), "sha256").hex()[:16]

    def _sign(self, payload: bytes, image_ids: Sequence[str]) -> bytes:
        images = hashlib.sha256("\n".join(image_ids).encode()).digest()
        return hmac.digest(self._secret, b"ticket\0" + images + payload, "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """The inverse of `_encode`; b"" for any text that `_encode` cannot have written."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return data if _encode(data) == text else b""
