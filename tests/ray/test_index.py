"""Index and retriever with LanceDB: vectors for new encoders, exact and approximate search, errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from pictures import encoded, gradient, write_photos

from actors import images
from actors.encoder import Encoder, save_encoder, vector_array
from actors.images import image_id
from actors.retriever import Effort, Retriever, has_index
from actors.scorers import PromptPairs
from actors.vectors import vector_matrix
from cluster.errors import UserError
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.index import ann
from jobs.index.config import IndexConfig
from jobs.index.job import run

DIM = 32


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder) -> Encoder:
    return Encoder.load(tiny_encoder_folder, num_threads=1)


@pytest.fixture(scope="module")
def profile(mini_profile, tiny_encoder_folder, tmp_path_factory) -> str:
    """A profile file: `mini` with the tiny encoder, small actors, and an ANN index from 1,000 rows."""
    values = mini_profile.model_dump(mode="json")
    values["encoder"]["model"] = tiny_encoder_folder
    values["encoder"]["stage"] |= {"min_actors": 1, "max_actors": 1, "batch_size": 8}
    values["encoder"]["decode"] |= {"min_actors": 1, "max_actors": 1, "batch_size": 8}
    values["index"] |= {"ann_min_rows": 1000, "num_recall_queries": 50}
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def random_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(store: Store, fingerprint: str, vectors: np.ndarray) -> list[str]:
    """Write one row per vector into `images` and the encoder's table; returns the image ids."""
    ids = [image_id(str(index).encode()) for index in range(len(vectors))]
    columns = {
        "image_id": ids,
        "uri": [f"/nowhere/{index}.jpg" for index in range(len(ids))],
        "caption": [f"photo {index}" for index in range(len(ids))],
        "detailed_caption": [""] * len(ids),
        "width_px": pa.array([640] * len(ids), pa.int32()),
        "height_px": pa.array([480] * len(ids), pa.int32()),
        "preview": [b""] * len(ids),
        "tags": [["split:gallery" if index % 3 else "split:train"] for index in range(len(ids))],
        "source": ["here"] * len(ids),
        "added_at": pa.array([now()] * len(ids), SCHEMAS["images"].field("added_at").type),
    }
    rows = pa.table(columns)
    store.merge("images", rows, on=["image_id"])
    rows = rows.append_column("vector", vector_array(vectors, DIM))
    rows = rows.append_column("aesthetic", pa.array([0.5] * len(ids), pa.float32()))
    store.merge(embeddings_table(fingerprint), rows.select(embeddings_schema(DIM).names), on=["image_id"])
    return ids


def register(store: Store, folder: str, parent: str = "", alias: str = "live") -> str:
    fingerprint = Encoder.load(folder).fingerprint
    store.register_encoder(EncoderRecord(encoder=fingerprint, parent=parent, checkpoint=folder, dim=DIM))
    store.set_alias(alias, fingerprint)
    return fingerprint


# --- the retriever


@pytest.mark.parametrize("num_queries", [1, 7, 300])
def test_search_equals_a_full_matrix_search(store, num_queries):
    vectors, queries = random_vectors(503), random_vectors(num_queries, seed=1)
    ids = fill(store, "a" * 16, vectors)
    found = Retriever(store, "a" * 16).search(queries, 11, columns=["caption"])
    scores = queries @ vectors.T
    for rows, expected in zip(found, scores, strict=True):
        best = np.argsort(-expected)[:11]
        assert [row["image_id"] for row in rows] == [ids[index] for index in best]
        np.testing.assert_allclose([row["score"] for row in rows], expected[best], atol=1e-5)
        assert rows[0]["caption"] == f"photo {best[0]}"


def test_filters_apply_before_the_search_and_bad_filters_are_explained(store):
    vectors = random_vectors(50)
    ids = fill(store, "a" * 16, vectors)
    retriever = Retriever(store, "a" * 16)
    (rows,) = retriever.search(random_vectors(1, seed=2), 50, where="array_contains(tags, 'split:train')")
    assert {row["image_id"] for row in rows} == set(ids[::3])
    with pytest.raises(UserError, match="filter 'colour = 3' failed"):
        retriever.search(random_vectors(1), 5, where="colour = 3")


def test_search_for_more_images_than_there_are_and_without_queries(store):
    fill(store, "a" * 16, random_vectors(4))
    retriever = Retriever(store, "a" * 16)
    assert [len(rows) for rows in retriever.search(random_vectors(2), 10)] == [4, 4]
    assert retriever.search(np.zeros((0, DIM), np.float32), 10) == []


def test_missing_index_is_refused_with_the_command_to_run(store):
    fill(store, "a" * 16, random_vectors(4))
    with pytest.raises(UserError, match=f"kallos index --encoder {'b' * 16}"):
        Retriever(store, "b" * 16)


# --- the index job


def test_a_large_table_gets_an_ann_index_with_measured_recall(store, profile, tiny_encoder_folder, encoder):
    register(store, tiny_encoder_folder)
    ids = fill(store, encoder.fingerprint, random_vectors(3000))
    report = run(IndexConfig(profile=profile, store=store.uri))
    assert (report["index"], report["num_rows"], report["num_embedded"]) == ("IVF_HNSW_SQ", 3000, 0)
    assert report["recall@10"] >= 0.9
    (recorded,) = store.read("indexes").to_pylist()
    assert recorded["encoder"] == encoder.fingerprint and recorded["num_queries"] == 50
    assert recorded["recall_at_10"] == pytest.approx(report["recall@10"])
    retriever = Retriever(store, encoder.fingerprint)
    assert retriever.approximate
    queries = random_vectors(20, seed=5)
    exact = retriever.search(queries, 10, exact=True)
    scores = queries @ random_vectors(3000).T
    assert [rows[0]["image_id"] for rows in exact] == [ids[best] for best in scores.argmax(axis=1)]
    assert retriever.effort == Effort(*(report[name] for name in ("ef", "refine_factor", "nprobes")))
    assert all(has_index(store.open(name), "image_id") for name in ("images", retriever.table.name))
    again = run(IndexConfig(profile=profile, store=store.uri))
    assert again["index"] == "IVF_HNSW_SQ" and store.count("indexes") == 2


def test_the_fastest_measured_setting_that_reaches_the_target_is_chosen(
    store, profile, tiny_encoder_folder, encoder, tmp_path
):
    register(store, tiny_encoder_folder)
    fill(store, encoder.fingerprint, random_vectors(1500))
    for target in (0.0, 1.0):
        values = yaml.safe_load(Path(profile).read_text())
        values["index"] |= {"recall": target, "num_recall_queries": 10}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
        report = run(IndexConfig(profile=str(tmp_path / "own.yaml"), store=store.uri))
        chosen = {name: report[name] for name in ("ef", "refine_factor", "nprobes", "p50_ms")}
        good = [row for row in report["sweep"] if row["recall_at_10"] >= target] or report["sweep"]
        assert chosen | {"recall_at_10": report["recall@10"]} in good
        assert report["target_reached"] == (report["recall@10"] >= target)
        if report["target_reached"]:
            assert report["p50_ms"] == min(row["p50_ms"] for row in good)
        assert Retriever(store, encoder.fingerprint).effort.ef == report["ef"], "the newest row is in effect"


def test_optimize_adds_new_rows_to_the_index_and_embeds_nothing(store, profile, tiny_encoder_folder, encoder):
    register(store, tiny_encoder_folder)
    vectors = random_vectors(1300)
    fill(store, encoder.fingerprint, vectors[:1200])
    first = run(IndexConfig(profile=profile, store=store.uri))
    assert first["num_unindexed_rows"] == {"before": 1200, "after": 0}
    for count in (1220, 1240, 1260, 1280, 1300):
        ids = fill(store, encoder.fingerprint, vectors[:count])
    unembedded = image_id(b"another")
    row = store.read("images", where=f"image_id = '{ids[0]}'").to_pylist()[0] | {"image_id": unembedded}
    store.merge("images", pa.Table.from_pylist([row], SCHEMAS["images"]), on=["image_id"])
    report = run(IndexConfig(profile=profile, store=store.uri, optimize=True))
    assert report["num_unindexed_rows"] == {"before": 100, "after": 0}
    assert (report["num_embedded"], report["num_copied"], report["num_rows"]) == (0, 0, 1300)
    for name in ("images", embeddings_table(encoder.fingerprint)):
        assert len(store.open(name).to_lance().get_fragments()) <= 2, "five small files are merged"
        assert store.open(name).index_stats("image_id_idx").num_unindexed_rows == 0
    found = Retriever(store, encoder.fingerprint).search(vectors[1200:], 1)
    assert [rows[0]["image_id"] for rows in found] == ids[1200:]


def test_an_index_with_too_many_graphs_is_rebuilt(store, encoder):
    name = embeddings_table(encoder.fingerprint)
    vectors = random_vectors(1000)
    fill(store, encoder.fingerprint, vectors[:600])
    graphs = []
    for count in range(600, 1000, 50):
        ann.build_ann(store.open(name), 100)
        graphs.append(store.open(name).index_stats("vector_idx").num_indices)
        fill(store, encoder.fingerprint, vectors[:count])
    assert max(graphs) == ann.MAX_GRAPHS and graphs.count(1) > 1


def test_a_small_table_is_searched_exactly(store, profile, tiny_encoder_folder, encoder):
    register(store, tiny_encoder_folder)
    fill(store, encoder.fingerprint, random_vectors(30))
    report = run(IndexConfig(profile=profile, store=store.uri))
    assert (report["index"], report["recall@10"]) == ("exact", 1.0)
    assert not Retriever(store, encoder.fingerprint).approximate


def test_an_encoder_with_the_same_image_tower_copies_its_parents_vectors(
    store, profile, tiny_encoder_folder, encoder, tmp_path
):
    parent = register(store, tiny_encoder_folder)
    vectors = random_vectors(40)
    fill(store, parent, vectors)
    child = Encoder.load(tiny_encoder_folder)
    with torch.no_grad():
        child.model.text_projection.mul_(-1)
    save_encoder(child.model, tiny_encoder_folder, str(tmp_path / "aligned"))
    fingerprint = register(store, str(tmp_path / "aligned"), parent, alias="candidate")
    report = run(IndexConfig(profile=profile, store=store.uri, encoder="candidate"))
    assert (report["num_copied"], report["num_embedded"], report["encoder"]) == (40, 0, fingerprint)
    copied = store.read(embeddings_table(fingerprint)).sort_by("image_id")
    original = store.read(embeddings_table(parent)).sort_by("image_id")
    assert copied.drop_columns("aesthetic").equals(original.drop_columns("aesthetic"))
    scorer = PromptPairs.of(child.encode_texts, child.temperature)
    expected = scorer.score(vector_matrix(copied["vector"]))
    np.testing.assert_allclose(copied["aesthetic"].to_numpy(), expected, atol=1e-5)


def test_a_new_encoder_embeds_files_or_previews_and_counts_images_without_either(
    ray_cluster, store, profile, tiny_encoder_folder, encoder, tmp_path
):
    names = write_photos(tmp_path / "photos", 10)
    files = [(tmp_path / "photos" / name).read_bytes() for name in names]
    previews = [images.preview_jpeg(images.decode(data), 64) for data in files]
    previews[0] = previews[2] = b"broken"
    rows = {
        "image_id": [image_id(data) for data in files],
        "uri": [str(tmp_path / "photos" / name) for name in names],
        "caption": [""] * 10,
        "detailed_caption": [""] * 10,
        "width_px": pa.array([120] * 10, pa.int32()),
        "height_px": pa.array([90] * 10, pa.int32()),
        "preview": previews,
        "tags": [["odd"] if index % 2 else ["even"] for index in range(10)],
        "source": ["here"] * 10,
        "added_at": pa.array([now()] * 10, SCHEMAS["images"].field("added_at").type),
    }
    store.merge("images", pa.table(rows), on=["image_id"])
    (tmp_path / "photos" / names[0]).unlink()
    (tmp_path / "photos" / names[1]).write_bytes(encoded(gradient(seed=99)))
    fingerprint = register(store, tiny_encoder_folder)
    report = run(IndexConfig(profile=profile, store=store.uri, where="array_contains(tags, 'even')"))
    counts = ("num_embedded", "num_from_preview", "num_unreadable_images", "num_rows")
    assert [report[name] for name in counts] == [4, 0, 1, 4]
    report = run(IndexConfig(profile=profile, store=store.uri))
    assert [report[name] for name in counts] == [5, 1, 1, 9]
    found = {row["image_id"]: row for row in store.read(embeddings_table(fingerprint)).to_pylist()}
    for index, data in enumerate(files[1:], 1):
        embedded = previews[index] if index == 1 else data
        direct = encoder.encode_images(encoder.pixels(images.decode(embedded))[None])[0]
        row = found[image_id(data)]
        np.testing.assert_allclose(row["vector"], direct, atol=1e-5)
        assert (row["width_px"], row["height_px"]) == (120, 90)


def test_mistakes_are_explained(store, profile, tiny_encoder_folder, encoder, tmp_path):
    with pytest.raises(UserError, match="no encoder 'live'"):
        run(IndexConfig(profile=profile, store=store.uri))
    register(store, tiny_encoder_folder)
    with pytest.raises(UserError, match="kallos ingest"):
        run(IndexConfig(profile=profile, store=store.uri))
    fill(store, encoder.fingerprint, random_vectors(3))
    with pytest.raises(UserError, match="filter 'colour = 3' cannot be used"):
        run(IndexConfig(profile=profile, store=store.uri, where="colour = 3"))
