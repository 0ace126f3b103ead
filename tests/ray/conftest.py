"""Fixtures of the tests that talk to a real server: its store and profile, and an HTTP client."""

import pytest
from served import make_deployment, run_server


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    return make_deployment(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(deployment):
    yield from run_server(deployment.profile, deployment.folder)
