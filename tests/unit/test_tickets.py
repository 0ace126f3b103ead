"""Search ids: what goes in comes out, for the same images alone, for a day, and for nobody else's secret."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.feedback.signed_ids import Ticket, Tickets
from serve_app.http.errors import ApiError

IMAGES = ["a" * 64, "b" * 64]
ENCODER = "0123456789abcdef"
TICKETS = Tickets(b"secret")
ISSUED = TICKETS.issue("red boat", "live", ENCODER, IMAGES, 1000.25)


def refusal(search_id: str, images=IMAGES, now=1001.0, tickets=TICKETS) -> tuple[int, str, str]:
    with pytest.raises(ApiError) as caught:
        tickets.read(search_id, images, now, "other_search_id")
    return caught.value.status_code, caught.value.code, caught.value.field


@given(query=st.text(max_size=500), images=st.lists(st.sampled_from(IMAGES), max_size=5))
def test_what_was_issued_is_read_back_by_any_replica_with_the_secret(query, images):
    search_id = TICKETS.issue(query, "candidate", ENCODER, images, 1000.25)
    assert Tickets(b"secret").read(search_id, images, 1000.5) == Ticket(query, "candidate", ENCODER, 1000.25)


def test_an_id_is_url_safe_and_short_whatever_the_query():
    assert len(ISSUED) < 150 and set(ISSUED) <= set(
        base64.urlsafe_b64encode(bytes(range(256))).decode() + "-_"
    )
    assert len(TICKETS.issue("\U0001f6a4" * 500, "candidate", ENCODER, IMAGES * 500, 2e9)) < 2900


@pytest.mark.parametrize(
    "images", [IMAGES[::-1], IMAGES[:1], [*IMAGES, "c" * 64], []], ids=["order", "fewer", "more", "none"]
)
def test_other_images_than_those_that_were_answered_are_refused(images):
    assert refusal(ISSUED, images) == (422, "bad_search_id", "other_search_id")


@pytest.mark.parametrize(
    "search_id", ["", "x", "abcd", "é" * 8, "=" * 8, ISSUED[:-4], ISSUED + "AAAA", "a b"]
)
def test_what_is_no_id_is_refused(search_id):
    assert refusal(search_id)[:2] == (422, "bad_search_id")


def test_no_character_of_an_id_can_be_changed():
    assert len(ISSUED) % 4, "its last character has bits that say nothing: they count all the same"
    for place, character in enumerate(ISSUED):
        changed = ISSUED[:place] + ("A" if character != "A" else "B") + ISSUED[place + 1 :]
        assert refusal(changed)[:2] == (422, "bad_search_id")


def test_another_secret_reads_nothing():
    assert refusal(ISSUED, tickets=Tickets(b"other"))[:2] == (422, "bad_search_id")


def test_an_id_is_good_for_a_day():
    day = 24 * 3600
    assert TICKETS.read(ISSUED, IMAGES, 1000.25 + day).query == "red boat"
    assert refusal(ISSUED, now=1000.5 + day) == (422, "expired_search_id", "other_search_id")


def test_a_clients_name_cannot_be_told_from_its_pseudonym_without_the_secret():
    name = TICKETS.pseudonym("10.0.0.1")
    assert len(name) == 16 and name == Tickets(b"secret").pseudonym("10.0.0.1")
    assert name not in (TICKETS.pseudonym("10.0.0.2"), Tickets(b"other").pseudonym("10.0.0.1"))
