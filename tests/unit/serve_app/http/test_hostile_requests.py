"""Requests made to be slow, to be misread, or to break the server."""

import json
import time
from functools import cache

import pytest
from fake_service import IMAGE_IDS, FakeService, fake_app, local_client

JSON = {"Content-Type": "application/json"}
INVISIBLE = {
    "NUL": "\0", "control": "\x07\x1b", "zero-width space": "\u200b", "zero-width joiners": "\u200c\u200d",
    "BOM": "\ufeff", "text direction": "\u200e\u202e\u2066", "soft hyphen": "\u00ad", "tag": "\U000e0061",
    "variation selector": "\ufe0f", "combining mark": "\u0301", "grapheme joiner": "\u034f",
    "line separator and zero-width": "\u2028\u200b", "Hangul filler": "\u3164", "empty Braille": "\u2800",
    "private use": "\ue000", "noncharacter": "\ufdd0\uffff", "blanks around": " \u200b\u00a0",
}  # fmt: skip
BLANK = {"space": " ", "tab and newline": "\t\n", "no-break space": "\u00a0", "ideographic space": "\u3000"}
VISIBLE = ["a", "帆船", "🧑‍🎨", "❤️", "\U0001fae8", "é", "1", ".", "नाव", "\u200bboat\0"]


@cache
def client(**settings):
    """A client of a server with these settings."""
    return local_client(fake_app(**settings))


def post(body, path="/v1/search", **settings):
    """The answer to a body, as bytes or as a value for JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client(**settings).post(path, content=content, headers=JSON)


def error_of(answer):
    """(status, code, field) of a refusal."""
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["field"]


# ---- words without a visible character


@pytest.mark.parametrize("name", INVISIBLE)
def test_query_without_a_visible_character_is_refused(name):
    query = INVISIBLE[name]
    assert error_of(post({"query": query})) == (422, "empty_query", "query")
    with_image = {"query": query, "image": {"image_id": IMAGE_IDS[0]}}
    assert error_of(post(with_image)) == (422, "empty_query", "query")


@pytest.mark.parametrize("name", BLANK)
def test_blank_query_counts_as_no_query(name):
    assert error_of(post({"query": BLANK[name]})) == (422, "empty_query", "")
    answer = post({"query": BLANK[name], "image": {"image_id": IMAGE_IDS[0]}})
    assert (answer.status_code, answer.json()["query"]) == (200, "")


@pytest.mark.parametrize("text", [*INVISIBLE.values(), *BLANK.values()])
def test_every_word_of_a_list_needs_a_visible_character(text):
    assert error_of(post({"query": "a", "negatives": ["b", text]})) == (422, "invalid_value", "negatives.1")
    for name in ("tags_all", "tags_any", "tags_none", "sources"):
        refused = post({"query": "a", "filters": {name: [text]}})
        assert error_of(refused) == (422, "invalid_value", f"filters.{name}.0")
    assert post({"query": "a", "tastes": {text: 1.0}}).status_code == 422
    answer = client().get(f"/v1/images/{IMAGE_IDS[0]}/why", params={"query": text})
    assert error_of(answer) == (422, "empty_query", "query")


@pytest.mark.parametrize("text", VISIBLE)
def test_words_with_a_visible_character_are_accepted(text):
    answer = post({"query": text, "negatives": [text], "filters": {"tags_any": [text]}})
    assert (answer.status_code, answer.json()["query"]) == (200, text)


# ---- times and ranges in filters


@pytest.mark.parametrize(
    "value",
    ["20300101", "1893456000", "1893456000.5", "-5", "0", "1e9", "+2030-01-01", "2030", "2030-1-1", "", " ",
     "2030-01-01T24:00:00", "2030-01-01T00:00:60Z", "2030-02-30", "2030-01-01T", " 2030-01-01",
     "2030-01-01\n",
     "2030-01-01T00:00:00+99:00", "0000-01-01", "9999-12-31", "10000-01-01", "-2030-01-01", "٢٠٣٠-٠١-٠١",
     "２０３０-01-01", "NaN", "inf", "true", "now", "2030-W01-1", "2030-001", "01/01/2030",
     True, False, 0, 1893456000, -1.5, [], {}, ["2030-01-01"]],
)  # fmt: skip
@pytest.mark.parametrize("name", ["added_from", "added_before"])
def test_time_that_is_not_a_date_is_refused(name, value):
    refused = post({"query": "a", "filters": {name: value}})
    assert error_of(refused) == (422, "invalid_value", f"filters.{name}")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 4000])
def test_time_that_is_a_number_without_bounds_is_refused(value):
    assert post(b'{"query": "a", "filters": {"added_from": %s}}' % value.encode()).status_code == 422


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("2030-01-31", "2030-01-31T00:00:00+00:00"),
        ("2030-01-31T12:30", "2030-01-31T12:30:00+00:00"),
        ("2030-01-31 12:30:01", "2030-01-31T12:30:01+00:00"),
        ("2030-01-31T12:30:01.5Z", "2030-01-31T12:30:01.500000+00:00"),
        ("2030-01-31T12:30:01+02:00", "2030-01-31T12:30:01+02:00"),
    ],
)
def test_dates_and_times_are_read_as_utc_unless_they_name_a_zone(value, read):
    service = FakeService()
    body = {"query": "a", "filters": {"added_from": value}}
    assert local_client(fake_app(service)).post("/v1/search", json=body).status_code == 200
    assert service.searches[0][0].filters.added_from.isoformat() == read


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        ("min_width_px", "max_width_px", (11, 10)),
        ("min_height_px", "max_height_px", (2, 1)),
        ("added_from", "added_before", ("2030-01-02", "2030-01-01T23:59:59Z")),
        ("added_from", "added_before", ("2030-01-01T00:00:00-02:00", "2030-01-01T01:00:00")),
    ],
)
def test_range_in_the_wrong_order_is_refused(low, high, values):
    refused = post({"query": "a", "filters": dict(zip((low, high), values, strict=True))})
    assert error_of(refused) == (422, "invalid_value", "filters")
    assert f"`{low}` above `{high}`" in refused.json()["error"]["message"]
    assert post({"query": "a", "filters": {low: values[1], high: values[0]}}).status_code == 200


# ---- values of another type


@pytest.mark.parametrize("value", ["true", '"1"', '"٣"', "1.5", "NaN", "Infinity", "-Infinity", "1e999",
                                   "9" * 4000, "1e9", "-1", "0", "null", "[]", "{}"])  # fmt: skip
@pytest.mark.parametrize("name", ["k", "diversity.num_candidates", "filters.min_width_px"])
def test_whole_numbers_are_not_converted(name, value):
    text = value
    for part in reversed(name.split(".")):
        text = f'{{"{part}": {text}}}'
    answer = post(b'{"query": "a", ' + text[1:].encode())
    if not (name == "filters.min_width_px" and value == "null"):
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, name)


@pytest.mark.parametrize("value", ["true", '"0.5"', "NaN", "Infinity", "-Infinity", "1e999", "[]", "1" * 400])
@pytest.mark.parametrize("name", ["image_weight", "negative_weight", "tastes.brightness",
                                  "filters.min_aesthetic", "diversity.weight"])  # fmt: skip
def test_shares_are_finite_numbers_within_bounds(name, value):
    text = value
    for part in reversed(name.split(".")):
        text = f'{{"{part}": {text}}}'
    answer = post(b'{"query": "a", ' + text[1:].encode())
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, name)


# ---- bodies made to be slow

MILLION = {
    "unknown fields": b'{"query": "a", ' + b",".join(b'"f%d":1' % n for n in range(900_000)) + b"}",
    "unknown fields beside an image": b'{"image": {"data": "QUJD"}, '
    + b",".join(b'"f%d":1' % n for n in range(800_000)) + b"}",
    "images": b'{"image": {' + b'"data":"",' * 1_000_000 + b'"url":""}}',
    "equal fields": b"{" + b'"query":"a",' * 800_000 + b'"k":1}',
    "negatives": b'{"query": "a", "negatives": [' + b'"b",' * 2_000_000 + b'"b"]}',
    "tastes": b'{"query": "a", "tastes": {' + b",".join(b'"f%d":2' % n for n in range(900_000)) + b"}}",
    "searches": b'{"searches": [' + b'{"k":0},' * 1_000_000 + b"{}]}",
    "levels": b'{"query": ' + b"[" * 9_000_000,
    "digits": b'{"query": "a", "k": ' + b"9" * 9_000_000 + b"}",
    "blanks": b'{"query": "a"' + b" " * 9_000_000 + b"}",
}  # fmt: skip
LARGEST = 250_000


def shrunk(body: bytes) -> bytes:
    """The start of the body up to the limit of a body without an image, ended so that it stays valid JSON."""
    cut = body[: body.rindex(b",", 0, LARGEST)]
    opened = [char for char in cut.decode() if char in "{["]
    closed = cut.count(b"}") + cut.count(b"]")
    ends = {"{": b"}", "[": b"]"}
    return cut + b"".join(ends[char] for char in reversed(opened[: len(opened) - closed]))


@pytest.mark.parametrize("name", MILLION)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/feedback"])
def test_large_body_without_an_image_is_refused_at_once(name, path):
    started = time.perf_counter()
    answer = post(MILLION[name], path)
    seconds = time.perf_counter() - started
    assert error_of(answer) == (413, "body_too_large", "")
    assert seconds < 1  # 20 to 50 ms on an idle machine


@pytest.mark.parametrize("name", ["unknown fields", "equal fields", "negatives", "tastes", "searches"])
@pytest.mark.parametrize("path", ["/v1/search", "/v1/feedback"])
def test_largest_body_is_validated_at_once(name, path):
    body = shrunk(MILLION[name])
    assert len(body) > LARGEST - 100 and json.loads(body)
    started = time.perf_counter()
    answer = post(body, path)
    seconds = time.perf_counter() - started
    assert answer.status_code == (200 if name == "equal fields" and path == "/v1/search" else 422)
    assert seconds < 0.5  # 5 to 20 ms on an idle machine


def test_image_may_be_as_large_as_the_upload_limit():
    data = "QUJD" * 2_000_000
    assert post({"image": {"data": data}}, max_upload_bytes=6_000_000).status_code == 200
    escaped = b'{"image": {"data" : "' + b"QU\\/D" * 1_000_000 + b'"}}'
    assert post(escaped, max_upload_bytes=6_000_000).status_code == 200
    searches = {"searches": [{"image": {"data": data[:3_000_000]}}, {"image": {"data": data[:3_000_000]}}]}
    assert post(searches, max_upload_bytes=6_000_000).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 40_000, b'{"query": ' + b"[" * 500 + b"]" * 500 + b"}", b"\x1f\x8b\x08 gzip",
     b'{"query": "\xff"}', b'{"query": "a"} {}', b"NaN", b'"', b'{"query": "a", "k": ' + b"9" * 5000 + b"}",
     b'{"\\ud800": 1}', b'{"query": "\\ud83d"}', b'{"negatives": ["\\udc00"]}', b"\xff\xfe{\0"],
)  # fmt: skip
def test_broken_json_is_refused(body):
    assert post(body).status_code in (400, 422)
    assert post(body, "/v1/feedback").status_code in (400, 422)


def test_compressed_and_multipart_bodies_are_refused():
    compressed = {**JSON, "Content-Encoding": "gzip"}
    assert client().post("/v1/search", content=b"\x1f\x8b\x08\0", headers=compressed).status_code == 400
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n' for _ in range(4000))
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client().post("/v1/search", content=parts, headers=form).status_code == 415


# ---- methods

GET_PATHS = ["/", "/docs", "/page/main.css", "/page/favicon.svg", "/healthz", "/readyz", "/openapi.json",
             "/v1/examples", "/v1/tastes", f"/v1/images/{IMAGE_IDS[0]}/preview",
             f"/v1/images/{IMAGE_IDS[0]}/why?query=a", "/nothing",
             f"/v1/images/{'0' * 64}/preview"]  # fmt: skip


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_is_answered_as_get_without_the_body(path):
    get, head = client().get(path), client().head(path)
    assert head.status_code == get.status_code and head.content == b"" != get.content
    assert {**head.headers, "x-request-id": ""} == {**get.headers, "x-request-id": ""}
    if etag := get.headers.get("etag"):
        assert client().head(path, headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/v1/search", "OPTIONS, POST"),
        (f"/v1/images/{IMAGE_IDS[0]}", "DELETE, OPTIONS"),
    ],
)
def test_options_lists_the_methods_of_a_path(path, allowed):
    answer = client().options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
    assert not any(name.startswith("access-control") for name in answer.headers)
    for method in ("TRACE", "PUT", "BREW"):
        refused = client().request(method, path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert client().options("/nothing").status_code == 404
