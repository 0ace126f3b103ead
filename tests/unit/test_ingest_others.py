"""Ingest brings the tables of the other encoders that answer up to date. No Ray: nothing here is embedded."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder, save_encoder, vector_array
from actors.images import image_id
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.ingest.others import bring_up_to_date, other_encoders

DIM = 32
IDS = [image_id(str(number).encode()) for number in range(9)]


def fill(store: Store, fingerprint: str, ids: list[str]) -> None:
    """Images, and a vector of the encoder for each."""
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
    """The encoder that ingest embeds with, as in a new store; every image has its vector."""
    fingerprint = register(store, tiny_encoder_folder, ("baseline", "live"))
    fill(store, fingerprint, IDS[:3])
    fill(store, fingerprint, IDS[3:])
    return fingerprint


@pytest.fixture
def aligned(root, store, tiny_encoder_folder, tmp_path) -> str:
    """One of the same image side, `live` by now; its index has the first three images."""
    child = Encoder.load(tiny_encoder_folder)
    with torch.no_grad():
        child.model.text_projection.mul_(-1)
    save_encoder(child.model, tiny_encoder_folder, str(tmp_path / "aligned"))
    fingerprint = register(store, str(tmp_path / "aligned"), ("live", "candidate"), root)
    fill(store, fingerprint, IDS[:3])
    return fingerprint


def ids_in(store: Store, fingerprint: str) -> set[str]:
    return set(store.read(embeddings_table(fingerprint), columns=["image_id"])["image_id"].to_pylist())


def test_a_store_of_one_encoder_has_no_other(store, root, mini_profile):
    assert other_encoders(store, root) == {}
    assert bring_up_to_date(store, mini_profile, root, [pa.array(IDS)]) == {}


def test_an_encoder_that_was_never_indexed_is_left_alone(store, root, tmp_path, mini_profile):
    candidate = register(store, write_tiny_encoder(tmp_path / "other", seed=1), ("candidate",), root)
    assert bring_up_to_date(store, mini_profile, root, [pa.array(IDS)]) == {}
    assert not store.exists(embeddings_table(candidate))


def test_the_images_of_a_run_reach_what_is_live_once(store, root, aligned, mini_profile):
    seen = [pa.array(IDS[:2]), pa.array(IDS[5:7])]
    reports = bring_up_to_date(store, mini_profile, root, seen)
    counts = {"num_copied": 2, "num_embedded": 0, "num_from_preview": 0}
    assert reports == {aligned: {"aliases": ["candidate", "live"], **counts}}
    assert ids_in(store, aligned) == {*IDS[:3], *IDS[5:7]}  # what else it lacks was left out on purpose
    again = bring_up_to_date(store, mini_profile, root, seen)
    assert again[aligned]["num_copied"] == 0 and len(ids_in(store, aligned)) == 5


def test_an_encoder_whose_folder_is_gone_is_told_and_ends_nothing(
    store, root, aligned, mini_profile, tmp_path, capsys
):
    (tmp_path / "aligned").rename(tmp_path / "elsewhere")
    reports = bring_up_to_date(store, mini_profile, root, [pa.array(IDS)])
    assert "aligned" in reports[aligned]["problem"]
    assert "candidate and live will not find the new images" in capsys.readouterr().err


def test_a_run_without_an_image_has_nothing_to_do(store, mini_profile):
    assert bring_up_to_date(store, mini_profile, "a" * 16, []) == {}
