"""The search service over fake systems: which system answers, what is counted, where paging ends."""

import asyncio
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from fake_service import PROMPT_AXIS, FakeService, fake_app, local_client

from actors.nulls.axis import Axis
from cluster.profile import Serve
from serve_app.errors import ApiError
from serve_app.feedback.signed_ids import SignedIds
from serve_app.models import search_request
from serve_app.search import paging, tastes
from serve_app.search.batched_search import ResultPage
from serve_app.search.beauty import Nulls
from serve_app.search.service import VARIANTS, Service
from serve_app.search.step_timer import StepTimer

VERSION = 4
MAX_WORDS = 3  # of a text that the fake encoders read
AXIS = Axis(np.array([1.0, 0.0], np.float32), 0.5)
NULLS = Nulls(", golden light", AXIS)
SIGNED_IDS = SignedIds(b"secret")
Request = search_request(["live", "baseline", *VARIANTS], 50)


class FakeSystems:
    """Systems by alias, each with an encoder of its own unless `encoders` says otherwise."""

    required = ("live", "baseline")
    names = ("live", "baseline", "candidate")

    def __init__(self, **encoders: str) -> None:
        encoders = encoders or {name: name for name in self.names}
        by_encoder = {encoder: fake_system(encoder) for encoder in encoders.values()}
        self.by_alias = {alias: by_encoder[encoder] for alias, encoder in encoders.items()}

    def get(self, alias):
        return self.by_alias[alias]

    def by_encoder(self, fingerprint):
        return next((one for one in self.by_alias.values() if one.fingerprint == fingerprint), None)

    def nulls(self, fingerprint):
        return NULLS if fingerprint == "baseline" else None

    def axis(self, system):
        return AXIS


def fake_system(fingerprint: str) -> SimpleNamespace:
    """A system with endless results: the image at each rank is named after the rank."""

    encoded, searched = [], []

    async def encode_text(text):
        encoded.append(text)
        if text == "break":
            raise ApiError(422, "broken", "Made to fail.")
        return np.ones(2, np.float32)

    async def search(item):
        vector, options = item
        searched.append(vector)
        ranks = range(options.offset, options.offset + options.k)
        rows = [{"image_id": str(rank), "score": 0.5, "vector": np.ones(2, np.float32)} for rank in ranks]
        return ResultPage(rows, VERSION)

    encoder = SimpleNamespace(dim=2, num_words_read=lambda text: min(len(text.split()), MAX_WORDS))
    return SimpleNamespace(
        fingerprint=fingerprint,
        encoder=encoder,
        encode_text=encode_text,
        search=search,
        axes={"brightness": np.array([0.0, 1.0], np.float32)},
        encoded=encoded,
        searched=searched,
    )


@dataclass
class FakeMetrics:
    """Records the counted searches and experiment arms."""

    searches: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)

    def observe(self, *args):
        pass

    def search(self, name):
        self.searches.append(name)

    def experiment(self, arm):
        self.arms.append(arm)


@pytest.fixture
def metrics():
    return FakeMetrics()


class FakeTeacher:
    """Rephrases every query in the same way."""

    async def rephrase(self, query: str, timer: StepTimer) -> str:
        return f"a photograph of {query}"


def service(metrics: FakeMetrics, systems: FakeSystems | None = None, **settings) -> Service:
    store = SimpleNamespace(open=lambda name: None)
    return Service(
        store,
        systems or FakeSystems(),
        Serve(**settings),
        metrics,
        signed_ids=SIGNED_IDS,
        teacher=FakeTeacher(),
        examples=["a"],
    )


def ask(searched: Service, **fields):
    return asyncio.run(searched.search(Request(**{"query": "a boat", "k": 5} | fields), "ada"))


def cursor(offset: int = 5, encoder: str = "live", **fields) -> str:
    digest = paging.digest(Request(**{"query": "a boat"} | fields))
    return paging.Cursor(encoder=encoder, version=VERSION, offset=offset, search=digest).encode()


def test_next_page_searches_the_version_of_the_first(metrics):
    searched = service(metrics)
    first = ask(searched)
    expected = paging.Cursor.model_validate(
        {"encoder": "live", "version": VERSION, "offset": 5, "search": paging.digest(Request(query="a boat"))}
    )
    assert first.next == expected.encode()
    assert [row["image_id"] for row in ask(searched, cursor=first.next).rows] == list("56789")


@pytest.mark.parametrize(
    ("offset", "has_next"),
    [(paging.MAX_OFFSET - 5, True), (paging.MAX_OFFSET - 4, False), (paging.MAX_OFFSET, False)],
)
def test_paging_ends_at_the_largest_offset(metrics, offset, has_next):
    answer = ask(service(metrics), cursor=cursor(offset))
    assert len(answer.rows) == 5 and bool(answer.next) == has_next


def test_forged_cursor_beyond_the_largest_offset_is_refused():
    forged = paging.Cursor.model_construct(
        encoder="live", version=1, offset=paging.MAX_OFFSET + 1, search="0"
    )
    with pytest.raises(ApiError) as refusal:
        paging.read(Request(query="a boat", cursor=forged.encode()))
    assert refusal.value.code == "bad_cursor"


def diverse(searched: Service, **fields):
    return ask(searched, diversity={"weight": 0.0, "num_candidates": 7}, **fields)


def test_diverse_pages_choose_from_the_candidates_of_the_first_page_for_any_k(metrics):
    searched = service(metrics)
    first = diverse(searched, k=3)
    second = diverse(searched, k=20, cursor=first.next)
    assert [row["image_id"] for row in (*first.rows, *second.rows)] == list("0123456")
    assert second.next == ""
    wide = diverse(searched, k=12)
    assert len(wide.rows) == 12 and wide.next == ""


def test_forged_cursor_gets_no_more_candidates_than_a_first_page(metrics):
    searched = service(metrics, max_k=9)
    request = Request(query="a boat", diversity={"weight": 0.0, "num_candidates": 7})
    cursor_fields = {"encoder": "live", "version": VERSION, "offset": 0, "search": paging.digest(request)}
    forged = paging.Cursor(**cursor_fields, num_candidates=10**9).encode()
    assert len(diverse(searched, k=50, cursor=forged).rows) == 9


def test_answer_says_how_many_words_of_query_and_negatives_were_read(metrics):
    searched = service(metrics)
    answer = ask(searched, query="one two three four five", negatives=["one", "a b c d"])
    assert (answer.query_words.given, answer.query_words.read) == (5, 3)
    assert [(words.given, words.read) for words in answer.negatives_words] == [(1, 1), (4, 3)]
    assert (ask(searched).query_words.read, ask(searched).negatives_words) == (2, [])


def test_only_answered_searches_are_counted(metrics):
    with pytest.raises(ApiError):
        ask(service(metrics), query="break")
    assert metrics.searches == []
    assert ask(service(metrics), system="baseline").system == "baseline"
    assert metrics.searches == ["baseline"]


def test_next_page_stays_in_the_arm_of_the_first_and_is_not_assigned_again(metrics):
    first = ask(service(metrics, experiment_share=1.0))
    assert (first.system, first.encoder, metrics.arms) == ("candidate", "candidate", ["candidate"])
    for share in (1.0, 0.0):  # the experiment may have ended between the pages
        second = ask(service(metrics, experiment_share=share), cursor=first.next)
        assert (second.system, second.encoder) == ("candidate", "candidate")
    assert metrics.arms == ["candidate"] and metrics.searches == ["candidate"] * 3


def test_page_keeps_the_requested_alias_if_several_name_its_encoder(metrics):
    searched = service(metrics, FakeSystems(live="one", baseline="one"))
    for name in ("live", "baseline"):
        assert ask(searched, system=name, cursor=cursor(encoder="one", system=name)).system == name


def test_page_of_a_closed_encoder_is_refused(metrics):
    with pytest.raises(ApiError) as refusal:
        ask(service(metrics), cursor=cursor(encoder="another"))
    assert (refusal.value.status_code, refusal.value.code) == (410, "page_expired")


# ---- from literal to beautiful, and the systems that search with the baseline's encoder in other ways

DIAGONAL = np.array([1, 1]) / np.sqrt(2)  # the query vector of every text


def normalised(x: float, y: float) -> np.ndarray:
    return np.array([x, y]) / np.hypot(x, y)


MOVED, MOVED_TWICE = (normalised(DIAGONAL[0] + by, DIAGONAL[1]) for by in (0.5, 1.0))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"system": "baseline", "beauty": 0.0}, DIAGONAL),
        ({"system": "baseline", "beauty": 2.0}, MOVED_TWICE),
        ({"system": "axis"}, MOVED),
        ({"system": "axis", "beauty": 1.0}, MOVED_TWICE),
        ({"system": "suffix", "beauty": 1.0}, MOVED),
        ({"system": "baseline", "negatives": ["c"], "beauty": 1.0}, MOVED),
        ({"system": "baseline", "diversity": {}, "beauty": 2.0}, MOVED_TWICE),
    ],
)
def test_beauty_moves_the_query_along_the_axis(metrics, fields, expected):
    systems = FakeSystems()
    ask(service(metrics, systems), **fields)
    np.testing.assert_allclose(systems.get("baseline").searched[-1], expected, atol=1e-6)


def test_beauty_moves_the_query_after_the_tastes_have_shifted_it(metrics):
    systems = FakeSystems()
    ask(service(metrics, systems), system="baseline", tastes={"brightness": 1.0}, beauty=1.0)
    tasted = normalised(1.0, 1.0 + tastes.REACH)
    expected = normalised(tasted[0] + 0.5, tasted[1])
    np.testing.assert_allclose(systems.get("baseline").searched[-1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("system", "text"), [("suffix", "a boat, golden light"), ("rephrase", "a photograph of a boat")]
)
def test_suffix_and_rephrase_search_for_other_words_on_every_page(metrics, system, text):
    systems = FakeSystems()
    searched = service(metrics, systems)
    first = ask(searched, system=system)
    second = ask(searched, system=system, cursor=first.next)
    assert systems.get("baseline").encoded == [text, text]
    assert (first.rephrased, first.query, first.system, first.encoder) == (text, "a boat", system, "baseline")
    assert [row["image_id"] for row in second.rows] == list("56789")


def test_suffix_and_axis_are_refused_if_no_encoder_was_aligned_from_the_baseline_with_them(metrics):
    systems = FakeSystems(baseline="another")
    for name in ("suffix", "axis"):
        with pytest.raises(ApiError) as refusal:
            ask(service(metrics, systems), system=name)
        assert (refusal.value.status_code, refusal.value.code) == (404, "no_such_system")
    assert service(metrics, systems).suffix is None
    assert service(metrics).suffix == ", golden light"


@pytest.mark.parametrize(
    ("fields", "signed"),
    [
        ({"system": "baseline"}, ("a boat", "baseline")),
        ({"system": "suffix"}, ("a boat", "baseline+suffix")),
        ({"system": "axis"}, ("a boat", "baseline+axis")),
        ({"system": "baseline", "beauty": 0.5}, ("", "baseline")),
    ],
)
def test_search_id_tells_a_variant_from_the_baseline_and_has_no_query_if_beauty_was_asked_for(
    metrics, fields, signed
):
    answer = ask(service(metrics), **fields)
    image_ids = [row["image_id"] for row in answer.rows]
    read = SIGNED_IDS.read(answer.search_id, image_ids, time.time())
    assert (read.query, read.encoder) == signed


class UnreachableSystem:
    """A system whose store does not respond."""

    record = SimpleNamespace(encoder="e" * 16, parent="")
    recall_at_10 = None
    prompt_axis = PROMPT_AXIS

    @property
    def num_rows(self):
        raise OSError("no such bucket")


def test_healthz_is_200_while_the_store_does_not_respond():
    fake = FakeService()
    fake.systems = {**fake.systems, "live": UnreachableSystem()}
    answer = local_client(fake_app(fake)).get("/healthz")
    assert answer.status_code == 200
    counts = {name: health["num_rows"] for name, health in answer.json()["systems"].items()}
    assert counts == {"live": None, "baseline": 30}
