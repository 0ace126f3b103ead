"""Searching on the page: while typing, side by side, page by page, and error messages."""

import time

from browsing import HOSTILE, NUM_IMAGES, encoder_of, image_id, search, settled, shown, texts, until

from serve_app.models import Filters


def type_in(page, words):
    page.fill("#query", "")
    page.type("#query", words)


def test_two_columns_show_captions_scores_and_rank_changes(page):
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
    assert texts(page, "[data-system=live] .rank-change")[:5] == ["↑ 5", "↓ 1", "↓ 1", "new", "↓ 1"]
    assert set(texts(page, "[data-system=baseline] .rank-change")) == {""}
    assert "3.8 ms" in page.inner_text("[data-system=live] .timings")
    page.wait_for_load_state("networkidle")
    widths = page.eval_on_selector_all(
        ".card img", "images => images.slice(0, 5).map(image => image.naturalWidth)"
    )
    assert widths == [120] * 5
    boxes = [element.bounding_box() for element in page.query_selector_all(".column")]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"] and abs(boxes[0]["y"] - boxes[1]["y"]) < 1


def test_results_appear_while_typing_without_a_search_per_letter(page, service):
    before = len(service.searches)
    type_in(page, "a green door")
    shown(page, "a green door")
    assert len(service.searches) - before < 2 * len("a green door")
    assert "q=a+green+door" in page.url
    page.press("#query", "Enter")
    page.type("#query", " at night")
    shown(page, "a green door at night")
    page.go_back()  # all typing is one entry of the history
    shown(page, "a green door")
    assert page.input_value("#query") == "a green door"


def test_emptying_the_search_box_shows_the_first_example_again(page):
    search(page, "a boat")
    page.press("#query", "Escape")
    page.wait_for_selector("#example:not([hidden])")
    page.wait_for_selector(".caption:has-text('a red boat, picture 0')")
    assert page.title() == "Kallos"


def test_example_buttons_and_the_address_start_a_search(page, address):
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


def test_opened_page_shows_the_first_example(page):
    assert page.inner_text("#example") == "For example: a red boat"
    assert texts(page, "[data-system=baseline] .caption")[0] == "a red boat, picture 0"
    assert page.input_value("#query") == "" and "?" not in page.url
    assert page.is_visible("h1") and page.title() == "Kallos"


def test_captions_and_queries_are_shown_as_text_not_html(page):
    page.fill("#query", "hostile")
    page.press("#query", "Enter")
    page.wait_for_selector(".caption:has-text('onerror')")
    assert texts(page, "[data-system=baseline] .caption")[0] == f"{HOSTILE} 0"
    assert page.title() == "hostile · Kallos"
    page.click("[data-system=baseline] .card button")
    assert page.inner_text("#viewer-caption") == f"{HOSTILE} 0"
    page.keyboard.press("Escape")
    page.fill("#query", HOSTILE)
    page.press("#query", "Enter")
    settled(page)
    assert page.title() == f"{HOSTILE} · Kallos"
    assert page.query_selector("img[src=x]") is None


def test_more_loads_the_next_page_of_every_system_that_has_one(page, service):
    search(page, "a boat")
    assert len(page.query_selector_all("[data-system=baseline] .card")) == 12
    page.click("#more")
    page.wait_for_selector("[data-system=baseline] .card:nth-child(24)")
    assert [(one.system, one.cursor) for one in service.searches[-1:]] == [("baseline", "12")]
    assert texts(page, "[data-system=baseline] .rank")[-1] == "24"
    page.click("#more")
    page.wait_for_selector(f"[data-system=baseline] .card:nth-child({NUM_IMAGES})")
    page.wait_for_selector("#more", state="hidden")
    assert texts(page, "[data-system=live] .rank-change")[3] == "↑ 26"  # on the second page


def test_late_answer_does_not_overwrite_a_newer_one(page, service):
    service.delay_s = 0.6
    page.fill("#query", "old")
    page.press("#query", "Enter")
    page.wait_for_selector(".column[aria-busy]")
    service.delay_s = 0.0
    search(page, "new")
    time.sleep(1.0)
    assert texts(page, "[data-system=baseline] .caption")[0] == "new, picture 0"


def test_slow_server_shows_skeletons_and_then_a_timeout(blank, address, service):
    blank.clock.install()
    service.delay_s = 3.0
    blank.goto(f"{address}/?q=a+boat")
    blank.wait_for_selector(".skeleton")
    blank.clock.fast_forward(21_000)
    blank.wait_for_selector("#notice:not([hidden])")
    assert "within 20 seconds" in blank.inner_text("#notice")
    assert blank.query_selector(".skeleton") is None
    service.delay_s = 0.0
    blank.click("#retry")
    shown(blank, "a boat")


def test_refusal_shows_the_message_of_the_server_until_the_next_search(page, service):
    search(page, "a boat")
    page.evaluate("document.getElementById('k').append(new Option('too many', 99, true, true))")
    page.dispatch_event("#k", "change")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "The request was refused"
    assert page.inner_text("#notice-text") == "`k` must be at most 48."
    assert page.is_hidden("#results")
    page.select_option("#k", "12")
    shown(page, "a boat")
    assert page.is_hidden("#notice")


def test_failing_server_is_reported_and_can_be_retried(page, service):
    service.fail = True
    page.fill("#query", "a boat")
    page.press("#query", "Enter")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice-title") == "The server failed"
    assert "a failure of the server" not in page.content()
    service.fail = False
    page.click("#retry")
    shown(page, "a boat")
    assert page.is_hidden("#notice")


def test_page_reports_no_results_and_an_empty_index(page, service, address):
    page.fill("#query", "nothing")
    page.press("#query", "Enter")
    page.wait_for_selector(".message:not([hidden])")
    assert texts(page, ".message") == ["No results."] * 2
    page.goto(f"{address}/?q=nothing&tags=sea")
    page.wait_for_selector(".message:not([hidden])")
    assert texts(page, ".message") == ["No results: relax the filters."] * 2
    service.systems = {name: service.system(name, 0) for name in service.systems}
    page.goto(f"{address}/?q=nothing")
    page.wait_for_selector(".message:not([hidden])")
    assert "kallos ingest" in page.inner_text("[data-system=live] .message")


def test_column_header_names_the_encoder_also_after_a_promotion(page, service):
    header = "[data-system=live] .encoder"
    search(page, "a boat")
    assert page.inner_text(header) == f"aligned · encoder {encoder_of('live')[:8]}"
    service.encoders["live"] = encoder_of("promoted")
    search(page, "a dog")
    assert page.inner_text(header) == f"aligned · encoder {encoder_of('promoted')[:8]}"
    service.encoders["live"] = encoder_of("baseline")
    search(page, "a cat")
    assert page.inner_text(header) == f"the baseline's encoder {encoder_of('baseline')[:8]}"
    before = page.inner_text("[data-system=baseline] .encoder")
    assert before == f"before · encoder {encoder_of('baseline')[:8]}"


def test_number_of_images_is_shown_if_known(page, service):
    assert page.inner_text("#health") == f"{NUM_IMAGES} images"
    service.systems = {name: service.system(name, None) for name in service.systems}
    page.reload()
    page.wait_for_selector(".card")
    assert page.inner_text("#health") == "connected"


def test_words_with_a_minus_become_negatives(page, service):
    page.fill("#query", 'well-known red boat -people -"at night" - calm')
    page.press("#query", "Enter")
    until(lambda: service.searches[-1].negatives)
    assert service.searches[-1].query == "well-known red boat - calm"
    assert service.searches[-1].negatives == ["people", "at night"]
    page.fill("#query", "-people")
    page.wait_for_selector("#notice:not([hidden])")
    assert "Add words for what to show" in page.inner_text("#notice")


def test_long_query_says_how_many_of_its_words_were_read(page):
    page.fill("#query", "boat " * 45)
    page.press("#query", "Enter")
    page.wait_for_selector("[data-system=live] .message:has-text('the encoder read 40 of its 45 words')")
    assert len(texts(page, "[data-system=live] .caption")) > 5
    search(page, "a red boat")
    assert not page.is_visible("[data-system=live] .message")


def test_filters_and_diversity_are_sent_and_kept_in_the_address(page, service):
    search(page, "a boat")
    page.click("#filters-button")
    for name, value in {"tags": "sea, night", "source": "alps", "width": "800", "from": "2026-01-02"}.items():
        page.fill(f"#filters [name={name}]", value)
    page.fill("#filters [name=beauty]", "0.6")
    page.click("#varied")
    until(lambda: service.searches[-1].filters.min_aesthetic and service.searches[-1].diversity)
    filters = service.searches[-1].filters
    assert filters.tags_any == ["sea", "night"] and filters.sources == ["alps"]
    assert filters.min_width_px == 800 and filters.min_height_px is None
    assert filters.added_from.isoformat().startswith("2026-01-0") and filters.min_aesthetic == 0.6
    assert service.searches[-1].diversity.weight == 0.5
    assert page.inner_text("#filters-button .count") == "5"
    page.reload()
    shown(page, "a boat")
    assert service.searches[-1].filters == filters and service.searches[-1].diversity
    page.click("#filters-button")
    assert page.input_value("#filters [name=tags]") == "sea, night"
    page.click("#filters-reset")
    until(lambda: service.searches[-1].filters.min_width_px is None)
    assert page.is_hidden("#filters-button .count")


def test_invalid_parameters_of_the_address_are_ignored(page, service, address):
    invalid = (
        "from=abc&before=0001-01-01&width=wide&height=0&beauty=7&tags=,&weight=x&image_id=none&taste.light=x"
    )
    page.goto(f"{address}/?q=a+boat&{invalid}&source=alps")
    shown(page, "a boat")
    assert service.searches[-1].filters == Filters(sources=["alps"]) and service.searches[-1].image is None
    assert page.inner_text("#filters-button .count") == "1"


def test_tastes_are_sent_kept_in_the_address_and_reset(page, service, address):
    assert page.is_hidden("#tastes-button")  # the server has none
    service.tastes = [{"name": "light", "less": "darker", "more": "brighter"}]
    page.goto(f"{address}/?q=a+boat")
    shown(page, "a boat")
    page.click("#tastes-button")
    assert texts(page, ".taste span") == ["darker", "brighter"]
    page.fill("#tastes [name=light]", "-0.4")
    until(lambda: service.searches[-1].tastes == {"light": -0.4})
    page.reload()
    shown(page, "a boat")
    assert service.searches[-1].tastes == {"light": -0.4}
    page.click("#tastes-button")
    assert page.input_value("#tastes [name=light]") == "-0.4"
    page.click("#tastes-reset")
    until(lambda: service.searches[-1].tastes == {})


def test_slider_moves_all_results_and_the_address_reproduces_the_search(page, service, address):
    search(page, "a boat")
    page.focus("#beautiful")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"[data-system=baseline] .card:first-child[data-image='{image_id(29)}']")
    settled(page)
    assert [request.beauty for request in service.searches[-2:]] == [0.3, 0.3]
    assert page.get_attribute("#beautiful", "aria-valuetext") == "0.3 of 2 towards beautiful"
    hint = "The query moves by 0.3. Baseline and Live: from words such as “ugly” towards “beautiful”."
    assert page.inner_text("#beautiful-hint") == hint
    link = page.url
    assert "beautiful=0.3" in link
    page.goto(f"{address}/?q=a+dog&beautiful=7&beauty=0.6")
    shown(page, "a dog")
    assert (service.searches[-1].beauty, service.searches[-1].filters.min_aesthetic) == (2.0, 0.6)
    page.goto(link)
    shown(page, "a boat")
    assert service.searches[-1].beauty == 0.3 and page.input_value("#beautiful") == "0.3"
    page.focus("#beautiful")
    page.keyboard.press("Home")
    page.wait_for_selector(f"[data-system=baseline] .card:first-child[data-image='{image_id(0)}']")
    assert "beautiful" not in page.url and page.is_hidden("#beautiful-hint")
    assert page.get_attribute("#beautiful", "aria-valuetext") == "literal"


def test_hovered_image_is_marked_in_both_columns(page):
    search(page, "a boat")
    page.hover(f"[data-system=live] .card[data-image='{image_id(5)}']")
    assert len(page.query_selector_all(f".card.same-image[data-image='{image_id(5)}']")) == 2


def test_client_name_stays_the_same_on_every_visit(page, service):
    search(page, "a boat")
    page.reload()
    page.wait_for_selector(".card")
    (client,) = service.clients
    assert len(client) == 32 and set(client) <= set("0123456789abcdef")
