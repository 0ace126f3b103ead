"""Host, proxy and checks at the start of `kallos serve`. No Ray."""

import os
from types import SimpleNamespace

import pytest
import uvicorn

from cluster import proxy
from cluster.errors import UserError
from cluster.profile import load_profile
from serve_app import app
from serve_app.config import ServeConfig, local_address


@pytest.mark.parametrize(
    ("host", "proxied"),
    [
        ("127.0.0.1", "1"), ("localhost", "1"), ("0.0.0.0", "1"),
        ("10.0.0.7", "0"), ("127.1.2.3", "0"), ("::1", "0"), ("::", "0"), ("search.example", "0"),
    ],
)  # fmt: skip
def test_haproxy_is_used_for_hosts_on_which_it_reaches_the_replicas(host, proxied, tmp_path):
    environment = proxy.serve_environment(str(tmp_path), host)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == proxied
    assert ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in environment) == (proxied == "1")


def test_haproxy_logs_to_a_socket_without_listener():
    folder = "/tmp/kallos-12345678"
    target = proxy.serve_environment(folder, "127.0.0.1")["RAY_SERVE_HAPROXY_LOG_TARGET"]
    assert target.startswith(f"{folder}/") and len(target) <= 97  # the limit of HAProxy


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7"])
def test_forwarded_addresses_are_not_trusted_by_default(host, tmp_path, monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    environment = proxy.serve_environment(str(tmp_path), host)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", environment["FORWARDED_ALLOW_IPS"])
    config = uvicorn.Config(lambda scope: None, log_config=None)
    config.load()
    assert "127.0.0.1" not in config.loaded_app.trusted_hosts
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")  # a setting of the user is kept
    assert proxy.serve_environment(str(tmp_path), host)["FORWARDED_ALLOW_IPS"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("10.0.0.7", "http://10.0.0.7:80"),
    ],
)  # fmt: skip
def test_printed_address_can_be_connected_to(host, address):
    assert local_address(host, 80) == address


def test_exposed_replica_does_not_start_without_keys(monkeypatch):
    """With `serve deploy` the proxy ignores the host of the profile."""
    monkeypatch.setattr(app, "proxy_address", lambda: ("0.0.0.0", 8000))
    replica = app.Search.func_or_class.__mro__[1]
    with pytest.raises(UserError, match=r"0\.0\.0\.0.*--keys-file"):
        replica(load_profile("mini"), ServeConfig(), b"secret", {})


def test_feedback_tables_are_made_before_the_replicas_start(store):
    """If two replicas made a table at once, events reported as stored could be lost."""
    args = ServeConfig(store=store.uri)
    with pytest.raises(UserError, match="There is no store"):
        app.build_app(args)
    os.mkdir(store.uri)
    app.build_app(args)
    assert {"feedback", "preferences"} <= set(store.names())
    assert store.count("feedback") == store.count("preferences") == 0


def test_engine_accepts_as_many_requests_as_the_search():
    """Otherwise a ping would wait behind them."""
    profile = load_profile("mini")
    engine = app._engine(app.RephraserEngine, profile.serve, profile.rephraser.stage)
    assert engine.max_ongoing_requests >= app.Search.max_ongoing_requests


def test_check_before_the_start_uses_no_gpu(monkeypatch):
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
