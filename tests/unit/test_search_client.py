"""The client and `kallos search`: everything that the OpenAPI document offers, over the real routes."""

import base64
import inspect
import json
import re
import sys
from typing import get_type_hints

import httpx
import pytest
from fake_service import IMAGE_IDS, JPEG, MadeService, made_app
from fake_service import asking as asking_app

from cluster.errors import UserError
from cluster.profile import load_profile
from jobs import cli
from serve_app.client import job as search_verb
from serve_app.client.__main__ import main
from serve_app.client.client import Client, ClientError, SearchFields, image_input
from serve_app.client.config import SearchConfig
from serve_app.client.job import address_of, fields
from serve_app.errors import ApiError
from serve_app.models import Diversity, Filters

KEY = "k" * 16


def over(app):
    """A transport to the app, without a network."""
    within = asking_app(app)

    def answer(request):
        got = within.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(got.status_code, headers=dict(got.headers), content=got.content)

    return httpx.MockTransport(answer)


def client(service=None, key="", **settings):
    return Client("http://localhost", key, transport=over(made_app(service, **settings)))


@pytest.fixture(scope="module")
def document():
    return made_app(allow_delete=True).openapi()


def test_every_operation_has_a_method(document):
    operations = {path.rpartition("/")[2] or path: path for path in document["paths"]}
    names = {"delete" if name.startswith("{") else name for name in operations}
    assert names == {
        "search",
        "examples",
        "tastes",
        "feedback",
        "healthz",
        "readyz",
        "preview",
        "why",
        "delete",
    }
    assert all(callable(getattr(Client, name)) for name in names)
    assert sum(len(verbs) for verbs in document["paths"].values()) == len(names)


def test_every_field_of_a_request_is_a_parameter(document):
    schemas = document["components"]["schemas"]
    assert {"query", *get_type_hints(SearchFields)} == set(schemas["SearchRequest"]["properties"])
    assert set(inspect.signature(Client.searches).parameters) - {"self"} == set(
        schemas["SearchesRequest"]["properties"]
    )
    feedback = set(inspect.signature(Client.feedback).parameters) - {"self"}
    assert feedback == set(schemas["FeedbackRequest"]["properties"])
    why = {one["name"] for one in document["paths"]["/v1/images/{image_id}/why"]["get"]["parameters"]}
    assert why == set(inspect.signature(Client.why).parameters) - {"self"}


def test_a_search_carries_what_was_given_and_nothing_else():
    service = MadeService()
    with client(service) as asking:
        found = asking.search("red boat", k=2)
        asking.search(
            "red boat",
            image=b"bytes",
            image_weight=0.25,
            negatives=["people"],
            negative_weight=0.75,
            tastes={"brightness": -0.5},
            filters=Filters(tags_any=["sea"], min_width_px=10),
            diversity=Diversity(weight=0.5),
            system="baseline",
        )
    assert [result.image_id for result in found.results] == IMAGE_IDS[:2]
    (plain, _), (rich, _) = service.asked
    assert plain.model_fields_set == {"query", "k"}
    assert rich.filters.tags_any == ["sea"] and rich.filters.min_width_px == 10
    assert (rich.diversity.weight, rich.tastes, rich.system) == (0.5, {"brightness": -0.5}, "baseline")
    assert rich.image.data == base64.b64encode(b"bytes").decode() and rich.negatives == ["people"]


def test_several_searches_are_answered_in_their_order():
    with client() as asking:
        answers = asking.searches([{"query": "a", "k": 1}, {"image": IMAGE_IDS[3], "filters": Filters()}])
    assert [answer.query for answer in answers] == ["a", ""]
    assert [len(answer.results) for answer in answers] == [1, 12]


def test_pages_come_one_after_the_other_until_the_last():
    with client() as asking:
        pages = list(asking.pages("boat", k=12))
    assert [len(page.results) for page in pages] == [12, 12, 6]
    assert [result.image_id for page in pages for result in page.results] == IMAGE_IDS


def test_an_image_is_a_file_bytes_an_id_or_a_url(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"file")
    data = {"data": base64.b64encode(b"file").decode()}
    assert (
        image_input(tmp_path / "a.jpg")
        == image_input(str(tmp_path / "a.jpg"))
        == image_input(b"file")
        == data
    )
    assert image_input(IMAGE_IDS[0]) == {"image_id": IMAGE_IDS[0]}
    assert image_input("https://a.example/b.jpg") == {"url": "https://a.example/b.jpg"}


def test_what_else_there_is_to_ask():
    with client(allow_delete=True) as asking:
        assert asking.preview(IMAGE_IDS[0]) == JPEG
        assert asking.why(IMAGE_IDS[0], "boat").values == [[0.1, 0.2], [0.3, 0.4]]
        assert asking.delete(IMAGE_IDS[0]).num_rows == 3
        assert asking.examples().queries == ["a red boat"]
        assert asking.tastes().tastes[0].more == "brighter"
        assert asking.healthz().systems["live"].num_rows == 30
        assert asking.readyz().status == "ready"
        told = asking.feedback("prefer", "search-1", IMAGE_IDS[:3], image_id=IMAGE_IDS[0], over=IMAGE_IDS[1])
        assert (told.new, told.num_preferences) == (True, 2)


def test_a_refusal_is_an_error_with_all_that_the_server_said(tmp_path):
    (tmp_path / "keys").write_text(f"ann:{KEY}\n")
    with (
        client(keys_file=str(tmp_path / "keys")) as asking,
        pytest.raises(ClientError, match="401 key_missing"),
    ):
        asking.search("boat")
    with client(key=KEY, keys_file=str(tmp_path / "keys"), requests_per_minute=1) as asking:
        with pytest.raises(ClientError) as refusal:
            asking.search("boat", k=0)
        error = refusal.value
        assert (error.status, error.code, error.field) == (422, "k_out_of_range", "k")
        assert re.fullmatch("[0-9a-f]{32}", error.request_id) and error.retry_after_s is None
        with pytest.raises(ClientError) as refusal:
            asking.examples()
        assert refusal.value.code == "too_many_requests" and 1 <= refusal.value.retry_after_s <= 60


def test_a_refusal_by_something_in_between_is_an_error_too():
    transport = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    with Client("http://here", transport=transport) as asking, pytest.raises(ClientError) as refusal:
        asking.healthz()
    assert (refusal.value.status, refusal.value.code) == (502, "error")


class Starting(MadeService):
    """Its teacher starts for as many questions as `left`."""

    left = 2

    async def search(self, request, client):
        if self.left:
            self.left -= 1
            raise ApiError(503, "teacher_starting", "It starts.", headers={"Retry-After": "7"})
        return await super().search(request, client)


def test_a_search_waits_while_the_teacher_starts(monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    service = Starting()
    with client(service) as asking:
        assert asking.search("boat", k=1).query == "boat"
        service.left = 1
        assert len(asking.searches([{"query": "boat"}])) == 1
    assert waits == [7.0, 7.0, 7.0]


def test_it_does_not_wait_beyond_the_limit():
    asking = Client("http://localhost", start_limit_s=5, transport=over(made_app(Starting())))
    with asking, pytest.raises(ClientError, match="teacher_starting"):
        asking.search("boat")


# ---- the verb


@pytest.fixture
def served(monkeypatch):
    """Every client talks to one made service; holds what it was asked."""
    service = MadeService()
    app = made_app(service)
    plain = search_verb.Client
    monkeypatch.setattr(search_verb, "Client", lambda address, key: plain(address, key, transport=over(app)))
    return service


def test_a_table_shows_what_was_found(served, capsys):
    main(["red boat", "-k", "3", "--negatives", "people", "dogs", "--system", "baseline"])
    out = capsys.readouterr().out
    for place, image_id in enumerate(IMAGE_IDS[:3]):
        row = next(line for line in out.splitlines() if f"picture {place} " in line)
        assert f"{1 - place / 100:.3f}" in row and image_id in row
        assert f"http://127.0.0.1:8000/v1/images/{image_id}/preview" in row
    request, _ = served.asked[0]
    assert (request.query, request.k, request.system) == ("red boat", 3, "baseline")
    assert request.negatives == ["people", "dogs"]


def test_the_last_line_is_the_answer_as_json(served, capsys):
    main(["--image", IMAGE_IDS[5], "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(answer["results"]) == 12 and answer["system"] == "live"
    assert served.asked[0][0].image.image_id == IMAGE_IDS[5]


def test_words_of_a_caption_are_no_commands(served, capsys, monkeypatch):
    real = MadeService.search

    async def hostile(self, request, client):
        found = await real(self, request, client)
        found.rows[0]["caption"] = "[red]x[/nothing] \x1b]0;title\x07"
        return found

    monkeypatch.setattr(MadeService, "search", hostile)
    main(["boat", "-k", "1"])
    out = capsys.readouterr().out
    assert "[red]x[/nothing]" in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["boat", "--server", "http://127.0.0.1:9"], "Nothing answers at http://127.0.0.1:9 "),
        (["boat", "--server", "ftp://here"], "Nothing answers at ftp://here "),
        (["--image", "no/such/file.jpg"], "no/such/file.jpg"),
        (["boat", "--profile", "none"], "no profile 'none'"),
    ],
)
def test_a_users_mistake_is_one_sentence(words, told, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kallos"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["search", *words])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert told in err and err.startswith("error: ") and "Traceback" not in err and out == ""


def test_a_refusal_of_the_server_is_one_sentence(served, capsys):
    with pytest.raises(UserError, match="asks for nothing"):
        search_verb.run(SearchConfig())
    with pytest.raises(UserError, match="422 unknown_system"):
        search_verb.run(SearchConfig(query="boat", system="none"))


def test_nothing_given_leaves_the_defaults_to_the_server():
    assert fields(SearchConfig(query="boat")) == {}
    assert address_of(load_profile("mini").serve) == "http://127.0.0.1:8000"
