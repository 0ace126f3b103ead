"""Reading an image of the store: its preview if that is large enough, else its file."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pictures import encoded, gradient
from PIL import Image

from actors import images, judge
from actors.engine import Reply
from actors.images import STORED, Fit, UnusableImage, decode, image_id, pixels, preview_jpeg, read_stored
from actors.stored_pixels import prepare_stored
from cluster.errors import UserError
from cluster.profile import LanguageModel, Stage, load_profile
from cluster.tables import SCHEMAS, embeddings_schema, embeddings_table, now
from jobs.align.corpus import read_vectors
from jobs.align.images import StoredImages
from jobs.evaluate import language_models

WIDTH, HEIGHT = 600, 400  # a photograph's shape: its preview is 256 x 171
SEEDS = (0, 1)


def row_of(folder, seed: int, *, size=(WIDTH, HEIGHT), preview_px: int = 256) -> dict:
    """A row of `images` as `kallos ingest` writes it, its file in the folder."""
    image = gradient(*size, seed=seed)
    data, path = encoded(image, quality=95), folder / f"{seed}.jpg"
    path.write_bytes(data)
    texts = dict.fromkeys(("caption", "detailed_caption", "source"), "")
    row = {"image_id": image_id(data), "uri": str(path), "preview": preview_jpeg(decode(data), preview_px)}
    return {**row, **texts, "width_px": size[0], "height_px": size[1], "tags": [], "added_at": now()}


@pytest.fixture
def row(tmp_path) -> dict:
    return row_of(tmp_path, 0)


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({"shorter_px": 171}, (256, 171)),
        ({"shorter_px": 172}, (WIDTH, HEIGHT)),
        ({"shorter_px": 224}, (WIDTH, HEIGHT)),
        ({"longer_px": 256}, (256, 171)),
        ({"longer_px": 257}, (WIDTH, HEIGHT)),
        ({"longer_px": 5000}, (WIDTH, HEIGHT)),
    ],
)
def test_file_is_read_if_the_preview_is_too_small(row, wanted, size):
    assert read_stored(row, **wanted).size == size


def test_preview_is_measured_by_its_own_size(tmp_path):
    row = row_of(tmp_path, 0, preview_px=128)
    assert read_stored(row, longer_px=129).size == (WIDTH, HEIGHT)
    assert read_stored(row, longer_px=128).size == (128, 86)


def test_preview_as_large_as_the_file_needs_no_file(tmp_path):
    row = {**row_of(tmp_path, 0, size=(200, 100)), "uri": "/none"}
    assert read_stored(row, shorter_px=224, longer_px=448).size == (200, 100)


def test_mini_profile_reads_previews_only(tmp_path):
    mini = load_profile("mini")
    row = {**row_of(tmp_path, 0, size=(160, 160)), "uri": "/none"}  # a scene of the studio
    preview = decode(row["preview"])
    assert np.array_equal(read_stored(row, shorter_px=96), preview)
    seen = judge.stored_images([row], mini.judge.image_px)[row["image_id"]]
    assert np.array_equal(seen, judge.shrink(preview, 112))


@pytest.mark.parametrize("harm", ["gone", "changed", "no file"])
def test_preview_is_read_if_the_file_is_gone_or_changed(row, tmp_path, harm):
    if harm == "gone":
        (tmp_path / "0.jpg").unlink()
    elif harm == "changed":
        (tmp_path / "0.jpg").write_bytes(encoded(gradient(WIDTH, HEIGHT, seed=9)))
    else:
        row = {**row, "uri": f"{tmp_path}/shard.tar#0.jpg"}
    assert read_stored(row, shorter_px=224).size == (256, 171)


def test_file_is_read_if_the_preview_is_unreadable(row):
    assert read_stored({**row, "preview": b"no image"}, shorter_px=96).size == (WIDTH, HEIGHT)


def test_image_without_readable_file_and_preview_is_refused_with_both_reasons(row):
    with pytest.raises(UnusableImage, match=r"preview: not an image.*file: cannot be opened"):
        read_stored({**row, "preview": b"no image", "uri": "/none"})


def test_file_may_have_as_many_pixels_as_ingest_let_it_have(row, monkeypatch):
    limits = []
    open_image = images.open_image
    monkeypatch.setattr(
        images, "open_image", lambda data, limit: limits.append(limit) or open_image(data, limit)
    )
    read_stored({**row, "preview": b"no image"}, shorter_px=224)
    rows = pa.Table.from_pylist([row], SCHEMAS["images"])
    prepared = prepare_stored(rows, fit=Fit(224, 224), missing=rows["image_id"].combine_chunks())
    assert not prepared["from_preview"][0].as_py()
    assert limits[1:] == [WIDTH * HEIGHT] * 2


def test_image_without_readable_file_and_preview_is_not_embedded(row):
    broken = {**row, "image_id": "0" * 64, "preview": b"no image"}
    rows = pa.Table.from_pylist([broken, row], SCHEMAS["images"])
    prepared = prepare_stored(rows, fit=Fit(96, 96), missing=rows["image_id"].combine_chunks())
    assert prepared["image_id"].to_pylist() == [row["image_id"]]


def test_file_may_have_any_uri_that_arrow_supports(row, tmp_path):
    assert read_stored({**row, "uri": f"file://{tmp_path}/0.jpg"}, shorter_px=224).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("image_px", "size"), [(None, (WIDTH, HEIGHT)), (448, (448, 299)), (112, (112, 75))])
def test_judge_sees_images_of_its_size(row, image_px, size):
    assert judge.stored_images([row], image_px)[row["image_id"]].size == size


@pytest.fixture
def filled(store, tmp_path):
    """Two images and, in a list, their rows."""
    rows = [row_of(tmp_path, seed) for seed in SEEDS]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    return store, rows


def stored(store, rows: list[dict], fit: Fit) -> StoredImages:
    """The rows in the order of the table."""
    ids = store.read("images", ["image_id"])["image_id"].to_pylist()
    places = np.array([ids.index(row["image_id"]) for row in rows])
    return StoredImages(store, store.open("images").to_lance().version, places, fit)


def test_training_reads_files_if_previews_are_too_small(filled, tmp_path):
    store, rows = filled
    fit = Fit(224, 224)
    seen = stored(store, rows, fit).take(np.array([1, 0]))
    files = [pixels(decode((tmp_path / f"{seed}.jpg").read_bytes()), fit) for seed in (1, 0)]
    assert np.array_equal(seen, files)
    small = Fit(96, 96)
    previews = [pixels(decode(row["preview"]), small) for row in rows]
    assert np.array_equal(stored(store, rows, small).take(np.array([0, 1])), previews)


def test_training_leaves_out_deleted_images_and_those_without_readable_file_and_preview(filled):
    store, rows = filled
    broken = f"image_id = '{rows[1]['image_id']}'"
    store.open("images").update(where=broken, values={"preview": b"no image", "uri": "/none"})
    images = stored(store, rows, Fit(96, 96))
    images = replace(images, table_rows=np.append(images.table_rows, -1))
    seen, readable = images.read(np.array([2, 1, 0]))
    assert readable.tolist() == [False, False, True]
    assert np.array_equal(seen[2], pixels(decode(rows[0]["preview"]), Fit(96, 96))) and not seen[:2].any()
    assert images.read(np.array([1, 2]))[1].tolist() == [False, False]
    with pytest.raises(UserError, match="can no longer be read for training"):
        images.take(np.array([0, 1]))


def test_training_lacks_vectors_of_unreadable_and_deleted_images_but_not_of_others(filled):
    store, rows = filled
    encoder: Any = SimpleNamespace(fingerprint="0" * 16, dim=4)
    vector = {"image_id": rows[0]["image_id"], "vector": np.ones(encoder.dim, np.float32), "aesthetic": 0.5}
    schema = embeddings_schema(encoder.dim)
    table = pa.Table.from_pylist([{**rows[0], **vector}], schema)
    store.merge(embeddings_table(encoder.fingerprint), table, on=["image_id"])
    ids = pa.array([rows[1]["image_id"], rows[0]["image_id"], "f" * 64])
    with pytest.raises(UserError, match=f"such as {rows[1]['image_id']}: run `kallos index` on them"):
        read_vectors(store, encoder, ids)
    broken = f"image_id = '{rows[1]['image_id']}'"
    store.open("images").update(where=broken, values={"preview": b"no image", "uri": "/none"})
    vectors, found = read_vectors(store, encoder, ids)
    assert found.tolist() == [False, True, False]
    assert vectors[:, 0].tolist() == [0.0, 1.0, 0.0] and vectors.dtype == np.float32


def test_label_and_evaluate_show_the_judge_the_same_images(filled, monkeypatch):
    store, rows = filled
    shown: list[Image.Image] = []

    class Engine:
        def generate(self, requests):
            shown.extend(image for request in requests for image in request.images)
            return [Reply(choice_probs=dict.fromkeys("12345", 0.2)) for _ in requests]

    monkeypatch.setattr(language_models, "make_engine", lambda model: Engine())
    model = LanguageModel(model="none/none", max_tokens=1, image_px=448, stage=Stage())
    tasks = language_models.JudgeQuestions(aesthetics=[("q", row["image_id"]) for row in rows]).tasks()
    language_models.AnswerTasks(store=store, model=model)(tasks)
    labelled = judge.ImageCache(store, 448).load([row["image_id"] for row in rows])
    assert [image.size for image in shown] == [(448, 299)] * 2
    assert all(np.array_equal(*pair) for pair in zip(shown, labelled, strict=True))


def test_images_dropped_from_the_cache_are_read_again(filled, monkeypatch):
    store, rows = filled
    ids = [row["image_id"] for row in rows]
    monkeypatch.setattr("actors.judge.MAX_CACHED_PIXELS", 112 * 75)
    cache = judge.ImageCache(store, 112)
    first = cache.load(ids)
    assert list(cache.decoded) == ids[1:] and cache.num_pixels == 112 * 75
    assert all(np.array_equal(*pair) for pair in zip(first, cache.load(ids), strict=True))
    assert len(first) == len(ids) and cache.num_pixels == 112 * 75


def test_every_column_that_is_read_is_in_the_table():
    assert set(STORED) <= set(SCHEMAS["images"].names)
