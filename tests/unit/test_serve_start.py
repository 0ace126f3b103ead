"""Where the search listens and through which proxy; what is checked as it starts. No Ray."""

import os
from types import SimpleNamespace

import pytest
import uvicorn

from cluster import proxy
from cluster.errors import UserError
from cluster.profile import load_profile
from serve_app import app
from serve_app.config import ServeConfig


@pytest.mark.parametrize(
    ("host", "proxied"),
    [
        ("127.0.0.1", "1"), ("localhost", "1"), ("0.0.0.0", "1"),
        ("10.0.0.7", "0"), ("127.1.2.3", "0"), ("::1", "0"), ("::", "0"), ("search.example", "0"),
    ],
)  # fmt: skip
def test_haproxy_stands_before_hosts_at_which_it_finds_the_replicas(host, proxied, tmp_path):
    environment = proxy.serve_environment(str(tmp_path), host)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == proxied
    assert ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in environment) == (proxied == "1")


def test_the_log_of_haproxy_goes_where_nobody_listens():
    folder = "/tmp/kallos-12345678"
    target = proxy.serve_environment(folder, "127.0.0.1")["RAY_SERVE_HAPROXY_LOG_TARGET"]
    assert target.startswith(f"{folder}/") and len(target) <= 97  # what HAProxy takes


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7"])
def test_an_address_that_a_client_calls_its_own_is_not_believed(host, tmp_path, monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    environment = proxy.serve_environment(str(tmp_path), host)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", environment["FORWARDED_ALLOW_IPS"])
    config = uvicorn.Config(lambda scope: None, log_config=None)
    config.load()
    assert "127.0.0.1" not in config.loaded_app.trusted_hosts
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")  # a proxy that somebody trusts stays trusted
    assert proxy.serve_environment(str(tmp_path), host)["FORWARDED_ALLOW_IPS"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("10.0.0.7", "http://10.0.0.7:80"),
    ],
)  # fmt: skip
def test_the_address_is_one_that_can_be_asked(host, address):
    assert app._address(host, 80) == address


def test_a_replica_that_others_would_reach_does_not_start_without_keys(monkeypatch):
    """The proxy listens where `serve deploy` says, whatever host the profile names."""
    monkeypatch.setattr(app, "proxy_address", lambda: ("0.0.0.0", 8000))
    replica = app.Search.func_or_class.__mro__[1]
    with pytest.raises(UserError, match=r"0\.0\.0\.0.*--keys-file"):
        replica(load_profile("mini"), ServeConfig(), b"secret", {})


def test_the_tables_of_feedback_are_there_before_a_replica_is(store):
    """Two replicas that make one at once could lose what was answered with 200."""
    args = ServeConfig(store=store.uri)
    with pytest.raises(UserError, match="There is no store"):
        app.build_app(args)
    os.mkdir(store.uri)
    app.build_app(args)
    assert {"feedback", "preferences"} <= set(store.names())
    assert store.count("feedback") == store.count("preferences") == 0


def test_an_engine_takes_more_questions_than_it_works_on():
    """Its ping stands behind none of them."""
    profile = load_profile("mini")
    engine = app._engine(app.RephraserEngine, profile, profile.rephraser)
    assert engine.max_ongoing_requests >= app.Search.max_ongoing_requests


def test_the_check_before_a_start_takes_no_gpu(monkeypatch):
    profile = load_profile("gpu")
    assert profile.encoder.stage.num_gpus
    checked = SimpleNamespace()

    def opener(given, store, metrics):
        checked.encoder = given.encoder

    monkeypatch.setattr(app, "opener", opener)
    monkeypatch.setattr(app, "Systems", lambda store, aliases, open_system: None)
    app._check(profile, ServeConfig(profile="gpu"))
    assert checked.encoder.stage.num_gpus == 0
    assert checked.encoder.model == profile.encoder.model
