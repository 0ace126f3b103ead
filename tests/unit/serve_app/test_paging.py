"""Pages of one search over a real table that changes between them."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from served import add_gallery

from actors.nulls.axis import Axis
from actors.retriever import Retriever
from cluster.profile import Serve
from cluster.tables import Store, embeddings_schema, embeddings_table
from serve_app.errors import ApiError
from serve_app.feedback.signed_ids import SignedIds
from serve_app.models import search_request
from serve_app.search import paging
from serve_app.search.batched_search import search_batch
from serve_app.search.service import Service
from serve_app.search.systems import COLUMNS

DIM = 40
ENCODER = "e" * 16
QUERY = np.linspace(1, 0.5, DIM).astype(np.float32)
AXIS = Axis(np.eye(DIM, dtype=np.float32)[7], 0.5)
Request = search_request(["live", "baseline"], 50)
DIVERSITY = [None, {"weight": 0.6, "num_candidates": 30}]


class Table:
    """A service over one table of `DIM` images, and what a test changes in the table."""

    def __init__(self, folder: str) -> None:
        self.store = Store(folder, fresh=True)
        self.image_ids = add_gallery(self.store, DIM, ENCODER, range(DIM))
        # Vectors that resemble each other, so that diversity reorders them.
        rng = np.random.default_rng(0)
        self.vectors = rng.normal(size=(DIM, DIM)).astype(np.float32) + 2 * QUERY
        self.write(self.image_ids, self.vectors)
        retriever = Retriever(self.store, ENCODER)

        async def encode_text(text):
            return QUERY

        async def search(item):
            (page,) = search_batch(retriever, COLUMNS, [item])
            if isinstance(page, Exception):
                raise page
            return page

        system = SimpleNamespace(
            fingerprint=ENCODER, encoder=SimpleNamespace(dim=DIM, num_words_read=len),
            encode_text=encode_text, search=search, axes={}, retriever=retriever,
        )  # fmt: skip
        self.systems = SimpleNamespace(
            by_alias={"live": system}, names=("live",), required=("live",), get=lambda alias: system,
            by_encoder=lambda fingerprint: system if fingerprint == ENCODER else None,
            axis=lambda system: AXIS,
        )  # fmt: skip
        metrics = SimpleNamespace(observe=lambda *args: None, search=lambda name: None)
        self.service = Service(
            self.store, self.systems, Serve(), metrics, signed_ids=SignedIds(b"s"), examples=["a"]
        )

    def write(self, image_ids, vectors):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = [
            {"image_id": image_id, "vector": vector, "caption": "", "width_px": 9, "height_px": 9,
             "aesthetic": 0.5}
            for image_id, vector in zip(image_ids, vectors, strict=True)
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, embeddings_schema(DIM))
        self.store.merge(embeddings_table(ENCODER), table, on=["image_id"])

    def page(self, cursor="", k=4, **fields):
        request = Request(**{"query": "boats", "k": k, "cursor": cursor} | fields)
        answer = asyncio.run(self.service.search(request, "ada"))
        return [row["image_id"] for row in answer.rows], answer.next

    def pages(self, cursor="", **fields):
        """All pages from this cursor on."""
        pages = []
        while cursor or not pages:
            ids, cursor = self.page(cursor, **fields)
            pages.append(ids)
        return pages


@pytest.fixture
def table(tmp_path):
    return Table(str(tmp_path / "store"))


@pytest.mark.parametrize("diversity", DIVERSITY)
@pytest.mark.parametrize("index", [0, 3, 4, 7, 8, 15])
def test_deleted_image_leaves_its_page_and_moves_no_other_image(table, diversity, index):
    before = table.pages(diversity=diversity)
    first, cursor = table.page(diversity=diversity)
    deleted = [image_id for page in before for image_id in page][index]
    table.store.delete_image(deleted)
    after = [first, *table.pages(cursor, diversity=diversity)]
    kept = [[image_id for image_id in page if image_id != deleted] for page in before[1:]]
    assert after == [before[0], *kept]


@pytest.mark.parametrize("beauty", [0.0, 1.0, 2.0])
def test_every_page_follows_the_query_that_moved_along_the_axis(table, beauty):
    scores = QUERY / np.linalg.norm(QUERY) + beauty * AXIS.strength * AXIS.direction  # of the unit vectors
    expected = [table.image_ids[row] for row in np.argsort(-scores, kind="stable")]
    assert (expected[0] == table.image_ids[7]) == (beauty > 0)
    assert [image_id for page in table.pages(beauty=beauty) for image_id in page] == expected


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_paging_continues_past_a_page_whose_images_were_all_deleted(table, diversity):
    before = table.pages(diversity=diversity)
    _, cursor = table.page(diversity=diversity)
    for image_id in before[1]:
        table.store.delete_image(image_id)
    assert table.pages(cursor, diversity=diversity) == [[], *before[2:]]


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_images_added_or_changed_between_pages_do_not_move_the_others(table, diversity):
    before = table.pages(diversity=diversity)
    _, cursor = table.page(diversity=diversity)
    table.write([f"{number:064x}" for number in range(5)], np.tile(QUERY, (5, 1)))
    table.write(table.image_ids[:3], np.tile(-QUERY, (3, 1)))
    assert table.pages(cursor, diversity=diversity) == before[1:]
    assert table.page(diversity=diversity)[0] != before[0]


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_deleted_image_that_was_added_again_returns_to_its_place(table, diversity):
    before = table.pages(diversity=diversity)
    _, cursor = table.page(diversity=diversity)
    for image_id in before[1]:
        table.store.delete_image(image_id)
    table.write(before[1], np.tile(QUERY, (len(before[1]), 1)))
    assert table.pages(cursor, diversity=diversity) == before[1:]


@pytest.mark.parametrize(
    "changes",
    [{"query": "ships"}, {"system": "baseline"}, {"filters": {"min_width_px": 1}}, {"negatives": ["people"]},
     {"diversity": {"weight": 0.1}}, {"image": {"image_id": "0" * 64}}, {"tastes": {"warmth": 0.1}},
     {"negative_weight": 0.1}, {"beauty": 0.5}],
)  # fmt: skip
def test_cursor_of_another_search_is_refused(table, changes):
    _, cursor = table.page(diversity=DIVERSITY[1])
    with pytest.raises(ApiError) as refused:
        table.page(cursor, **{"diversity": DIVERSITY[1]} | changes)
    assert (refused.value.status_code, refused.value.code) == (422, "other_search")


def test_page_of_a_version_that_does_not_exist_is_refused(table):
    _, cursor = table.page()
    read = paging.read(Request(query="boats", cursor=cursor))
    for version in (10**6, (1 << 62) - 1):
        with pytest.raises(ApiError) as refused:
            table.page(read.model_copy(update={"version": version}).encode())
        assert (refused.value.status_code, refused.value.code) == (410, "page_expired")


def test_page_after_the_encoder_was_replaced_is_refused(table):
    _, cursor = table.page()
    table.systems.by_encoder = lambda fingerprint: None
    with pytest.raises(ApiError) as refused:
        table.page(cursor)
    assert (refused.value.status_code, refused.value.code) == (410, "page_expired")
