"""What stands before the routes: security headers, keys, the rate limit, limits of the body, request ids."""

import asyncio
import re

import httpx
import pytest
import yaml
from fake_service import IMAGE_IDS, MadeService, asking, made_app
from starlette.responses import PlainTextResponse

from cluster.errors import UserError
from cluster.profile import PROFILES, ROOT, Serve, profile_names
from serve_app.config import ServeConfig, resolve_profile
from serve_app.http.keys import Keyring, check_exposure, is_loopback, read_keys
from serve_app.http.middleware import SECURITY_HEADERS, BodyLimit

KEY, OTHER = "k" * 16, "another-key-of-more-characters"
OPEN = ["/", "/docs", "/page/kallos.css", "/healthz", "/readyz", "/openapi.json"]
CLOSED = [
    ("POST", "/v1/search"), ("GET", "/v1/examples"), ("GET", f"/v1/images/{IMAGE_IDS[0]}/preview"),
    ("DELETE", f"/v1/images/{IMAGE_IDS[0]}"), ("POST", "/v1/feedback"), ("GET", "/nothing"), ("GET", "/page"),
]  # fmt: skip


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"# who may ask\n\nann:{KEY}\n  bob : {OTHER} \n")
    return str(path)


def client(service=None, **settings):
    return asking(made_app(service, **settings), follow_redirects=False)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# ---- keys


def test_a_keys_file_is_read(keys_file):
    assert read_keys(keys_file) == {"ann": KEY, "bob": OTHER}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"ann:{KEY}\nbob\n", 2, "name:key"),
        (f"# all\n:{KEY}\n", 2, "name:key"),
        (f"an n:{KEY}\n", 1, "name:key"),
        ("ann:short\n", 1, "at least 16"),
        (f"ann:{KEY} {KEY}\n", 1, "without blanks"),
        (f"ann:{'ä' * 16}\n", 1, "ASCII"),
        (f"ann:{KEY}\nann:{OTHER}\n", 2, "twice"),
        (f"ann:{KEY}\nbob:{KEY}\n", 2, "another name"),
    ],
)
def test_a_bad_line_is_named_and_its_key_is_not_shown(tmp_path, text, line, words):
    path = tmp_path / "keys.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_keys(str(path))
    told = str(refused.value)
    assert f"{path}, line {line}:" in told and words in told
    assert not any(key in told for key in (KEY, OTHER, "short", "ä"))


def test_a_keys_file_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"serve\.keys_file"):
        read_keys(str(tmp_path / "nothing"))
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(UserError, match="holds no key"):
        read_keys(str(tmp_path / "empty"))


def test_a_key_is_compared_with_every_key(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    ring = Keyring({"ann": KEY, "bob": OTHER})
    assert [ring.name_of(key) for key in (KEY, OTHER, KEY[:-1], "")] == ["ann", "bob", "", ""]
    assert len(compared) == 8 and {len(digest) for digest in compared} == {32}


@pytest.mark.parametrize("path", OPEN)
def test_the_page_and_the_states_need_no_key(keys_file, path):
    assert client(keys_file=keys_file).get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_everything_else_needs_a_key(keys_file, method, path):
    with_keys = client(keys_file=keys_file)
    for headers, code in [
        ({}, "key_missing"),
        ({"Authorization": KEY}, "key_missing"),
        (bearer(""), "key_missing"),
        (bearer("x" * 16), "key_wrong"),
        ({"Authorization": f"Basic {KEY}"}, "key_wrong"),
        ({"Authorization": b"Bearer \xe4\xff"}, "key_wrong"),
    ]:
        answer = with_keys.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert with_keys.request(method, path, headers=bearer(KEY)).status_code != 401


@pytest.mark.parametrize(
    ("key", "named", "expected"),
    [
        (OTHER, "", "bob"),
        (OTHER, "someone", "bob someone"),
        ("", "someone", "someone"),
        ("", "", "testclient"),
    ],
)
def test_who_asks_is_the_key_and_what_the_client_calls_itself(keys_file, key, named, expected):
    """Several people may share a page and its key."""
    service = MadeService()
    headers = {**(bearer(key) if key else {}), **({"X-Kallos-Client": named} if named else {})}
    over = client(service, **({"keys_file": keys_file} if key else {}))
    assert over.post("/v1/search", json={"query": "a"}, headers=headers).status_code == 200
    assert [who for _, who in service.asked] == [expected]
    event = {"kind": "click", "search_id": "search-1", "results": IMAGE_IDS[:1], "image_id": IMAGE_IDS[0]}
    assert over.post("/v1/feedback", json=event, headers=headers).status_code == 200
    assert service.told == [(expected, "key bob" if key else "testclient")]


def test_below_a_path_that_a_proxy_cuts_off_the_same_paths_are_open(keys_file):
    below = asking(made_app(keys_file=keys_file), root_path="/images")
    assert below.get("/images/healthz").status_code == 200
    assert below.get("/images/v1/examples").status_code == 401


def test_openapi_tells_that_a_key_is_needed_only_where_it_is(keys_file):
    document = client(keys_file=keys_file).get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/v1/search"]["post"]["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "securitySchemes" not in client().get("/openapi.json").json()["components"]


# ---- where it listens


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine_alone_needs_no_keys(host):
    assert is_loopback(host)
    check_exposure(host, Serve())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "search.example", "localhost.example", ""])
def test_listening_beyond_this_machine_is_refused_without_keys(host, keys_file):
    with pytest.raises(UserError, match="--keys-file"):
        check_exposure(host, Serve())
    check_exposure(host, Serve(keys_file=keys_file))


def test_the_command_line_is_refused_before_anything_starts(keys_file, tmp_path):
    with pytest.raises(UserError, match=r"0\.0\.0\.0"):
        resolve_profile(ServeConfig(host="0.0.0.0"))
    assert resolve_profile(ServeConfig(host="0.0.0.0", keys_file=keys_file)).serve.keys_file == keys_file
    with pytest.raises(UserError, match="keys file"):
        resolve_profile(ServeConfig(keys_file=str(tmp_path / "nothing")))


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").rglob("*.yaml")), ids=lambda path: path.name)
def test_nothing_that_is_shipped_opens_a_port_to_others(path):
    """Nobody reaches Ray's dashboard from elsewhere, and the search only where it asks for a key."""
    text = path.read_text(encoding="utf-8")
    assert re.search(r"dashboard.host|include.dashboard", text) is None
    values = yaml.safe_load(text)
    if "http_options" in values and not is_loopback(values["http_options"]["host"]):
        assert all(app["args"]["keys_file"] for app in values["applications"])


def test_every_shipped_profile_listens_on_this_machine():
    assert all(is_loopback(resolve_profile(ServeConfig(profile=name)).serve.host) for name in profile_names())
    assert len(list(PROFILES.glob("*.yaml"))) == len(profile_names())


# ---- the rate limit


def test_too_many_requests_are_refused_until_the_window_moves_on():
    limited = client(requests_per_minute=3)
    statuses = [limited.get("/v1/examples").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = limited.post("/v1/search", json={"query": "a"})
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert f"in {refused.headers['retry-after']} s" in refused.json()["error"]["message"]
    assert all(limited.get(path).status_code == 200 for path in OPEN)


def test_previews_are_not_counted():
    limited = client(requests_per_minute=1)
    preview = f"/v1/images/{IMAGE_IDS[0]}/preview"
    assert [limited.get(preview).status_code for _ in "abc"] == [200, 200, 200]
    assert [limited.get("/v1/examples").status_code for _ in "ab"] == [200, 429]


def test_each_key_has_its_own_limit(keys_file):
    limited = client(keys_file=keys_file, requests_per_minute=1)
    assert limited.get("/v1/examples", headers=bearer("x" * 16)).status_code == 401
    assert [limited.get("/v1/examples", headers=bearer(KEY)).status_code for _ in "ab"] == [200, 429]
    assert limited.get("/v1/examples", headers=bearer(OTHER)).status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("192.0.2.1", "192.0.2.2", 200),
        ("192.0.2.1", "192.0.2.1", 429),
        ("2001:db8::1", "2001:db8::ffff:2", 429),  # one site has 2^64 of them
        ("2001:db8::1", "2001:db8:0:1::1", 200),
    ],
)
def test_without_keys_the_address_counts_and_not_what_a_client_calls_itself(first, second, status):
    app = made_app(requests_per_minute=1)
    got = [
        asking(app, client=(host, 1)).get("/v1/examples", headers={"X-Kallos-Client": host}).status_code
        for host in (first, second)
    ]
    assert got == [200, status]


# ---- the body


def test_a_body_that_is_declared_too_large_is_refused_unread():
    refused = client(max_upload_bytes=0).post(
        "/v1/search", content=unread(), headers={"Content-Length": "70000"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


def unread():
    raise AssertionError("the body was read")
    yield b""


def test_a_body_that_turns_out_too_large_is_refused():
    parts = (b" " * 1000 for _ in range(70))
    refused = client(max_upload_bytes=0).post(
        "/v1/search", content=parts, headers={"Content-Type": "application/json"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


def test_a_body_that_comes_too_slowly_is_refused():
    app = made_app()
    limits = next(one for one in app.user_middleware if one.cls is BodyLimit)
    limits.kwargs["timeout_s"] = 0.1

    async def slow():
        yield b'{"query": '
        await asyncio.sleep(5)

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://[::1]") as slowly:
            return await slowly.post(
                "/v1/search", content=slow(), headers={"Content-Type": "application/json"}
            )

    refused = asyncio.run(run())
    assert (refused.status_code, refused.json()["error"]["code"]) == (408, "body_too_slow")


def test_a_slow_answer_to_a_body_that_has_arrived_is_not_cut_off():
    async def answer(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        gone = asyncio.create_task(receive())
        await asyncio.sleep(0.15)
        assert not gone.done()
        gone.cancel()
        await PlainTextResponse("done")(scope, receive, send)

    async def run():
        transport = httpx.ASGITransport(BodyLimit(answer, 100, timeout_s=0.05))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as behind:
            return await behind.post("/", content=b"body")

    assert asyncio.run(run()).text == "done"


# ---- headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/page/favicon.svg", {"If-None-Match": "*"}, 304),
        ("GET", "/nothing", bearer(KEY), 404),
        ("PUT", "/v1/search", bearer(KEY), 405),
        ("GET", "/v1/examples/", bearer(KEY), 307),
        ("GET", "/v1/examples", {}, 401),
        ("POST", "/v1/search", {**bearer(KEY), "Content-Length": "99999999"}, 413),
        ("POST", "/v1/search", bearer(KEY), 415),
        ("BREAK", "/v1/search", {**bearer(KEY), "Content-Type": "application/json"}, 500),
    ],
)
def test_every_answer_has_the_security_headers_and_an_id(keys_file, method, path, headers, status):
    content = b'{"query": "break"}' if method == "BREAK" else None
    verb = method.replace("BREAK", "POST")
    answer = client(keys_file=keys_file).request(verb, path, headers=headers, content=content)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a-b_c.D9", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a b", False), ("ä", False)],
)
def test_a_request_id_of_the_client_is_returned_where_it_is_one(given, kept):
    answer = client().get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) is kept


def test_an_id_that_the_proxy_returns_itself_is_not_returned_twice():
    from serve_app.http.api import make_api

    behind = asking(make_api(MadeService(), Serve(), proxy_returns_id=True))
    assert "x-request-id" not in behind.get("/healthz", headers={"X-Request-ID": "from-the-proxy"}).headers
    assert "x-request-id" in behind.get("/healthz", headers={"X-Request-ID": "not an id"}).headers
