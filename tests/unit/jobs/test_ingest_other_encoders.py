"""Ingest adds vectors for the other encoders in use. Without Ray: vectors are copied from the parent."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder, save_encoder, vector_array
from actors.images import image_id
from actors.missing_vectors import COUNTS
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.ingest.other_encoders import embed_for_other_encoders, other_encoders

DIM = 32
IDS = [image_id(str(index).encode()) for index in range(9)]


def fill(store: Store, fingerprint: str, ids: list[str]) -> None:
    """Write images, and for each a vector of the encoder."""
    rows = pa.table(
        {
            "image_id": ids,
            "uri": ids,
            "caption": ids,
            "detailed_caption": ids,
            "width_px": pa.array([9] * len(ids), pa.int32()),
            "height_px": pa.array([9] * len(ids), pa.int32()),
            "preview": [b""] * len(ids),
            "tags": [["x"]] * len(ids),
            "source": ["here"] * len(ids),
            "added_at": pa.array([now()] * len(ids), SCHEMAS["images"].field("added_at").type),
        }
    )
    store.merge("images", rows, on=["image_id"])
    vectors = np.random.default_rng(len(ids)).normal(size=(len(ids), DIM)).astype(np.float32)
    rows = rows.append_column("vector", vector_array(vectors, DIM))
    rows = rows.append_column("aesthetic", pa.array([0.5] * len(ids), pa.float32()))
    store.merge(embeddings_table(fingerprint), rows.select(embeddings_schema(DIM).names), on=["image_id"])


def register(store: Store, folder: str, aliases: tuple[str, ...], parent: str = "") -> str:
    fingerprint = Encoder.load(folder).fingerprint
    store.register_encoder(EncoderRecord(encoder=fingerprint, parent=parent, checkpoint=folder, dim=DIM))
    for alias in aliases:
        store.set_alias(alias, fingerprint)
    return fingerprint


@pytest.fixture
def root(store, tiny_encoder_folder) -> str:
    """The encoder that ingest uses, as in a new store; every image has its vector."""
    fingerprint = register(store, tiny_encoder_folder, ("baseline", "live"))
    fill(store, fingerprint, IDS[:3])
    fill(store, fingerprint, IDS[3:])
    return fingerprint


@pytest.fixture
def aligned(root, store, tiny_encoder_folder, tmp_path) -> str:
    """An encoder with the same image tower, promoted to `live`; its table has the first three images."""
    child = Encoder.load(tiny_encoder_folder)
    with torch.no_grad():
        child.model.text_projection.mul_(-1)
    save_encoder(child.model, tiny_encoder_folder, str(tmp_path / "aligned"))
    fingerprint = register(store, str(tmp_path / "aligned"), ("live", "candidate"), root)
    fill(store, fingerprint, IDS[:3])
    return fingerprint


def ids_in(store: Store, fingerprint: str) -> set[str]:
    return set(store.read(embeddings_table(fingerprint), columns=["image_id"])["image_id"].to_pylist())


def test_a_store_with_one_encoder_has_no_others(store, root, mini_profile):
    assert other_encoders(store, root) == {}
    assert embed_for_other_encoders(store, mini_profile, root, [pa.array(IDS)]) == {}


def test_an_encoder_that_was_never_indexed_is_skipped(store, root, tmp_path, mini_profile):
    candidate = register(store, write_tiny_encoder(tmp_path / "other", seed=1), ("candidate",), root)
    assert embed_for_other_encoders(store, mini_profile, root, [pa.array(IDS)]) == {}
    assert not store.exists(embeddings_table(candidate))


def test_the_images_of_a_run_are_added_to_the_live_encoder_once(store, root, aligned, mini_profile):
    ids_of_run = [pa.array(IDS[:2]), pa.array(IDS[5:7])]
    reports = embed_for_other_encoders(store, mini_profile, root, ids_of_run)
    counts = dict.fromkeys(COUNTS, 0) | {"num_copied": 2}
    assert reports == {aligned: {"aliases": ["candidate", "live"], **counts}}
    assert ids_in(store, aligned) == {*IDS[:3], *IDS[5:7]}  # other missing images were excluded on purpose
    again = embed_for_other_encoders(store, mini_profile, root, ids_of_run)
    assert again[aligned]["num_copied"] == 0 and len(ids_in(store, aligned)) == 5


def test_a_missing_checkpoint_is_reported_and_does_not_fail_the_job(
    store, root, aligned, mini_profile, tmp_path, capsys
):
    (tmp_path / "aligned").rename(tmp_path / "elsewhere")
    reports = embed_for_other_encoders(store, mini_profile, root, [pa.array(IDS)])
    assert "aligned" in reports[aligned]["problem"]
    assert "candidate and live will not find the new images" in capsys.readouterr().err


def test_a_run_without_images_does_nothing(store, mini_profile):
    assert embed_for_other_encoders(store, mini_profile, "a" * 16, []) == {}
