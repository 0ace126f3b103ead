"""Modes of the page: blind, with the teacher, by keyboard, dark, on a phone; and the API page."""

from collections import Counter

import browsing
import pytest
from browsing import HOSTILE, TASTES, encoder_of, image_id, search, settled, shown, texts, until


def sides(page):
    """The image ids of answers A and B."""
    read = "cards => cards.map(card => card.dataset.image)"
    return [page.eval_on_selector_all(f"[data-side={side}] .card", read) for side in "AB"]


def judge(page, accuracy, aesthetics, diversity):
    chosen = {"accuracy": accuracy, "aesthetics": aesthetics, "diversity": diversity}
    for name, value in chosen.items():
        page.check(f"#verdict [name={name}][value={value}]", force=True)
    page.click("#verdict-save")


def test_blind_vote_sends_the_shown_results_and_the_page_shows_no_names(page, service):
    search(page, "a boat")
    page.click("#blind")
    page.wait_for_selector("#verdict:not([hidden])")
    text = page.inner_text("main")
    hidden = ("Live", "Baseline", "0.900", "↑", "new", encoder_of("live")[:8], encoder_of("baseline")[:8])
    assert [word for word in hidden if word in text.replace("Two systems", "")] == []
    markup = page.inner_html("#results")
    assert "live" not in markup and "baseline" not in markup
    a, b = sides(page)
    judge(page, "a", "tie", "b")
    page.wait_for_selector("#verdict-done:not([hidden])")
    event = service.events[-1]
    assert (event.kind, event.accuracy, event.aesthetics, event.diversity) == ("blind", "a", "tie", "b")
    assert (event.results, event.other_results) == (a, b)
    live_is_a = a[0] == image_id(5)
    assert event.search_id == f"{'live' if live_is_a else 'baseline'} a boat 0"
    assert event.other_search_id == f"{'baseline' if live_is_a else 'live'} a boat 0"
    assert page.inner_text("#blind-count") == "1 comparison saved"
    page.keyboard.press("Enter")  # the focus is on the button of the next query
    page.wait_for_selector("#verdict:not([hidden])")
    assert page.input_value("#query") == "a red boat" and "mode=blind" in page.url
    assert page.query_selector("#verdict input:checked") is None


def test_sides_are_shuffled_for_each_query(page):
    page.click("#blind")
    seen = Counter()
    for number in range(16):
        page.fill("#query", f"boat {number}")
        page.press("#query", "Enter")
        page.wait_for_selector("#verdict:not([hidden])")
        seen[sides(page)[0][0]] += 1
    assert set(seen) == {image_id(0), image_id(5)}  # fails by chance once in 32,768 runs


def test_blind_vote_by_keyboard_requires_all_three_verdicts(page, service):
    search(page, "a boat")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    page.wait_for_selector("#verdict:not([hidden])")
    page.focus("#verdict [name=accuracy][value=a]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    assert service.events == []  # the focus moved to the first question without a verdict
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    until(lambda: service.events)
    (event,) = service.events
    assert (event.accuracy, event.aesthetics, event.diversity) == ("a", "tie", "a")
    page.keyboard.press("b")
    page.wait_for_selector("[data-system=live] .card")
    assert "mode=blind" not in page.url


def test_equal_answers_are_not_compared(page, service, monkeypatch):
    monkeypatch.setitem(browsing.ORDERS, "live", browsing.ORDERS["baseline"])
    page.fill("#query", "a boat")
    page.click("#blind")
    page.wait_for_selector("#verdict-done:not([hidden])")
    assert "nothing to compare" in page.inner_text("#verdict-text") and page.is_hidden("#verdict")


def test_search_box_keeps_the_focus_when_equal_answers_arrive_while_typing(page, service, monkeypatch):
    monkeypatch.setitem(browsing.ORDERS, "live", browsing.ORDERS["baseline"])
    page.click("#blind")
    page.wait_for_selector("#verdict-done:not([hidden])")
    page.fill("#query", "")
    page.type("#query", "a boat")
    until(lambda: service.searches[-1].query == "a boat")
    page.wait_for_selector("#verdict-done:not([hidden])")
    assert page.is_visible("#verdict-next")
    page.keyboard.type(" at night")
    assert page.input_value("#query") == "a boat at night"


@pytest.mark.parametrize("key", ["p", "m", "w"])
def test_shortcuts_of_hidden_actions_do_nothing_in_a_blind_comparison(page, service, key):
    search(page, "a boat")
    page.click("#blind")
    page.wait_for_selector("#verdict:not([hidden])")
    page.click("[data-side=A] .card button")
    page.wait_for_selector("#viewer[open]")
    num_searches = len(service.searches)
    page.keyboard.press(key)
    assert page.is_visible("#viewer") and page.is_hidden("#pick")
    assert page.get_attribute("#why", "aria-pressed") == "false"
    page.keyboard.press("Escape")
    settled(page)
    assert (len(service.searches), service.heatmaps) == (num_searches, [])


@pytest.fixture
def with_teacher(service):
    """Adds the teacher to the service before the app is made."""
    service.system_names = ("live", "baseline", "teacher")


def test_teacher_column_appears_once_the_teacher_has_started(with_teacher, page, service):
    search(page, "a boat")
    assert texts(page, ".column h2") == ["Baseline", "Live"]
    service.num_refusals = 1
    page.click("#teacher")
    page.wait_for_selector(".message:has-text('The teacher is starting. Next try in 1 s.')")
    assert page.query_selector("[data-system=live] .card")
    page.wait_for_selector("[data-system=teacher] .card")
    assert texts(page, ".column h2") == ["Baseline", "Live", "Teacher"]
    assert texts(page, "[data-system=teacher] output")[0] == "4.5 of 5"
    assert "a photograph of a boat" in page.inner_text("[data-system=teacher] .encoder")
    assert texts(page, "[data-system=teacher] .rank-change")[0] == "↑ 7"
    page.click("[data-system=teacher] .card button")
    page.click("#why")
    page.wait_for_selector("#heat:not([hidden])")
    assert service.heatmaps[-1][2] == "baseline"  # the system with the encoder that the teacher used
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector("[data-system=teacher] .card")
    page.click("#teacher")
    page.wait_for_selector("[data-system=teacher]", state="detached")


@pytest.fixture
def with_rivals(service):
    """Adds the rivals of alignment to the service before the app is made."""
    service.system_names = ("live", "baseline", "suffix", "axis", "rephrase", "teacher")
    service.suffix = ", golden light"


def test_rivals_become_columns_with_explanations(with_rivals, page, service):
    search(page, "a boat")
    assert texts(page, ".column h2") == ["Baseline", "Live"]
    page.click("#rivals-button")
    assert texts(page, ".rival b") == ["Suffix", "Axis", "Rephrase"]
    assert "“…, golden light”" in page.inner_text(".rival:first-child")
    service.num_refusals = 1
    for name in ("suffix", "axis", "rephrase"):
        page.check(f"#rivals [name={name}]")
    page.wait_for_selector(".message:has-text('The language model is starting. Next try in 1 s.')")
    page.wait_for_selector("[data-system=rephrase] .card")
    assert texts(page, ".column h2") == ["Baseline", "Suffix", "Axis", "Rephrase", "Live"]
    assert "searched for “a boat, golden light”" in page.inner_text("[data-system=suffix] .encoder")
    assert "every query moved" in page.inner_text("[data-system=axis] .encoder")
    assert texts(page, "[data-system=axis] .rank-change")[0] == "↑ 4"
    page.reload()
    page.wait_for_selector("[data-system=rephrase] .card")
    assert "suffix=1&axis=1&rephrase=1" in page.url
    assert page.inner_text("#rivals-button .count") == "3"


def test_search_and_viewer_work_by_keyboard(page):
    page.evaluate("document.activeElement.blur()")
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
    assert "number 3" in page.inner_text("#viewer-facts")  # its rank in the live system
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-caption") == "a boat, picture 2"
    page.keyboard.press("w")
    page.wait_for_selector("#heat:not([hidden])")
    page.keyboard.press("Escape")
    assert page.query_selector("#viewer[open]") is None
    page.keyboard.press("?")
    assert page.is_visible("#help")


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


# The contrast of every visible text with its background, by WCAG 2.
CONTRASTS = """
() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
  };
  const light = (rgb) => rgb
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const colours = [];
    for (let at = element; at; at = at.parentElement) {
      colours.unshift(getComputedStyle(at).backgroundColor);
      if (at.matches("dialog, [popover]")) break;
    }
    return colours;
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(":disabled, .hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const under = behind(element);
    const [one, other] = [light(paint([...under, style.color])), light(paint(under))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    seen += 1;
    const name = element.className || element.id || element.tagName;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${name}: ${ratio.toFixed(2)}`);
  }
  return { poor, seen };
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_texts_have_the_contrast_of_wcag_aa(with_rivals, service, blank, address, scheme):
    service.tastes = TASTES
    blank.emulate_media(color_scheme=scheme)
    blank.goto(address)
    blank.wait_for_selector(".card")
    measured = {"start": blank.evaluate(CONTRASTS)}
    search(blank, "a boat")
    for button in ("#filters-button", "#tastes-button", "#rivals-button", "#teacher"):
        blank.click(button)
    blank.fill("#beautiful", "0.5")
    blank.wait_for_selector("[data-system=teacher] .card")
    measured["results"] = blank.evaluate(CONTRASTS)
    blank.click("[data-system=live] .card button")
    blank.click("#why")
    blank.wait_for_selector("#heat:not([hidden])")
    measured["viewer"] = blank.evaluate(CONTRASTS)
    blank.click("#better")
    blank.keyboard.press("Enter")
    blank.wait_for_selector("#toast:popover-open")
    measured["toast"] = blank.evaluate(CONTRASTS)
    blank.click("#blind")
    blank.wait_for_selector("#verdict:not([hidden])")
    judge(blank, "a", "a", "b")
    blank.wait_for_selector("#verdict-done:not([hidden])")
    measured["blind"] = blank.evaluate(CONTRASTS)
    service.fail = True
    blank.click("#verdict-next")
    blank.wait_for_selector("#notice:not([hidden])")
    measured["notice"] = blank.evaluate(CONTRASTS)
    assert {name: one["poor"] for name, one in measured.items() if one["poor"]} == {}
    assert measured["results"]["seen"] > 60


def test_page_fits_a_phone_without_horizontal_scrolling(with_rivals, page):
    page.set_viewport_size({"width": 390, "height": 844})
    search(page, "a boat")
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= 390
    assert all(element.bounding_box()["width"] > 150 for element in page.query_selector_all(".column"))
    page.click("#filters-button")
    page.click("#rivals-button")
    page.fill("#beautiful", "0.5")
    page.click("#teacher")
    page.wait_for_selector("[data-system=teacher] .card")
    assert page.evaluate(wide) <= 390
    page.click("[data-system=live] .card button")
    page.click("#why")
    page.wait_for_selector("#heat:not([hidden])")
    inside = "dialog => dialog.scrollWidth <= dialog.clientWidth"
    assert page.eval_on_selector("#viewer", inside)
    page.wait_for_function("document.getElementById('viewer-image').getBoundingClientRect().height > 150")
    page.keyboard.press("Escape")
    page.click("#blind")
    page.wait_for_selector("#verdict:not([hidden])")
    assert page.evaluate(wide) <= 390


def test_reduced_motion_disables_transitions(page):
    page.emulate_media(reduced_motion="reduce")
    moving = "getComputedStyle(document.querySelector('.frame img')).transitionDuration"
    assert page.evaluate(moving) == "0s"


def test_hostile_query_stays_text_in_a_blind_comparison(page, service):
    service.examples = [HOSTILE]
    page.reload()
    page.wait_for_selector(".card")
    page.click("#blind")
    settled(page)
    assert page.input_value("#query") == HOSTILE and page.query_selector("img[src=x]") is None


def test_api_page_shows_every_operation(page, address):
    page.goto(f"{address}/docs")
    page.wait_for_selector(".operation pre")
    paths = set(texts(page, ".operation h2 code"))
    assert {"/v1/search", "/v1/feedback", "/v1/images/{image_id}/why", "/v1/tastes", "/healthz"} <= paths
    text = page.inner_text("#operations")
    assert "at most 500 characters" in text
    assert "Request, form 2: SearchesRequest" in text and "Response, form 2: SearchesResponse" in text
    assert "min_aesthetic" in text and "image_weight" in text
