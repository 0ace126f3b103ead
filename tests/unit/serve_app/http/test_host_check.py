"""Without keys the server answers only requests whose `Host` names this machine, against DNS rebinding."""

import pytest
from fake_service import IMAGE_IDS, fake_app, local_client

KEY = "k" * 16
PATHS = [
    ("GET", "/"), ("GET", "/docs"), ("GET", "/page/main.css"), ("GET", "/healthz"), ("GET", "/readyz"),
    ("GET", "/openapi.json"), ("POST", "/v1/search"), ("POST", "/v1/feedback"), ("GET", "/nothing"),
    ("GET", f"/v1/images/{IMAGE_IDS[0]}/preview"), ("DELETE", f"/v1/images/{IMAGE_IDS[0]}"),
]  # fmt: skip


def client(**settings):
    return local_client(fake_app(**settings))


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"ann:{KEY}\n")
    return str(path)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_keys_requests_for_another_host_are_refused(method, path):
    response = client(allow_delete=True).request(method, path, headers={"Host": "evil.example:8000"})
    assert (response.status_code, response.json()["error"]["code"]) == (421, "wrong_host")
    error = response.json()["error"]
    assert "--keys-file" in error["message"] and error["field"] == "host"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "localhost:x",
     "10.0.0.7:8000", "[::2]", "::1", "2130706433", "127.0.0.1@evil.example", "127.0.0.1:80:80"],
)  # fmt: skip
def test_host_that_only_resembles_this_machine_is_refused(host):
    assert client().get("/v1/examples", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000", ""],
)
def test_without_keys_own_host_names_and_a_missing_host_are_accepted(host):
    """HAProxy's health checks send no host."""
    assert client().get("/v1/examples", headers={"Host": host}).status_code == 200


def test_with_keys_any_host_is_accepted(keys_file):
    headers = {"Authorization": f"Bearer {KEY}", "Host": "search.example"}
    assert client(keys_file=keys_file).get("/v1/examples", headers=headers).status_code == 200


def test_openapi_documents_the_host_check_only_if_it_is_active(keys_file):
    for settings, documented in (({}, True), ({"keys_file": keys_file}, False)):
        document = client(**settings).get("/openapi.json").json()
        operations = [one for path in document["paths"].values() for one in path.values()]
        assert {"421" in one["responses"] for one in operations} == {documented}
