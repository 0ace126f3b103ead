"""A read-only set of strings that workers share without copying: sorted 64-bit hashes in the object store."""

import hashlib

import numpy as np
import pyarrow as pa


class Lookup:
    """Finds the row of a key in an Arrow column. Pickles as flat arrays, which Ray maps into each worker."""

    def __init__(self, keys: pa.ChunkedArray | pa.Array) -> None:
        """`keys`: strings, unique."""
        self.keys = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
        hashes = np.fromiter((_hash(str(key)) for key in self.keys.to_pylist()), np.uint64, len(self.keys))
        self.rows = np.argsort(hashes, kind="stable")
        self.hashes = hashes[self.rows]

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        return self.row(key) >= 0

    def row(self, key: str) -> int:
        """The key's row, or -1."""
        first, end = (np.searchsorted(self.hashes, _hash(key), side) for side in ("left", "right"))
        rows = (int(row) for row in self.rows[first:end])  # of equal hashes
        return next((row for row in rows if self.keys[row].as_py() == key), -1)


def _hash(key: str) -> np.uint64:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
