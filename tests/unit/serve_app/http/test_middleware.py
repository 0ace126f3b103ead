"""Middleware around the routes: security headers, keys, rate limit, body limits, request ids."""

import asyncio
import re
import time

import httpx
import pytest
import yaml
from fake_service import IMAGE_IDS, FakeService, fake_app, local_client
from starlette.responses import PlainTextResponse

from cluster.errors import UserError
from cluster.profile import PROFILES, ROOT, Serve, profile_names
from cluster.unavailable import SECURITY_HEADERS
from serve_app.config import ServeConfig, resolve_profile
from serve_app.http.keys import Keyring, check_exposure, is_loopback, read_keys
from serve_app.http.middleware import NUM_ADDRESS_GROUPS, WRONG_KEYS_PER_MINUTE, BodyLimit, rate_limit_group

KEY, OTHER = "k" * 16, "another-key-of-more-characters"
OPEN = ["/", "/docs", "/page/main.css", "/healthz", "/readyz", "/openapi.json"]
CLOSED = [
    ("POST", "/v1/search"), ("GET", "/v1/examples"), ("GET", f"/v1/images/{IMAGE_IDS[0]}/preview"),
    ("DELETE", f"/v1/images/{IMAGE_IDS[0]}"), ("POST", "/v1/feedback"), ("GET", "/nothing"), ("GET", "/page"),
]  # fmt: skip


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"# API keys\n\nann:{KEY}\n  bob : {OTHER} \n")
    return str(path)


def client(service=None, **settings):
    return local_client(fake_app(service, **settings), follow_redirects=False)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# ---- keys


def test_keys_file_is_read(keys_file):
    assert read_keys(keys_file) == {"ann": KEY, "bob": OTHER}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_keys_file_of_another_editor_is_read(tmp_path, encoding):
    (tmp_path / "keys").write_bytes(f"ann:{KEY}\r\nbob:{OTHER}\r\n".encode(encoding))
    assert read_keys(str(tmp_path / "keys")) == {"ann": KEY, "bob": OTHER}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f"ann:{KEY}\nbob\n", 2, "name:key"),
        (f"# all\n:{KEY}\n", 2, "name:key"),
        (f"an n:{KEY}\n", 1, "name:key"),
        ("ann:short\n", 1, "at least 16"),
        (f"ann:{KEY} {KEY}\n", 1, "without blanks"),
        (f"ann:{'ä' * 16}\n", 1, "ASCII"),
        (f"ann:{KEY}\nann:{OTHER}\n", 2, "was used before"),
        (f"ann:{KEY}\nbob:{KEY}\n", 2, "belongs to another name"),
    ],
)
def test_malformed_line_is_named_without_its_key(tmp_path, text, line, reason):
    path = tmp_path / "keys.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_keys(str(path))
    message = str(refused.value)
    assert f"{path}, line {line}:" in message and reason in message
    assert not any(key in message for key in (KEY, OTHER, "short", "ä"))


def test_missing_or_empty_keys_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"serve\.keys_file"):
        read_keys(str(tmp_path / "nothing"))
    (tmp_path / "empty").write_text("# empty\n")
    with pytest.raises(UserError, match="has no keys"):
        read_keys(str(tmp_path / "empty"))


def test_key_is_compared_with_every_key_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(b) or a == b)
    ring = Keyring({"ann": KEY, "bob": OTHER})
    assert [ring.name_of(key) for key in (KEY, OTHER, KEY[:-1], "")] == ["ann", "bob", "", ""]
    assert len(compared) == 8 and {len(digest) for digest in compared} == {32}


@pytest.mark.parametrize("path", OPEN)
def test_page_and_health_need_no_key(keys_file, path):
    assert client(keys_file=keys_file).get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_all_other_paths_need_a_key(keys_file, method, path):
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
    ("key", "sent_name", "expected"),
    [
        (OTHER, "", "bob"),
        (OTHER, "someone", "bob someone"),
        ("", "someone", "someone"),
        ("", "", "testclient"),
    ],
)
def test_client_name_combines_the_key_and_the_name_the_client_sends(keys_file, key, sent_name, expected):
    """Several people may share a page and its key."""
    service = FakeService()
    headers = {**(bearer(key) if key else {}), **({"X-Kallos-Client": sent_name} if sent_name else {})}
    connected = client(service, **({"keys_file": keys_file} if key else {}))
    assert connected.post("/v1/search", json={"query": "a"}, headers=headers).status_code == 200
    assert [name for _, name in service.searches] == [expected]
    event = {"kind": "click", "search_id": "search-1", "results": IMAGE_IDS[:1], "image_id": IMAGE_IDS[0]}
    assert connected.post("/v1/feedback", json=event, headers=headers).status_code == 200
    assert service.feedback_senders == [
        (expected, "key bob" if key else rate_limit_group({"client": ("testclient", 1)}))
    ]


def test_public_paths_stay_public_below_the_root_path_of_a_proxy(keys_file):
    behind_proxy = local_client(fake_app(keys_file=keys_file), root_path="/images")
    assert behind_proxy.get("/images/healthz").status_code == 200
    assert behind_proxy.get("/images/v1/examples").status_code == 401


def test_openapi_documents_keys_only_if_they_are_required(keys_file):
    document = client(keys_file=keys_file).get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/v1/search"]["post"]["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "securitySchemes" not in client().get("/openapi.json").json()["components"]


# ---- exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_hosts_need_no_keys(host):
    assert is_loopback(host)
    check_exposure(host, Serve())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "search.example", "localhost.example", ""])
def test_exposed_host_is_refused_without_keys(host, keys_file):
    with pytest.raises(UserError, match="--keys-file"):
        check_exposure(host, Serve())
    check_exposure(host, Serve(keys_file=keys_file))


def test_exposed_config_is_refused_before_anything_starts(keys_file, tmp_path):
    with pytest.raises(UserError, match=r"0\.0\.0\.0"):
        resolve_profile(ServeConfig(host="0.0.0.0"))
    assert resolve_profile(ServeConfig(host="0.0.0.0", keys_file=keys_file)).serve.keys_file == keys_file
    with pytest.raises(UserError, match="keys file"):
        resolve_profile(ServeConfig(keys_file=str(tmp_path / "nothing")))


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_yaml_exposes_no_port_without_keys(path):
    """Ray's dashboard stays local, and the search is exposed only with keys."""
    text = path.read_text(encoding="utf-8")
    assert re.search(r"dashboard.host|include.dashboard", text) is None
    values = yaml.safe_load(text)
    if "http_options" in values and not is_loopback(values["http_options"]["host"]):
        assert all(app["args"]["keys_file"] for app in values["applications"])


def test_shipped_profiles_listen_on_loopback():
    assert all(is_loopback(resolve_profile(ServeConfig(profile=name)).serve.host) for name in profile_names())
    assert len(list(PROFILES.glob("*.yaml"))) == len(profile_names())


# ---- the rate limit


def test_requests_over_the_limit_are_refused_with_retry_after():
    limited = client(requests_per_minute=3)
    statuses = [limited.get("/v1/examples").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refusal = limited.post("/v1/search", json={"query": "a"})
    assert refusal.json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(refusal.headers["retry-after"]) <= 60
    assert f"in {refusal.headers['retry-after']} s" in refusal.json()["error"]["message"]
    assert all(limited.get(path).status_code == 200 for path in OPEN)


def test_previews_are_not_rate_limited():
    limited = client(requests_per_minute=1)
    preview = f"/v1/images/{IMAGE_IDS[0]}/preview"
    assert [limited.get(preview).status_code for _ in "abc"] == [200, 200, 200]
    assert [limited.get("/v1/examples").status_code for _ in "ab"] == [200, 429]


def test_each_key_has_its_own_rate_limit(keys_file):
    limited = client(keys_file=keys_file, requests_per_minute=1)
    assert limited.get("/v1/examples", headers=bearer("x" * 16)).status_code == 401
    assert [limited.get("/v1/examples", headers=bearer(KEY)).status_code for _ in "ab"] == [200, 429]
    assert limited.get("/v1/examples", headers=bearer(OTHER)).status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("192.0.2.1", "192.0.2.2", 200),
        ("192.0.2.1", "192.0.2.1", 429),
        ("2001:db8::1", "2001:db8::ffff:2", 429),  # both are in one /64 network
        ("2001:db8::1", "2001:db8:0:1::1", 200),
    ],
)
def test_without_keys_the_rate_limit_is_per_address_not_per_sent_name(first, second, status):
    app = fake_app(requests_per_minute=1)
    statuses = [
        local_client(app, client=(host, 1)).get("/v1/examples", headers={"X-Kallos-Client": host}).status_code
        for host in (first, second)
    ]
    assert statuses == [200, status]


def test_addresses_take_bounded_memory_and_ipv4_and_ipv6_are_told_apart():
    hosts = [f"10.{a}.{b}.{c}" for a in range(8) for b in range(250) for c in range(20)]
    groups = {rate_limit_group({"client": (host, 1)}) for host in hosts}
    assert NUM_ADDRESS_GROUPS * 0.85 < len(groups) <= NUM_ADDRESS_GROUPS
    assert rate_limit_group({"client": None}) == rate_limit_group({"client": ("", 0)})


# ---- wrong keys


def statuses(app, host, keys, path="/v1/examples"):
    connected = local_client(app, client=(host, 1))
    return [connected.get(path, headers=bearer(key) if key else {}).status_code for key in keys]


GUESSES = [f"wrong-key-{number:06}" for number in range(WRONG_KEYS_PER_MINUTE)]


@pytest.mark.parametrize("path", ["/v1/examples", "/nothing", f"/v1/images/{IMAGE_IDS[0]}/preview"])
def test_address_that_guesses_keys_is_refused_before_its_key_is_checked(keys_file, path, monkeypatch):
    app = fake_app(keys_file=keys_file)
    assert set(statuses(app, "192.0.2.1", GUESSES, path)) == {401}
    checked = []
    monkeypatch.setattr(Keyring, "name_of", lambda ring, key: checked.append(key) or "")
    refused = local_client(app, client=("192.0.2.1", 1)).get(path, headers=bearer(KEY))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 60 and checked == []
    assert statuses(app, "192.0.2.1", ["", "x" * 16], path) == [429, 429]


def test_guesses_from_one_address_do_not_affect_other_addresses_and_public_paths(keys_file):
    app = fake_app(keys_file=keys_file)
    statuses(app, "2001:db8::1", GUESSES)
    assert statuses(app, "2001:db8::ffff", [KEY]) == [429]
    assert statuses(app, "2001:db8:1::1", [KEY, "x" * 16]) == [200, 401]
    assert statuses(app, "2001:db8::1", [""], "/healthz") == [200]


def test_requests_without_a_key_count_as_guesses_and_those_with_a_valid_key_do_not(keys_file):
    app = fake_app(keys_file=keys_file)
    assert set(statuses(app, "192.0.2.1", [KEY] * (2 * WRONG_KEYS_PER_MINUTE))) == {200}
    assert statuses(app, "192.0.2.1", ["", *GUESSES])[-2:] == [401, 429]


def test_guesses_through_a_proxy_on_this_machine_do_not_lock_out_its_other_clients(keys_file):
    app = fake_app(keys_file=keys_file)
    assert statuses(app, "127.0.0.1", [*GUESSES, "x" * 16, KEY, OTHER]) == [*[401] * 60, 429, 200, 200]


def test_window_of_guesses_ends_after_a_minute(keys_file, monkeypatch):
    app = fake_app(keys_file=keys_file)
    statuses(app, "192.0.2.1", [*GUESSES, KEY])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    assert statuses(app, "192.0.2.1", [KEY]) == [200]


# ---- the body


@pytest.mark.parametrize(("path", "num_bytes"), [("/v1/search", 400_000), ("/v1/feedback", 300_000)])
def test_body_declared_too_large_is_refused_unread(path, num_bytes):
    refused = client(max_upload_bytes=100_000).post(
        path, content=fail_if_read(), headers={"Content-Length": str(num_bytes)}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


def fail_if_read():
    raise AssertionError("the body was read")
    yield b""


def streamed(parts, **settings):
    headers = {"Content-Type": "application/json"}
    return client(**settings).post("/v1/search", content=iter(parts), headers=headers)


def test_streamed_body_over_the_limit_is_refused():
    parts = [b'{"image": {"data": "', *[b"A" * 1000] * 900, b'"}}']
    assert streamed(parts, max_upload_bytes=700_000).status_code == 200
    refused = streamed(parts, max_upload_bytes=400_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "start",
    [
        b'{"query": "',
        b'{"query": "a", "image": {"data": "QUJD", "url": "',
        b'{"im\\u0061ge": {"d\\u0061ta": "',
    ],
)
def test_body_without_an_image_is_refused_before_all_of_it_has_arrived(start):
    async def parts():
        yield start
        for _ in range(400):
            yield b"A" * 1000
        raise AssertionError("more was read than the limit of a body without an image")

    refused = stream(fake_app(), parts())
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
    assert "besides `image.data`" in refused.json()["error"]["message"]


def stream(app, parts):
    """The response to a search whose body arrives in these parts; `TestClient` would join them."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://[::1]") as connected:
            headers = {"Content-Type": "application/json"}
            return await connected.post("/v1/search", content=parts, headers=headers)

    return asyncio.run(run())


def test_slow_body_is_refused():
    app = fake_app()
    limits = next(one for one in app.user_middleware if one.cls is BodyLimit)
    limits.kwargs["timeout_s"] = 0.1

    async def slow():
        yield b'{"query": '
        await asyncio.sleep(5)

    refused = stream(app, slow())
    assert (refused.status_code, refused.json()["error"]["code"]) == (408, "body_too_slow")


def test_body_timeout_does_not_cut_off_a_slow_response():
    async def answer(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        disconnect = asyncio.create_task(receive())
        await asyncio.sleep(0.15)
        assert not disconnect.done()
        disconnect.cancel()
        await PlainTextResponse("done")(scope, receive, send)

    async def run():
        transport = httpx.ASGITransport(BodyLimit(answer, 100, timeout_s=0.05))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as behind:
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
def test_every_response_has_security_headers_and_a_request_id(keys_file, method, path, headers, status):
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
def test_valid_request_id_of_the_client_is_returned(given, kept):
    answer = client().get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) is kept


def test_request_id_of_the_proxy_is_not_returned_twice():
    from serve_app.http.api import make_api

    behind = local_client(make_api(FakeService(), Serve(), proxy_returns_id=True))
    assert "x-request-id" not in behind.get("/healthz", headers={"X-Request-ID": "from-the-proxy"}).headers
    assert "x-request-id" in behind.get("/healthz", headers={"X-Request-ID": "not an id"}).headers
