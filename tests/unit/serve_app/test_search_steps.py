"""The steps of a search: cursors, filters, diversity, tastes, batched index searches."""

import datetime
import io

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from fake_service import fake_app, local_client
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cluster.errors import UserError
from serve_app.errors import ApiError
from serve_app.models import Filters, search_request
from serve_app.search import filters, paging, tastes
from serve_app.search.batched_search import SearchOptions, search_batch
from serve_app.search.diversity import mmr

Request = search_request(["live", "baseline"], 50)


# ---- cursors


def test_cursor_survives_encoding_and_reading():
    request = Request(query="a boat", k=5)
    cursor = paging.Cursor(encoder="0" * 16, version=3, offset=5, search=paging.digest(request))
    assert paging.read(request) is None
    assert paging.read(Request(query="a boat", k=7, cursor=cursor.encode())) == cursor


@pytest.mark.parametrize("changes", [{"query": "a ship"}, {"system": "baseline"}, {"negatives": ["people"]}])
def test_cursor_of_another_search_is_refused(changes):
    cursor = paging.Cursor(
        encoder="0" * 16, version=3, offset=5, search=paging.digest(Request(query="a boat"))
    )
    with pytest.raises(ApiError) as refusal:
        paging.read(Request(**{"query": "a boat", "cursor": cursor.encode()} | changes))
    assert refusal.value.code == "other_search"


@given(st.text(min_size=1, max_size=60))
def test_malformed_cursor_is_refused(text):
    with pytest.raises(ApiError) as refusal:
        paging.read(Request(query="a boat", cursor=text))
    assert (refusal.value.status_code, refusal.value.code) == (422, "bad_cursor")


# ---- filters, on a real table

DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
ROWS = [
    {"id": 0, "tags": ["a", "it's"], "source": "x", "width_px": 10, "height_px": 20, "aesthetic": 0.2},
    {"id": 1, "tags": ["a", "b"], "source": "y", "width_px": 30, "height_px": 10, "aesthetic": 0.8},
    {"id": 2, "tags": [], "source": "x", "width_px": 50, "height_px": 50, "aesthetic": 0.5},
    {"id": 3, "tags": None, "source": "it's", "width_px": 70, "height_px": 70, "aesthetic": 0.9},
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    schema = pa.schema(
        {
            "id": pa.int64(),
            "tags": pa.list_(pa.string()),
            "source": pa.string(),
            "width_px": pa.int32(),
            "height_px": pa.int32(),
            "aesthetic": pa.float32(),
            "added_at": pa.timestamp("us", tz="UTC"),
        }
    )
    rows = [{**row, "added_at": DAY + datetime.timedelta(days=row["id"])} for row in ROWS]
    database = lancedb.connect(str(tmp_path_factory.mktemp("filters")))
    return database.create_table("rows", pa.Table.from_pylist(rows, schema))


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, [0, 1, 2, 3]),
        ({"tags_all": ["a"]}, [0, 1]),
        ({"tags_all": ["a", "b"]}, [1]),
        ({"tags_any": ["b", "it's"]}, [0, 1]),
        ({"tags_none": ["b"]}, [0, 2, 3]),
        ({"sources": ["x", "it's"]}, [0, 2, 3]),
        ({"min_width_px": 30, "max_width_px": 50}, [1, 2]),
        ({"min_height_px": 20, "max_height_px": 50}, [0, 2]),
        ({"added_from": DAY + datetime.timedelta(days=1)}, [1, 2, 3]),
        ({"added_before": (DAY + datetime.timedelta(days=1)).replace(tzinfo=None)}, [0]),
        ({"added_from": "1001-01-01T00:00:00+23:59"}, [0, 1, 2, 3]),
        ({"added_before": "9998-12-31T23:59:59-23:59"}, [0, 1, 2, 3]),
        ({"min_aesthetic": 0.8}, [1, 3]),
        ({"tags_all": ["' OR 1=1 --"]}, []),
        ({"sources": ["\\' OR true) --"]}, []),
    ],
)
def test_filters_select_the_matching_rows(table, given, expected):
    condition = filters.sql_condition(Filters(**given))
    query = table.search().where(condition) if condition else table.search()
    assert sorted(query.select(["id"]).to_arrow()["id"].to_pylist()) == expected


@pytest.mark.parametrize("name", ["added_from", "added_before"])
@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "1000-12-31T23:59:59", "0999-01-01T00:00:00Z"],
)
def test_years_that_sql_or_python_cannot_represent_are_refused(name, moment):
    answer = local_client(fake_app()).post("/v1/search", json={"query": "a boat", "filters": {name: moment}})
    message = f"`filters.{name}` must be in the years 1001 to 9998."
    assert answer.status_code == 422
    assert answer.json()["error"] == {"code": "invalid_value", "message": message, "field": f"filters.{name}"}


# ---- diversity


def test_weight_0_orders_by_score():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    scores = rng.random(20)
    assert mmr(scores, vectors, 20, 0.0) == np.argsort(-scores, kind="stable").tolist()


def test_duplicate_of_the_best_result_comes_last():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert mmr(np.array([0.9, 0.89, 0.3]), vectors, 3, 0.5) == [0, 2, 1]
    assert mmr(np.array([0.9, 0.89, 0.3]), vectors, 2, 0.0) == [0, 1]


def test_mmr_matches_a_naive_implementation():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(12, 3))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    scores, chosen = rng.random(12), []
    while len(chosen) < 6:
        remaining = [i for i in range(12) if i not in chosen]
        likeness = {i: max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0) for i in remaining}
        chosen.append(max(remaining, key=lambda i: 0.4 * scores[i] - 0.6 * likeness[i]))
    assert mmr(scores, vectors, 6, 0.6) == chosen


# ---- tastes


def jpeg(rgb: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_every_property_increases_towards_its_high_end():
    rng = np.random.default_rng(0)
    flat, noise = np.full((64, 64, 3), 120), rng.integers(60, 180, (64, 64, 3))
    red, blue = np.zeros((64, 64, 3)), np.zeros((64, 64, 3))
    red[..., 0], blue[..., 2] = 200, 200

    def measure(name: str, rgb: np.ndarray) -> float:
        return tastes.PROPERTIES[name].measure((rgb / 255).astype(np.float32))

    assert measure("brightness", flat + 80) > measure("brightness", flat)
    assert measure("colour", red) > measure("colour", flat)
    assert measure("calm", flat) > measure("calm", noise)
    assert measure("sharpness", noise) > measure("sharpness", flat)
    assert measure("warmth", red) > measure("warmth", blue)


def test_taste_shifts_the_query_towards_matching_images():
    levels = np.linspace(30, 220, 40)
    vectors = np.stack([np.cos(levels / 80), np.sin(levels / 80), np.full(40, 0.1)], axis=1)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    axes = tastes.fit([jpeg(np.full((32, 32, 3), level)) for level in levels], vectors)
    assert "brightness" in axes and np.linalg.norm(axes["brightness"]) == pytest.approx(1, abs=1e-5)
    query = vectors[20]
    brighter, darker = (tastes.shift(query, axes, {"brightness": amount}) for amount in (1.0, -1.0))
    assert (vectors @ brighter).argmax() > 20 > (vectors @ darker).argmax()
    assert tastes.shift(query, axes, {}) is query


def test_image_without_a_readable_preview_does_not_count_for_tastes():
    levels = np.linspace(20, 230, 8)
    previews = [jpeg(np.full((32, 32, 3), level)) for level in levels]
    vectors = np.stack([levels, np.ones(8)], axis=1).astype(np.float32)
    spoilt = tastes.fit([b"no image", *previews], np.concatenate([[[9.0, 9.0]], vectors]))
    assert np.array_equal(spoilt["brightness"], tastes.fit(previews, vectors)["brightness"])


def test_equal_images_give_no_tastes():
    assert tastes.fit([jpeg(np.full((32, 32, 3), 90))] * 3, np.eye(3, dtype=np.float32)) == {}


# ---- batched index searches


class FakeRetriever:
    """Finds for each vector an image named after its sum. Version 7 does not exist.

    `versions`: the values that `version` returns in turn; the last one stays.
    """

    def __init__(self, *versions):
        self.calls, self.searched_versions = [], []
        self.versions = list(versions or [3])

    @property
    def version(self):
        return self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]

    def search(self, vectors, k, where="", columns=(), *, offset=0, version=None, with_vectors=False):
        self.calls.append((len(vectors), k, where))
        self.searched_versions.append(version)
        if version == 7:
            raise UserError("version 7 is gone")
        return [[{"image_id": str(vector.sum()), "k": k}] for vector in vectors]


def test_equal_options_share_a_call_and_errors_stay_with_their_options():
    retriever = FakeRetriever()
    options = [
        SearchOptions(5),
        SearchOptions(5),
        SearchOptions(9),
        SearchOptions(5, version=7),
        SearchOptions(5),
    ]
    items = [(np.full(2, index, np.float32), each) for index, each in enumerate(options)]
    results = search_batch(retriever, ("caption",), items)
    assert sorted(retriever.calls) == [(1, 5, ""), (1, 9, ""), (3, 5, "")]
    pages = [page for index, page in enumerate(results) if index != 3]
    assert [page.rows[0]["image_id"] for page in pages] == ["0.0", "2.0", "4.0", "8.0"]
    assert isinstance(results[3], UserError)


@pytest.mark.parametrize(
    ("versions", "options", "searched", "reported"),
    [
        ((4, 4), SearchOptions(5), [None], 4),
        ((4, 5), SearchOptions(5), [None, 5], 5),  # the table was written to during the search
        ((4, 5), SearchOptions(5, version=2), [2], 2),
    ],
)
def test_page_reports_the_version_that_was_searched(versions, options, searched, reported):
    retriever = FakeRetriever(*versions)
    (page,) = search_batch(retriever, (), [(np.zeros(2, np.float32), options)])
    assert (page.version, retriever.searched_versions) == (reported, searched)
