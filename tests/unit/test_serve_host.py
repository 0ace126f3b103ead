"""Without keys only what is asked of this machine by its own names is answered: no page elsewhere may ask."""

import pytest
from made_service import IMAGE_IDS, asking, made_app

KEY = "k" * 16
PATHS = [
    ("GET", "/"), ("GET", "/docs"), ("GET", "/page/kallos.css"), ("GET", "/healthz"), ("GET", "/readyz"),
    ("GET", "/openapi.json"), ("POST", "/v1/search"), ("POST", "/v1/feedback"), ("GET", "/nothing"),
    ("GET", f"/v1/images/{IMAGE_IDS[0]}/preview"), ("DELETE", f"/v1/images/{IMAGE_IDS[0]}"),
]  # fmt: skip


def client(**settings):
    return asking(made_app(**settings))


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"ann:{KEY}\n")
    return str(path)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_keys_another_host_gets_nothing(method, path):
    """DNS rebinding: a page whose name was made to lead here and this server are one for the browser."""
    answer = client(allow_delete=True).request(method, path, headers={"Host": "evil.example:8000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")
    assert "--keys-file" in answer.json()["error"]["message"] and answer.json()["error"]["field"] == "host"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "localhost:x",
     "10.0.0.7:8000", "[::2]", "::1", "2130706433", "127.0.0.1@evil.example", "127.0.0.1:80:80"],
)  # fmt: skip
def test_what_only_looks_like_this_machine_is_another_host(host):
    assert client().get("/v1/examples", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000", ""],
)
def test_without_keys_this_machine_is_answered_by_its_own_names_and_without_any(host):
    """HAProxy's health checks have no host."""
    assert client().get("/v1/examples", headers={"Host": host}).status_code == 200


def test_with_keys_the_host_does_not_matter(keys_file):
    headers = {"Authorization": f"Bearer {KEY}", "Host": "search.example"}
    assert client(keys_file=keys_file).get("/v1/examples", headers=headers).status_code == 200


def test_openapi_tells_of_the_host_only_where_it_is_checked(keys_file):
    for settings, told in (({}, True), ({"keys_file": keys_file}, False)):
        document = client(**settings).get("/openapi.json").json()
        operations = [one for path in document["paths"].values() for one in path.values()]
        assert {"421" in one["responses"] for one in operations} == {told}
