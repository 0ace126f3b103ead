"""Signed search ids: readable with the same images and secret only, and for a day."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import ApiError
from serve_app.feedback.signed_ids import SignedAnswer, SignedIds

IMAGES = ["a" * 64, "b" * 64]
ENCODER = "0123456789abcdef"
SIGNED_IDS = SignedIds(b"secret")
ISSUED = SIGNED_IDS.issue("red boat", "live", ENCODER, IMAGES, 1000.25)


def refusal(search_id: str, images=IMAGES, now=1001.0, signed_ids=SIGNED_IDS) -> tuple[int, str, str]:
    with pytest.raises(ApiError) as caught:
        signed_ids.read(search_id, images, now, "other_search_id")
    return caught.value.status_code, caught.value.code, caught.value.field


@given(query=st.text(max_size=500), images=st.lists(st.sampled_from(IMAGES), max_size=5))
def test_id_is_read_by_any_replica_with_the_secret(query, images):
    search_id = SIGNED_IDS.issue(query, "candidate", ENCODER, images, 1000.25)
    assert SignedIds(b"secret").read(search_id, images, 1000.5) == SignedAnswer(
        query, "candidate", ENCODER, 1000.25
    )


def test_id_is_url_safe_and_short_for_any_query():
    assert len(ISSUED) < 150 and set(ISSUED) <= set(
        base64.urlsafe_b64encode(bytes(range(256))).decode() + "-_"
    )
    assert len(SIGNED_IDS.issue("\U0001f6a4" * 500, "candidate", ENCODER, IMAGES * 500, 2e9)) < 2900


@pytest.mark.parametrize(
    "images", [IMAGES[::-1], IMAGES[:1], [*IMAGES, "c" * 64], []], ids=["order", "fewer", "more", "none"]
)
def test_id_is_refused_with_other_images_than_those_of_the_answer(images):
    assert refusal(ISSUED, images) == (422, "bad_search_id", "other_search_id")


@pytest.mark.parametrize(
    "search_id", ["", "x", "abcd", "é" * 8, "=" * 8, ISSUED[:-4], ISSUED + "AAAA", "a b"]
)
def test_malformed_id_is_refused(search_id):
    assert refusal(search_id)[:2] == (422, "bad_search_id")


def test_changing_any_character_invalidates_the_id():
    assert len(ISSUED) % 4, "the unused bits of the last character must count as well"
    for index, character in enumerate(ISSUED):
        changed = ISSUED[:index] + ("A" if character != "A" else "B") + ISSUED[index + 1 :]
        assert refusal(changed)[:2] == (422, "bad_search_id")


def test_id_is_refused_with_another_secret():
    assert refusal(ISSUED, signed_ids=SignedIds(b"other"))[:2] == (422, "bad_search_id")


def test_id_expires_after_a_day():
    day = 24 * 3600
    assert SIGNED_IDS.read(ISSUED, IMAGES, 1000.25 + day).query == "red boat"
    assert refusal(ISSUED, now=1000.5 + day) == (422, "expired_search_id", "other_search_id")


def test_pseudonym_depends_on_the_client_and_the_secret():
    name = SIGNED_IDS.pseudonym("10.0.0.1")
    assert len(name) == 16 and name == SignedIds(b"secret").pseudonym("10.0.0.1")
    assert name not in (SIGNED_IDS.pseudonym("10.0.0.2"), SignedIds(b"other").pseudonym("10.0.0.1"))
