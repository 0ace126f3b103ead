"""A page in real Chromium over the real HTTP app, with a fake search service."""

import os

import pytest
from browsing import FakePageService
from fake_service import http_server

from cluster.profile import load_profile
from serve_app.http.api import make_api

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture
def service():
    return FakePageService()


@pytest.fixture
def config():
    return load_profile("mini").serve.model_copy(update={"max_k": 48, "max_upload_bytes": 100_000})


@pytest.fixture
def api(service, config):
    return make_api(service, config)


@pytest.fixture
def address(api):
    with http_server(api) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"no Chromium at {CHROMIUM}")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def blank(browser, address):
    """An empty browser page. The test fails if the browser refuses a script or style, or a script throws."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems, foreign_urls = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: request.url.startswith((address, "blob:")) or foreign_urls.append(request.url),
    )
    yield page
    assert foreign_urls == []
    assert [text for text in problems if "status of" not in text] == []
    context.close()


@pytest.fixture
def page(blank, address):
    """The opened page, with the results of the first example."""
    blank.goto(address)
    blank.wait_for_selector(".card")
    return blank
