"""The writer of ingest: what becomes of an image whose vector cannot be searched."""

import numpy as np
import pyarrow as pa
import pytest

from actors.encoder import Encoder, vector_array
from actors.images import Fit
from cluster.errors import JobFailure
from cluster.tables import embeddings_table
from jobs.ingest.prepare import NEW, prepared_schema
from jobs.ingest.writer import Writer


def test_image_without_a_finite_vector_becomes_a_reject_and_its_neighbours_are_stored(
    store, tiny_encoder_folder
):
    encoder = Encoder.load(tiny_encoder_folder)
    rows = [{"status": NEW, "uri": name, "image_id": name * 64, "preview": b""} for name in ("a", "b", "c")]
    batch = pa.Table.from_pylist(rows, prepared_schema(Fit(96, 96))).drop_columns("pixels")
    vectors = vector_array(np.eye(3, encoder.dim), encoder.dim).take(pa.array([0, None, 2]))
    writer = Writer(store, encoder, label="test")
    writer.add(batch.append_column("vector", vectors))
    writer.flush()
    assert writer.counts["num_images"] == 2 and writer.counts["num_rejects"] == 1
    for table in ("images", embeddings_table(encoder.fingerprint)):
        assert sorted(store.read(table, ["image_id"]).to_pydict()["image_id"]) == ["a" * 64, "c" * 64]
    (reject,) = store.read("rejects", ["uri", "stage", "error"]).to_pylist()
    assert (reject["uri"], reject["stage"]) == ("b", "embed") and "finite" in reject["error"]


def test_ingest_fails_only_when_there_is_no_input_or_every_one_is_rejected(store, tiny_encoder_folder):
    writer = Writer(store, Encoder.load(tiny_encoder_folder), label="test")
    with pytest.raises(JobFailure, match="hold no image"):
        writer.require_images()
    writer.reject_inputs([("b.jpg", "truncated"), ("a.jpg", "the file is empty (0 bytes)")])
    with pytest.raises(JobFailure, match=r"All 2 inputs.*table rejects of .*'a\.jpg': the file is empty"):
        writer.require_images()
    writer.counts["num_known"] = 1
    writer.require_images()
