"""The read-only set of strings."""

import numpy as np
import pyarrow as pa

from jobs.ingest.lookup import Lookup


def test_lookup_finds_exactly_its_keys():
    keys = [f"key {index}" for index in range(1000)] + ["été", "\udcff"[:0] + "x"]
    lookup = Lookup(pa.chunked_array([keys[:500], keys[500:]]))
    assert [lookup.row(key) for key in keys] == list(range(len(keys)))
    assert "key 1000" not in lookup and "" not in lookup and len(lookup) == 1002


def test_lookup_distinguishes_keys_with_equal_hashes(monkeypatch):
    monkeypatch.setattr("jobs.ingest.lookup._hash", lambda key: np.uint64(len(key)))
    lookup = Lookup(pa.array(["aa", "b", "cc", "dd"]))
    assert [lookup.row(key) for key in ("cc", "dd", "aa", "b", "ee")] == [2, 3, 0, 1, -1]
