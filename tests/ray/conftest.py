"""A real server with its store, profile and HTTP client; a short search for the phrases of a null."""

import pytest
from served import make_deployment, run_server

from jobs.align import nulls


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    return make_deployment(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(deployment):
    yield from run_server(deployment.profile, deployment.folder)


@pytest.fixture(scope="module")
def few_phrases():
    """The suffix of an alignment is chosen among 20 phrases, so that an alignment takes less time."""
    all_of = nulls.candidates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nulls, "candidates", lambda rephrasings: all_of(rephrasings)[:20])
        yield
