"""Assigns clients to an experiment, always the same client to the same system."""

import hashlib

NUM_DRAWS = 2**53  # a float represents every integer up to this one


def is_assigned(client: str, share: float, salt: str) -> bool:
    """Whether the client belongs to the share, 0 to 1, that the candidate answers.

    All replicas agree, also after a restart. A larger share contains every client of a smaller one. `salt` is
    the fingerprint of the candidate, so another candidate gets other clients.
    """
    digest = hashlib.sha256(f"{salt}\0{client}".encode()).digest()
    return int.from_bytes(digest[:8]) % NUM_DRAWS < share * NUM_DRAWS
