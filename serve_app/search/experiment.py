"""Who takes part in an experiment: a stable draw, so that a client always meets the same system."""

import hashlib

DRAWS = 2**53  # a float holds every whole number up to it


def assigned(client: str, share: float, salt: str) -> bool:
    """Whether the client is in the share, 0 to 1, that the candidate answers.

    The same for every replica and restart. `salt` is the candidate's fingerprint: another candidate draws
    anew. A larger share keeps everyone whom a smaller one had.
    """
    digest = hashlib.sha256(f"{salt}\0{client}".encode()).digest()
    return int.from_bytes(digest[:8]) % DRAWS < share * DRAWS
