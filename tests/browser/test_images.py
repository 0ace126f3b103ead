"""Single images on the page: the viewer, the heat map, search by image, and choosing the better one."""

import base64
import io

import pytest
from browsing import image_id, picture, search, settled, shown, until

KEY = "open-sesame-open-sesame"
WATCH_REVOKED = """
window.revoked = [];
const revoke = URL.revokeObjectURL.bind(URL);
URL.revokeObjectURL = (url) => { revoked.push(url); revoke(url); };
"""


def png(size=(40, 30)):
    out = io.BytesIO()
    picture(3).resize(size).save(out, "PNG")
    return out.getvalue()


def upload(page, name, content, mime="image/png"):
    page.set_input_files("#image-file", {"name": name, "mimeType": mime, "buffer": content})


def drop(page, content, name="dropped.png", mime="image/png"):
    """Drop a file on the page, as from a file manager."""
    page.evaluate(
        """([text, name, type]) => {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const options = { dataTransfer, bubbles: true, cancelable: true };
            const fire = (kind) => document.body.dispatchEvent(new DragEvent(kind, options));
            ["dragover", "drop"].forEach(fire);
        }""",
        [base64.b64encode(content).decode(), name, mime],
    )


def open_image(page, system, number):
    page.click(f"[data-system={system}] .card[data-image='{image_id(number)}'] button")
    page.wait_for_selector("#viewer[open]")


def test_opening_an_image_shows_its_facts_and_sends_a_click(page, service):
    search(page, "a boat")
    open_image(page, "live", 1)
    facts = page.inner_text("#viewer-facts")
    assert "number 2" in facts and "number 3" in facts and "120 × 91 px" in facts
    until(lambda: service.events)
    (event,) = service.events
    assert (event.kind, event.search_id, event.image_id) == ("click", "live a boat 0", image_id(1))
    assert event.results[:3] == [image_id(5), image_id(0), image_id(1)]


def test_better_image_is_compared_with_a_second_image_of_the_same_answer(page, service):
    search(page, "a boat")
    page.click("#more")
    page.wait_for_selector("[data-system=baseline] .card:nth-child(24)")
    open_image(page, "baseline", 4)
    page.click("#better")
    assert "Number 5 is better" in page.inner_text("#pick")
    assert page.get_attribute("[data-system=live]", "inert") == ""
    open_cards = page.query_selector_all("[data-system=baseline] .card:not([inert])")
    assert len(open_cards) == 11  # neither the image itself nor the next page, which is another answer
    page.click(f"[data-system=baseline] .card[data-image='{image_id(2)}'] button")
    page.wait_for_selector("#toast:popover-open")
    assert page.inner_text("#toast") == "Saved: number 5 is better than number 3."
    event = service.events[-1]
    assert (event.kind, event.image_id, event.over) == ("prefer", image_id(4), image_id(2))
    assert event.search_id == "baseline a boat 0" and len(event.results) == 12
    assert page.is_hidden("#pick") and page.query_selector("[inert]") is None


def test_choosing_the_better_image_works_by_keyboard_and_can_be_cancelled(page, service):
    search(page, "a boat")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("p")
    assert page.is_visible("#pick")
    page.keyboard.press("Escape")
    assert page.is_hidden("#pick")
    page.keyboard.press("Enter")
    page.keyboard.press("p")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(lambda: any(event.kind == "prefer" for event in service.events))
    assert (service.events[-1].image_id, service.events[-1].over) == (image_id(0), image_id(2))


def test_heat_map_is_painted_and_removed(page, service):
    search(page, "a boat")
    open_image(page, "live", 0)
    page.click("#why")
    page.wait_for_selector("#heat:not([hidden])")
    assert service.heatmaps == [(image_id(0), "a boat", "live")]
    at = "(x) => [...document.getElementById('heat').getContext('2d').getImageData(x, 90, 1, 1).data]"
    dark, bright = page.evaluate(at, 2), page.evaluate(at, 236)
    assert sum(bright[:3]) > sum(dark[:3]) + 150 and dark[3] > bright[3] > 0
    assert page.inner_text("#legend-low") == "0.10 least"
    page.click("#why")
    assert page.is_hidden("#heat") and page.is_hidden("#legend")
    page.click("#why")
    page.wait_for_selector("#heat:not([hidden])")
    page.keyboard.press("ArrowRight")
    assert page.is_hidden("#heat")


def test_more_like_this_searches_by_image_and_is_kept_in_the_address(page, service):
    search(page, "a boat")
    open_image(page, "live", 29)
    page.click("#like")
    until(lambda: service.searches[-1].image)
    settled(page)
    assert service.searches[-1].image.image_id == image_id(29) and service.searches[-1].query == ""
    assert page.is_visible("#image") and page.is_hidden("#image-mix") and page.input_value("#query") == ""
    open_image(page, "live", 0)
    assert page.is_hidden("#why")  # without words there is no heat map
    page.keyboard.press("w")
    assert page.get_attribute("#why", "aria-pressed") == "false" and service.heatmaps == []
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(".card")
    assert service.searches[-1].image.image_id == image_id(29)
    page.go_back()
    shown(page, "a boat")
    assert page.is_hidden("#image") and service.searches[-1].image is None


def test_picked_file_is_sent_with_words_and_weight_and_can_be_removed(page, service):
    content = png()
    upload(page, "mine.png", content)
    until(lambda: service.searches[-1].image)
    assert base64.b64decode(service.searches[-1].image.data) == content
    assert page.inner_text("#image-name") == "mine.png"
    assert page.get_attribute("#image-thumb", "src").startswith("blob:")
    page.wait_for_function("document.getElementById('image-thumb').naturalWidth === 40")
    page.fill("#query", "at night")
    page.wait_for_selector("#image-mix")
    page.fill("#image-weight", "0.8")
    until(lambda: service.searches[-1].image_weight == 0.8)
    assert service.searches[-1].query == "at night" and service.searches[-1].image.data
    page.click("#image-remove")
    until(lambda: service.searches[-1].image is None)
    assert page.is_hidden("#image")
    page.go_back()  # the address cannot hold the file, but the page remembers it
    until(lambda: service.searches[-1].image is not None)


def test_dropped_and_pasted_files_are_searched_with(page, service):
    first, second = png((20, 20)), png((30, 30))
    drop(page, first)
    until(lambda: service.searches[-1].image)
    assert base64.b64decode(service.searches[-1].image.data) == first
    assert page.is_hidden("#drop")
    page.evaluate(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        base64.b64encode(second).decode(),
    )
    until(lambda: base64.b64decode(service.searches[-1].image.data) == second)
    assert page.inner_text("#image-name") == "pasted.png"


@pytest.mark.parametrize("mime", ["", "application/octet-stream"])
def test_file_whose_type_the_browser_does_not_know_is_sent(page, service, mime):
    content = png((50, 40))
    drop(page, content, "phone.heic", mime)
    until(lambda: service.searches[-1].image)
    assert base64.b64decode(service.searches[-1].image.data) == content
    assert page.inner_text("#image-name") == "phone.heic"


def test_file_that_is_too_large_or_not_an_image_is_not_sent(page, service):
    before = len(service.searches)
    upload(page, "large.png", b"0" * 100_001)
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-text") == "large.png has 0.1 MB. This server accepts at most 0.1 MB."
    upload(page, "words.txt", b"words", "text/plain")
    page.wait_for_selector("#notice-title:has-text('Not an image')")
    assert len(service.searches) == before and page.is_hidden("#image")


@pytest.fixture
def keyed():
    """Marks a test whose server requires a key."""


@pytest.fixture
def config(tmp_path, config, request):
    """The config, with a keys file for tests marked by `keyed`."""
    if "keyed" not in request.fixturenames:
        return config
    (tmp_path / "keys").write_text(f"tester:{KEY}\n")
    return config.model_copy(update={"keys_file": str(tmp_path / "keys")})


def test_page_asks_for_a_required_key_and_fetches_previews_with_it(keyed, blank, address):
    blank.add_init_script(WATCH_REVOKED)
    blank.goto(f"{address}/?q=a+boat")
    blank.wait_for_selector("#key[open]")
    blank.fill("#key-value", "wrong")
    blank.keyboard.press("Enter")
    blank.wait_for_selector("#key-wrong:not([hidden])")
    blank.fill("#key-value", KEY)
    blank.keyboard.press("Enter")
    shown(blank, "a boat")
    blank.wait_for_function("document.querySelector('.card img').naturalWidth === 120")
    sources = blank.eval_on_selector_all(".card img", "images => images.map(image => image.src)")
    assert all(source.startswith("blob:") for source in sources[:3])
    search(blank, "a dog")
    assert blank.evaluate("revoked").count(sources[0]) == 1  # released together with its card
    blank.reload()
    shown(blank, "a dog")
    assert blank.query_selector("#key[open]") is None
