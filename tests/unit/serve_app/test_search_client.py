"""The Python client and `kallos search`, over the real routes: they cover the whole OpenAPI document."""

import base64
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
from typing import get_type_hints

import httpx
import pytest
from fake_service import IMAGE_IDS, JPEG, FakeService, fake_app, http_server, local_client

from cluster.errors import UserError
from cluster.profile import ROOT, load_profile
from jobs import cli
from serve_app.client import job as search_job
from serve_app.client.__main__ import main
from serve_app.client.client import Client, ClientError, SearchFields, image_input
from serve_app.client.config import SearchConfig
from serve_app.client.job import address_of, search_fields
from serve_app.errors import ApiError
from serve_app.models import Diversity, Filters

KEY = "k" * 16


def transport_to(app):
    """An httpx transport that calls the app without a network."""
    test_client = local_client(app)

    def respond(request):
        response = test_client.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(response.status_code, headers=dict(response.headers), content=response.content)

    return httpx.MockTransport(respond)


def client(service=None, key="", **settings):
    return Client("http://localhost", key, transport=transport_to(fake_app(service, **settings)))


@pytest.fixture(scope="module")
def document():
    return fake_app(allow_delete=True).openapi()


def test_every_operation_has_a_client_method(document):
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


def test_every_request_field_is_a_client_parameter(document):
    schemas = document["components"]["schemas"]
    assert {"query", *get_type_hints(SearchFields)} == set(schemas["SearchRequest"]["properties"])
    assert set(inspect.signature(Client.searches).parameters) - {"self"} == set(
        schemas["SearchesRequest"]["properties"]
    )
    feedback = set(inspect.signature(Client.feedback).parameters) - {"self"}
    assert feedback == set(schemas["FeedbackRequest"]["properties"])
    why = {one["name"] for one in document["paths"]["/v1/images/{image_id}/why"]["get"]["parameters"]}
    assert why == set(inspect.signature(Client.why).parameters) - {"self"}


def test_search_sends_the_given_fields_and_no_others():
    service = FakeService()
    with client(service) as connected:
        response = connected.search("red boat", k=2)
        connected.search(
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
    assert [result.image_id for result in response.results] == IMAGE_IDS[:2]
    (plain, _), (rich, _) = service.searches
    assert plain.model_fields_set == {"query", "k"}
    assert rich.filters.tags_any == ["sea"] and rich.filters.min_width_px == 10
    assert (rich.diversity.weight, rich.tastes, rich.system) == (0.5, {"brightness": -0.5}, "baseline")
    assert rich.image.data == base64.b64encode(b"bytes").decode() and rich.negatives == ["people"]


def test_several_searches_are_answered_in_order():
    with client() as connected:
        answers = connected.searches([{"query": "a", "k": 1}, {"image": IMAGE_IDS[3], "filters": Filters()}])
    assert [answer.query for answer in answers] == ["a", ""]
    assert [len(answer.results) for answer in answers] == [1, 12]


def test_pages_yields_all_pages_in_order():
    with client() as connected:
        pages = list(connected.pages("boat", k=12))
    assert [len(page.results) for page in pages] == [12, 12, 6]
    assert [result.image_id for page in pages for result in page.results] == IMAGE_IDS


def test_image_may_be_a_path_bytes_an_id_or_a_url(tmp_path):
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


def test_other_client_methods():
    with client(allow_delete=True) as connected:
        assert connected.preview(IMAGE_IDS[0]) == JPEG
        assert connected.why(IMAGE_IDS[0], "boat").values == [[0.1, 0.2], [0.3, 0.4]]
        assert connected.delete(IMAGE_IDS[0]).num_rows == 3
        assert connected.examples().queries == ["a red boat"]
        assert connected.tastes().tastes[0].more == "brighter"
        assert connected.healthz().systems["live"].num_rows == 30
        assert connected.readyz().status == "ready"
        response = connected.feedback(
            "prefer", "search-1", IMAGE_IDS[:3], image_id=IMAGE_IDS[0], over=IMAGE_IDS[1]
        )
        assert (response.new, response.num_preferences) == (True, 2)


def test_refusal_raises_client_error_with_all_its_fields(tmp_path):
    (tmp_path / "keys").write_text(f"ann:{KEY}\n")
    with (
        client(keys_file=str(tmp_path / "keys")) as connected,
        pytest.raises(ClientError, match="401 key_missing"),
    ):
        connected.search("boat")
    with client(key=KEY, keys_file=str(tmp_path / "keys"), requests_per_minute=1) as connected:
        with pytest.raises(ClientError) as refusal:
            connected.search("boat", k=0)
        error = refusal.value
        assert (error.status, error.code, error.field) == (422, "k_out_of_range", "k")
        assert re.fullmatch("[0-9a-f]{32}", error.request_id) and error.retry_after_s is None
        with pytest.raises(ClientError) as refusal:
            connected.examples()
        assert refusal.value.code == "too_many_requests" and 1 <= refusal.value.retry_after_s <= 60


def test_error_page_of_a_proxy_raises_client_error():
    transport = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    with Client("http://server", transport=transport) as connected, pytest.raises(ClientError) as refusal:
        connected.healthz()
    assert (refusal.value.status, refusal.value.code) == (502, "error")


class Starting(FakeService):
    """Refuses the next `num_refusals` searches because the teacher is starting."""

    num_refusals = 2

    async def search(self, request, client):
        if self.num_refusals:
            self.num_refusals -= 1
            raise ApiError(503, "teacher_starting", "Starting.", headers={"Retry-After": "7"})
        return await super().search(request, client)


def test_search_waits_while_the_teacher_starts(monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    service = Starting()
    with client(service) as connected:
        assert connected.search("boat", k=1).query == "boat"
        service.num_refusals = 1
        assert len(connected.searches([{"query": "boat"}])) == 1
    assert waits == [7.0, 7.0, 7.0]


def test_search_does_not_wait_longer_than_start_limit_s():
    connected = Client("http://localhost", start_limit_s=5, transport=transport_to(fake_app(Starting())))
    with connected, pytest.raises(ClientError, match="teacher_starting"):
        connected.search("boat")


# ---- kallos search


@pytest.fixture
def service(monkeypatch):
    """The fake service that `kallos search` talks to."""
    service = FakeService()
    app = fake_app(service)
    plain = search_job.Client
    monkeypatch.setattr(
        search_job, "Client", lambda address, key: plain(address, key, transport=transport_to(app))
    )
    return service


def test_results_are_printed_as_a_table(service, capsys):
    main(["red boat", "-k", "3", "--negatives", "people", "dogs", "--system", "baseline"])
    out = capsys.readouterr().out
    for index, image_id in enumerate(IMAGE_IDS[:3]):
        row = next(line for line in out.splitlines() if f"picture {index} " in line)
        assert f"{1 - index / 100:.3f}" in row and image_id in row
        assert f"http://127.0.0.1:8000/v1/images/{image_id}/preview" in row
    request, _ = service.searches[0]
    assert (request.query, request.k, request.system) == ("red boat", 3, "baseline")
    assert request.negatives == ["people", "dogs"]


def test_texts_that_were_not_read_completely_are_named(service, capsys):
    main(["boat " * 50, "--negatives", "people", "dog " * 41])
    out = capsys.readouterr().out
    assert "The encoder read 40 of the 50 words of the query: shorten it." in out
    assert "The encoder read 40 of the 41 words of negative 2: shorten it." in out and "negative 1" not in out
    main(["boat " * 40])
    assert "shorten it" not in capsys.readouterr().out


def test_with_json_the_last_line_is_the_response(service, capsys):
    main(["--image", IMAGE_IDS[5], "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(answer["results"]) == 12 and answer["system"] == "live"
    assert service.searches[0][0].image.image_id == IMAGE_IDS[5]


def test_caption_is_printed_without_markup_or_control_characters(service, capsys, monkeypatch):
    real = FakeService.search

    async def hostile(self, request, client):
        answer = await real(self, request, client)
        answer.rows[0]["caption"] = "[red]x[/nothing] \x1b]0;title\x07"
        return answer

    monkeypatch.setattr(FakeService, "search", hostile)
    main(["boat", "-k", "1"])
    out = capsys.readouterr().out
    assert "[red]x[/nothing]" in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["boat", "--server", "http://127.0.0.1:9"], "There is no server at http://127.0.0.1:9 "),
        (["boat", "--server", "ftp://here"], "There is no server at ftp://here "),
        (["--image", "no/such/file.jpg"], "no/such/file.jpg"),
        (["boat", "--profile", "none"], "no profile 'none'"),
    ],
)
def test_users_mistake_is_reported_in_one_sentence(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kallos"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["search", *arguments])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("error: ") and "Traceback" not in err and out == ""


def test_refusal_of_the_server_is_reported_in_one_sentence(service, capsys):
    with pytest.raises(UserError, match="neither words nor an image"):
        search_job.run(SearchConfig())
    with pytest.raises(UserError, match="422 unknown_system"):
        search_job.run(SearchConfig(query="boat", system="none"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("fifo", "it is a FIFO"), (b"", "is empty"), ("folder", "it is a folder")],
)
def test_image_path_that_is_not_a_file_with_content_is_refused_before_the_search(
    content, reason, tmp_path, service
):
    path = tmp_path / "a.jpg"
    if content == "fifo":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"The image .*a.jpg' .*{reason}"):
        search_job.run(SearchConfig(image=str(path)))
    assert not service.searches


def answer(content: bytes, status="200 OK", **headers) -> bytes:
    """A response of HTTP/1.1."""
    headers = {"Content-Length": len(content), "Content-Type": "application/json"} | headers
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


NOT_KALLOS = {
    "a page": (answer(b"<html>"), r"The response \(application/json\) is not that of a Kallos server"),
    "half of the body": (answer(b"{", Content_Length=900), "sent no valid HTTP response"),
    "broken JSON": (answer(b'{"results": ['), "is not that of a Kallos server"),
    "broken compression": (answer(b"hello", Content_Encoding="gzip"), "sent no valid HTTP response"),
    "another protocol": (b"-ERR unknown command\r\n", "sent no valid HTTP response"),
    "nothing": (b"", "sent no valid HTTP response"),
    "a redirect": (answer(b"", "301 Moved", Location="https://other/"), "The server redirects to https://other/"),
    "an error of a proxy": (answer(b"oops", "503 Busy", Retry_After=12), "Busy.*; try again in 12 s"),
    "an error of another form": (answer(b'{"error": "x"}', "400 Bad"), "The server returned Bad"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_KALLOS)
def test_server_that_is_not_kallos_is_named_in_one_sentence(name):
    response, message = NOT_KALLOS[name]

    def respond():
        connection, _ = listener.accept()
        with connection:
            while not connection.recv(65536).endswith(b"}"):
                pass
            connection.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=respond)
        thread.start()
        with pytest.raises(UserError, match=message):
            search_job.run(SearchConfig(query="boat", server=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({"server": "http://[::1"}, {}, "No connection to .* is possible"),
        ({"server": "localhost:8000"}, {}, "There is no server at localhost:8000"),
        ({"server": "http://xn--ls8h.la"}, {}, "There is no server at"),
        ({"server": "http://" + "a" * 100_000}, {}, "^.{200,400}$"),
        ({}, {"HTTP_PROXY": "foo://"}, "the proxy in the environment"),
        ({}, {"KALLOS_KEY": "schl\u00fcssel"}, "^The API key has characters other than printable ASCII"),
        ({"key": "a\nb"}, {}, "^The API key has characters other than printable ASCII"),
        ({"query": "\udcff"}, {}, "bytes that are not UTF-8"),
        ({"negatives": ("\udcff",)}, {}, "bytes that are not UTF-8"),
    ],
)
def test_unusable_options_are_refused_in_one_sentence(options, variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        search_job.run(SearchConfig(**{"query": "boat", "server": "http://127.0.0.1:9", **options}))


def test_slow_server_is_named_in_one_sentence(monkeypatch):
    def wait(request):
        raise httpx.ReadTimeout("timed out", request=request)

    connected = Client("http://server", transport=httpx.MockTransport(wait))
    with (
        pytest.raises(UserError, match="http://server does not answer in time"),
        search_job.explained("http://server"),
    ):
        connected.search("boat")


def test_preview_that_cannot_be_drawn_is_replaced_by_its_address(service, capsys, monkeypatch):
    """The fake service's previews do not decode, as damaged ones in a store."""
    monkeypatch.setattr(search_job, "_picture_type", lambda: pytest.fail)
    monkeypatch.setattr(search_job.Console, "is_terminal", True)
    main(["boat", "-k", "1"])
    assert "/v1/images/" in capsys.readouterr().out


@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "table"])
def test_search_exits_quietly_when_the_reader_closes_the_pipe(form):
    """`kallos search boat | head -1`: status 141, as for any program that SIGPIPE ends, and no message."""
    with http_server(fake_app()) as address:
        words = [sys.executable, "-m", "serve_app.client", "boat", "--server", address, *form]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as child:
            child.stdout.close()
            assert (child.wait(60), child.stderr.read()) == (141, b"")


def test_missing_options_leave_the_defaults_to_the_server():
    assert search_fields(SearchConfig(query="boat")) == {}
    assert address_of(load_profile("mini").serve) == "http://127.0.0.1:8000"
