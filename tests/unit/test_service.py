"""A search's way through the service, over made-up systems: who answers, what counts, where paging ends."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from made_service import MadeService, asking, made_app

from cluster.profile import Serve
from serve_app.feedback.signed_ids import Tickets
from serve_app.http.errors import ApiError
from serve_app.http.models import search_request
from serve_app.search import paging
from serve_app.search.batched_search import Page
from serve_app.search.service import Service
from serve_app.search.teacher import TEACHER

VERSION = 4
Request = search_request(["live", "baseline", TEACHER], 50)


class Systems:
    """The aliases of a store, each of an encoder of its own or of one that is given."""

    required = ("live", "baseline")
    names = ("live", "baseline", "candidate")

    def __init__(self, **encoders: str) -> None:
        encoders = encoders or {name: name for name in self.names}
        made = {encoder: system(encoder) for encoder in encoders.values()}
        self.by_alias = {alias: made[encoder] for alias, encoder in encoders.items()}

    def get(self, alias):
        return self.by_alias[alias]

    def by_encoder(self, fingerprint):
        return next((one for one in self.by_alias.values() if one.fingerprint == fingerprint), None)


def system(fingerprint: str) -> SimpleNamespace:
    """It finds whatever is asked of it: each image is named by its place."""

    async def encode(text):
        if text == "break":
            raise ApiError(422, "broken", "Made to fail.")
        return np.ones(2, np.float32)

    async def find(item):
        places = range(item[1].offset, item[1].offset + item[1].k)
        vector = np.ones(2, np.float32)
        rows = [{"image_id": str(place), "score": 0.5, "vector": vector} for place in places]
        return Page(rows, VERSION)

    encoder = SimpleNamespace(dim=2)
    return SimpleNamespace(fingerprint=fingerprint, encoder=encoder, encode=encode, find=find, axes={})


@dataclass
class Counted:
    """Stands for `Metrics`."""

    searches: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)

    def observe(self, *told):
        pass

    def search(self, name):
        self.searches.append(name)

    def experiment(self, arm):
        self.arms.append(arm)


@pytest.fixture
def counted():
    return Counted()


def service(counted: Counted, systems: Systems | None = None, **settings) -> Service:
    store = SimpleNamespace(open=lambda name: None)
    tickets = Tickets(b"secret")
    return Service(store, systems or Systems(), Serve(**settings), counted, tickets=tickets, examples=["a"])


def ask(over: Service, **fields):
    return asyncio.run(over.search(Request(**{"query": "a boat", "k": 5} | fields), "ada"))


def cursor(offset: int = 5, encoder: str = "live", **fields) -> str:
    wanted = paging.digest(Request(**{"query": "a boat"} | fields))
    return paging.Cursor(encoder=encoder, version=VERSION, offset=offset, search=wanted).encode()


def test_the_next_page_is_of_the_version_that_was_searched(counted):
    over = service(counted)
    first = ask(over)
    wanted = paging.Cursor.model_validate(
        {"encoder": "live", "version": VERSION, "offset": 5, "search": paging.digest(Request(query="a boat"))}
    )
    assert first.next == wanted.encode()
    assert [row["image_id"] for row in ask(over, cursor=first.next).rows] == list("56789")


@pytest.mark.parametrize(
    ("offset", "more"),
    [(paging.MAX_OFFSET - 5, True), (paging.MAX_OFFSET - 4, False), (paging.MAX_OFFSET, False)],
)
def test_paging_ends_at_the_largest_offset(counted, offset, more):
    answer = ask(service(counted), cursor=cursor(offset))
    assert len(answer.rows) == 5 and bool(answer.next) == more


def test_a_forged_cursor_beyond_it_is_refused():
    forged = paging.Cursor.model_construct(
        encoder="live", version=1, offset=paging.MAX_OFFSET + 1, search="0"
    )
    with pytest.raises(ApiError) as refusal:
        paging.read(Request(query="a boat", cursor=forged.encode()))
    assert refusal.value.code == "bad_cursor"


def diverse(over: Service, **fields):
    return ask(over, diversity={"weight": 0.0, "num_candidates": 7}, **fields)


def test_a_diverse_search_chooses_from_the_images_of_its_first_page_whatever_k_becomes(counted):
    over = service(counted)
    first = diverse(over, k=3)
    second = diverse(over, k=20, cursor=first.next)
    assert [row["image_id"] for row in (*first.rows, *second.rows)] == list("0123456")
    assert second.next == ""
    wide = diverse(over, k=12)
    assert len(wide.rows) == 12 and wide.next == ""


def test_a_cursor_asks_for_no_more_images_than_a_first_page_can(counted):
    over = service(counted, max_k=9)
    asked = Request(query="a boat", diversity={"weight": 0.0, "num_candidates": 7})
    wanted = {"encoder": "live", "version": VERSION, "offset": 0, "search": paging.digest(asked)}
    forged = paging.Cursor(**wanted, num_candidates=10**9).encode()
    assert len(diverse(over, k=50, cursor=forged).rows) == 9


def test_only_searches_that_are_answered_are_counted(counted):
    with pytest.raises(ApiError):
        ask(service(counted), query="break")
    assert counted.searches == []
    assert ask(service(counted), system="baseline").system == "baseline"
    assert counted.searches == ["baseline"]


def test_a_next_page_is_answered_by_the_arm_of_the_first_and_drawn_no_more(counted):
    first = ask(service(counted, experiment_share=1.0))
    assert (first.system, first.encoder, counted.arms) == ("candidate", "candidate", ["candidate"])
    for share in (1.0, 0.0):  # the experiment may have ended meanwhile
        second = ask(service(counted, experiment_share=share), cursor=first.next)
        assert (second.system, second.encoder) == ("candidate", "candidate")
    assert counted.arms == ["candidate"] and counted.searches == ["candidate"] * 3


def test_a_page_has_the_name_that_was_asked_where_several_name_its_encoder(counted):
    over = service(counted, Systems(live="one", baseline="one"))
    for name in ("live", "baseline"):
        assert ask(over, system=name, cursor=cursor(encoder="one", system=name)).system == name


def test_a_page_of_an_encoder_that_is_gone_is_refused(counted):
    with pytest.raises(ApiError) as refusal:
        ask(service(counted), cursor=cursor(encoder="another"))
    assert (refusal.value.status_code, refusal.value.code) == (410, "page_expired")


class Away:
    """A system whose store does not answer."""

    record = SimpleNamespace(encoder="e" * 16, parent="")
    recall_at_10 = None

    @property
    def num_rows(self):
        raise OSError("no such bucket")


def test_the_server_lives_also_while_its_store_is_away():
    made = MadeService()
    made.systems = {**made.systems, "live": Away()}
    answer = asking(made_app(made)).get("/healthz")
    assert answer.status_code == 200
    counts = {name: told["num_rows"] for name, told in answer.json()["systems"].items()}
    assert counts == {"live": None, "baseline": 30}
