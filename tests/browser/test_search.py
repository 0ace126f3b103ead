"""The page in real Chromium over the real HTTP app; its searches are made up, so that ranks are known."""

import asyncio
import hashlib
import io
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn
from PIL import Image

from serve_app.api import make_api
from serve_app.service import Found

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(not os.path.exists(CHROMIUM), reason=f"no Chromium at {CHROMIUM}")

NUM_IMAGES = 30
ORDERS = {"live": [5, 0, 1, 29, 3, 2, 4], "baseline": list(range(NUM_IMAGES))}
HOSTILE = '<img src=x onerror="document.title=1">'


def picture(number):
    return Image.new("RGB", (120, 90 + number), (9 * number % 256, 120, 255 - 8 * number))


def image_id(number):
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


class MadeUp:
    """A `Service` whose baseline ranks images 0, 1, 2, ... and whose live system starts with 5, 0, 1, 29."""

    def __init__(self):
        self.examples, self.delay_s, self.fail, self.num_searches = ["a red boat", "two cats"], 0.0, False, 0
        self.systems = {name: self.system(name, NUM_IMAGES) for name in ORDERS}

    def system(self, name, num_rows):
        record = SimpleNamespace(encoder=hashlib.sha256(name.encode()).hexdigest()[:16], parent="")
        return SimpleNamespace(record=record, num_rows=num_rows, recall_at_10=1.0)

    async def search(self, system, query, k):
        self.num_searches += 1
        await asyncio.sleep(self.delay_s)
        if self.fail:
            raise RuntimeError("made to fail")
        order = ORDERS[system] if query != "nothing" else []
        caption = HOSTILE if query == "hostile" else f"{query}, picture"
        rows = [
            {
                "image_id": image_id(number),
                "score": 0.9 - 0.02 * place,
                "caption": f"{caption} {number}",
                "width_px": 120,
                "height_px": 90 + number,
            }
            for place, number in enumerate(order[:k])
        ]
        encoder = self.systems[system].record.encoder
        return Found(encoder, rows, {"encode": 1.25, "search": 2.5, "total": 3.75})

    def preview(self, wanted):
        out = io.BytesIO()
        {image_id(number): picture(number) for number in range(NUM_IMAGES)}[wanted].save(out, "JPEG")
        return out.getvalue()


@pytest.fixture
def service():
    return MadeUp()


@pytest.fixture
def address(service):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_api(service, max_k=48), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """An open page; the test fails if the browser refused a script or style, or a script threw."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on(
        "console", lambda message: page.problems.append(message.text) if message.type == "error" else None
    )
    page.foreign = []
    page.on("request", lambda request: request.url.startswith(address) or page.foreign.append(request.url))
    page.goto(address)
    page.wait_for_selector(".card")  # of the first example
    yield page
    assert page.foreign == []
    assert [text for text in page.problems if "status of" not in text] == []
    context.close()


def search(page, query):
    page.fill("#query", query)
    page.press("#query", "Enter")
    shown(page, query)


def shown(page, query):
    """Wait until the results for the query are there."""
    page.wait_for_selector(f"body.searched .caption:has-text('{query}, picture 0')", state="attached")
    page.wait_for_selector(".column[aria-busy]", state="detached")


def texts(page, selector):
    return [element.inner_text() for element in page.query_selector_all(selector)]


def test_two_columns_with_captions_scores_and_moves(page):
    search(page, "a red boat")
    assert texts(page, ".column h2") == ["Baseline", "Live"]
    assert texts(page, "[data-system=baseline] .caption")[:2] == [
        "a red boat, picture 0",
        "a red boat, picture 1",
    ]
    assert texts(page, "[data-system=live] .caption")[:2] == [
        "a red boat, picture 5",
        "a red boat, picture 0",
    ]
    assert texts(page, "[data-system=live] output")[:2] == ["0.900", "0.880"]
    assert texts(page, "[data-system=live] .moved")[:5] == ["↑ 5", "↓ 1", "↓ 1", "new", "↓ 1"]
    assert set(texts(page, "[data-system=baseline] .moved")) == {""}
    assert "3.8 ms" in page.inner_text("[data-system=live] .timings")
    page.wait_for_load_state("networkidle")
    widths = page.eval_on_selector_all(
        ".card img", "images => images.slice(0, 5).map(image => image.naturalWidth)"
    )
    assert widths == [120] * 5
    boxes = [element.bounding_box() for element in page.query_selector_all(".column")]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"] and abs(boxes[0]["y"] - boxes[1]["y"]) < 1


def test_an_example_and_the_address_search_too(page, address):
    page.click(".examples button:has-text('two cats')")
    shown(page, "two cats")
    assert "q=two+cats" in page.url and page.input_value("#query") == "two cats"
    page.goto(f"{address}/?q=a+dog&k=6")
    shown(page, "a dog")
    assert len(page.query_selector_all("[data-system=baseline] .card")) == 6
    search(page, "a horse")
    page.go_back()
    shown(page, "a dog")
    assert page.input_value("#query") == "a dog"


def test_a_page_just_opened_shows_the_first_example(page):
    assert page.inner_text("#example") == "For example: a red boat"
    assert texts(page, "[data-system=baseline] .caption")[0] == "a red boat, picture 0"
    assert page.input_value("#query") == "" and "?" not in page.url
    assert page.is_visible("h1") and page.title() == "Kallos"


def test_captions_and_queries_are_text_not_html(page):
    page.fill("#query", "hostile")
    page.press("#query", "Enter")
    page.wait_for_selector(".caption:has-text('onerror')")
    assert texts(page, "[data-system=baseline] .caption")[0] == f"{HOSTILE} 0"
    assert page.title() == "hostile · Kallos"
    page.fill("#query", HOSTILE)
    page.press("#query", "Enter")
    page.wait_for_selector(".column[aria-busy]", state="detached")
    assert page.title() == f"{HOSTILE} · Kallos"
    assert page.query_selector("img[src=x]") is None


def test_a_refusal_is_shown_in_the_servers_words_and_goes_away(page, service):
    search(page, "a boat")
    page.evaluate("document.getElementById('k').append(new Option('too many', 99, true, true))")
    page.press("#query", "Enter")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "That search was refused"
    assert "k" in page.inner_text("#notice-text") and "48" in page.inner_text("#notice-text")
    assert page.is_hidden("#results")
    page.select_option("#k", "12")
    shown(page, "a boat")
    assert page.is_hidden("#notice")


def test_a_failing_server_is_told_apart_and_can_be_tried_again(page, service):
    service.fail = True
    page.fill("#query", "a boat")
    page.press("#query", "Enter")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "The server had a problem"
    assert "made to fail" not in page.content()
    service.fail = False
    page.click("#retry")
    shown(page, "a boat")
    assert page.is_hidden("#notice")


def test_nothing_found_and_an_empty_index_are_said(page, service, address):
    page.fill("#query", "nothing")
    page.press("#query", "Enter")
    page.wait_for_selector(".empty:not([hidden])")
    assert texts(page, ".empty") == ["Nothing found.", "Nothing found."]
    service.systems = {name: service.system(name, 0) for name in ORDERS}
    page.goto(f"{address}/?q=nothing")
    page.wait_for_selector(".empty:not([hidden])")
    assert "kallos ingest" in page.inner_text("[data-system=live] .empty")


def test_a_slow_answer_never_overwrites_a_newer_one(page, service):
    service.delay_s = 0.6
    page.fill("#query", "old")
    page.press("#query", "Enter")
    page.wait_for_selector(".column[aria-busy]")
    service.delay_s = 0.0
    search(page, "new")
    time.sleep(0.9)
    assert texts(page, "[data-system=baseline] .caption")[0] == "new, picture 0"


def test_the_keyboard_alone_is_enough(page):
    page.click("h1")
    page.keyboard.press("/")
    page.keyboard.type("a boat")
    page.keyboard.press("Enter")
    shown(page, "a boat")
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.closest('.card').dataset.image"
    assert page.evaluate(focused) == image_id(0)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == image_id(1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer-caption") == "a boat, picture 1"
    assert "number 3" in page.inner_text("#viewer-facts")  # its place in the live system
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-caption") == "a boat, picture 2"
    page.keyboard.press("Escape")
    assert page.query_selector("#viewer[open]") is None
    page.keyboard.press("?")
    assert page.is_visible("#help")


def test_the_same_image_lights_up_in_both_columns(page):
    search(page, "a boat")
    page.hover(f"[data-system=live] .card[data-image='{image_id(5)}']")
    assert len(page.query_selector_all(f".card.twin[data-image='{image_id(5)}']")) == 2


def test_dark_mode_follows_the_system_and_the_button(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.click("#theme")
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light


def test_a_phone_shows_both_columns_without_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 844})
    search(page, "a boat")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(element.bounding_box()["width"] > 150 for element in page.query_selector_all(".column"))


def test_the_docs_page_draws_every_operation(page, address):
    page.goto(f"{address}/docs")
    page.wait_for_selector(".operation pre")
    paths = set(texts(page, ".operation h2 code"))
    assert paths == {"/v1/search", "/v1/images/{image_id}/preview", "/healthz", "/v1/examples"}
    assert "at most 500 characters" in page.inner_text("#operations")
