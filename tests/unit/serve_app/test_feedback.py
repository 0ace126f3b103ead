"""Feedback: invalid events are refused, valid ones stored once, never lost, and turned into preferences."""

import asyncio
import itertools
import signal
import subprocess
import sys
import textwrap
from collections import defaultdict
from types import SimpleNamespace

import pyarrow as pa
import pytest

from cluster.profile import ROOT
from cluster.tables import SCHEMAS
from cluster.votes.events import same_words, same_words_sql
from serve_app.errors import ApiError
from serve_app.feedback import events as module
from serve_app.feedback.events import Feedback, make_tables, store_events
from serve_app.feedback.signed_ids import SignedIds
from serve_app.models import FeedbackRequest, FeedbackResponse

SHOWN = [f"{index:064x}" for index in range(8)]
OTHERS = [f"{index:064x}" for index in range(4, 12)]
SIGNED_IDS = SignedIds(b"secret")
ANSWERED = 1000.0


def event(
    kind: str, *, query="red boat", encoder="a" * 16, other_query="red boat", answered=ANSWERED, **fields
) -> FeedbackRequest:
    """An event about an answer with `SHOWN`; a blind one compares it with `OTHERS` of another encoder.

    Answers at different times have different ids.
    """
    search_id = SIGNED_IDS.issue(query, "live", encoder, SHOWN, answered)
    if kind == "blind":
        other = SIGNED_IDS.issue(other_query, "baseline", "b" * 16, OTHERS, ANSWERED + 5)
        fields = {"other_search_id": other, "other_results": OTHERS, **fields}
    return FeedbackRequest(**{"kind": kind, "search_id": search_id, "results": SHOWN, **fields})


def click(index: int, **fields) -> FeedbackRequest:
    return event("click", image_id=SHOWN[index], **fields)


@pytest.fixture
def store(store):
    """A store with the images of both answers."""
    images = [{"image_id": image_id} for image_id in {*SHOWN, *OTHERS}]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    return store


@pytest.fixture
def clock():
    return SimpleNamespace(now=ANSWERED + 60)


@pytest.fixture
def record(store, clock):
    """Records the events of a call concurrently, each call at a new replica."""

    def call(*events: FeedbackRequest, client="ada", **settings) -> list[FeedbackResponse]:
        async def run():
            feedback = Feedback(store, SIGNED_IDS, clock=lambda: clock.now, **settings)
            return await asyncio.gather(*(feedback.record(one, client, "here") for one in events))

        return asyncio.run(run())

    return call


def preferences(store) -> list[tuple[int, int]]:
    """(winner, loser) of every preference, as indices into `SHOWN`, sorted."""
    rows = store.read("preferences").to_pylist() if store.exists("preferences") else []
    return sorted((SHOWN.index(row["winner"]), SHOWN.index(row["loser"])) for row in rows)


def test_click_is_preferred_to_the_four_nearest_skipped_images(record, store):
    (answer,) = record(click(6))
    assert (answer.new, answer.num_preferences) == (True, 4)
    assert preferences(store) == [(6, 2), (6, 3), (6, 4), (6, 5)]
    row = store.read("preferences").to_pylist()[0]
    assert (row["query"], row["rephrased"], row["style"]) == ("red boat", "red boat", "original")
    assert (row["source"], row["judge"], row["consistent"]) == ("human", "human", True)
    assert row["p_winner"] == pytest.approx(0.65) and row["winner_cell"] == [0, 6]
    assert row["run_id"] == f"feedback-{answer.event_id[:16]}"


def test_images_clicked_before_by_the_same_person_do_not_count_as_skipped(record, store):
    assert record(click(1))[0].num_preferences == 1
    assert [answer.num_preferences for answer in record(click(3), click(4))] == [2, 2]
    assert preferences(store) == [(1, 0), (3, 0), (3, 2), (4, 0), (4, 2)]
    answers = record(click(2, answered=ANSWERED + 1), client="bob")
    assert answers[0].num_preferences == 2, "clicks of another person do not count"


def test_click_on_the_first_image_is_stored_without_preferences(record, store):
    assert record(click(0))[0].num_preferences == 0
    assert store.count("feedback") == 1 and not store.exists("preferences")


def test_prefer_gives_one_preference(record, store):
    (answer,) = record(event("prefer", image_id=SHOWN[5], over=SHOWN[2]))
    assert answer.num_preferences == 1 and preferences(store) == [(5, 2)]
    assert store.read("preferences")["p_winner"].to_pylist() == [pytest.approx(0.9)]


def test_blind_comparison_is_stored_as_a_vote_without_preferences(record, store):
    (answer,) = record(event("blind", accuracy="a", diversity="tie"))
    assert answer.new and answer.num_preferences == 0
    (row,) = store.read("feedback").to_pylist()
    assert (row["accuracy"], row["aesthetics"], row["diversity"]) == ("a", "", "tie")
    assert (row["system"], row["encoder"], row["image_ids"]) == ("live", "a" * 16, SHOWN)
    assert (row["other_system"], row["other_encoder"], row["other_image_ids"]) == (
        "baseline",
        "b" * 16,
        OTHERS,
    )


def test_click_on_an_answer_without_query_gives_no_preferences(record, store):
    assert record(click(3, query=""))[0].num_preferences == 0
    assert store.count("feedback") == 1


def test_client_name_is_stored_as_a_pseudonym(record, store):
    record(click(3), client="10.1.2.3")
    (row,) = store.read("feedback").to_pylist()
    assert row["client"] == SIGNED_IDS.pseudonym("10.1.2.3") and "10.1.2.3" not in str(row)


def test_repeated_event_adds_nothing_at_any_replica(record, store):
    first, *copies = record(click(6), click(6), click(6))
    (later,) = record(click(6))
    assert [answer.new for answer in (first, *copies, later)] == [True, False, False, False]
    assert {answer.event_id for answer in (first, *copies, later)} == {first.event_id}
    assert later.num_preferences == 0
    assert store.count("feedback") == 1 and store.count("preferences") == 4


def test_equal_choices_of_two_people_both_count(record, store):
    record(click(1), client="ada")
    record(click(1, answered=ANSWERED + 1), client="bob")
    assert preferences(store) == [(1, 0), (1, 0)]


def prefer(winner: int, loser: int, **fields) -> FeedbackRequest:
    return event("prefer", image_id=SHOWN[winner], over=SHOWN[loser], **fields)


def test_all_names_on_one_answer_are_one_person(store, monkeypatch):
    """A search_id is given to one client; invented names make no further voters of it."""
    monkeypatch.setattr(module, "CLIENTS_PER_GROUP", 300)
    choices = {"prefer": prefer(5, 2), "click": click(3), "blind": blind(accuracy="a")}

    async def run(choice):
        feedback = Feedback(store, SIGNED_IDS, clock=lambda: ANSWERED + 60)
        return await asyncio.gather(*(feedback.record(choice, f"name {n}", "here") for n in range(300)))

    for kind, choice in choices.items():
        answers = asyncio.run(run(choice))
        assert sum(answer.new for answer in answers) == 1
        assert store.count("feedback", f"kind = '{kind}'") == 1
    assert preferences(store) == [(3, 0), (3, 1), (3, 2), (5, 2)]


def test_last_choice_between_two_images_replaces_the_earlier_ones_of_the_same_person(record, store):
    for winner, loser in ((5, 2), (2, 5), (5, 2), (5, 2)):
        record(prefer(winner, loser))
        assert preferences(store) == [(winner, loser)]
    assert store.count("feedback") == 3, "only the repeated choice is known already"
    record(prefer(2, 5, answered=ANSWERED + 9), client="bob")
    assert preferences(store) == [(2, 5), (5, 2)], "another person has a vote too"


@pytest.mark.parametrize(
    "again",
    [
        {"answered": ANSWERED + 1},
        {"query": "Red  BOAT", "answered": ANSWERED + 1},
        {"encoder": "c" * 16, "answered": ANSWERED + 1},
    ],
    ids=["another answer", "other spelling", "another encoder"],
)
def test_another_answer_to_the_same_query_does_not_give_a_second_vote(record, store, again):
    record(prefer(5, 2))
    assert not record(prefer(5, 2, **again))[0].new
    record(prefer(2, 5, **again))
    assert preferences(store) == [(2, 5)]


INVISIBLE = {
    "zero-width": "red\u200b boat", "direction": "\u202ered boat", "separator": "red\x1cboat",
    "NUL": "red\0boat", "next line": "red\x85boat", "BOM": "\ufeffred boat", "wide blank": "red\u3000boat",
}  # fmt: skip


@pytest.mark.parametrize("first", ["red boat", "red\x1cboat"])
@pytest.mark.parametrize("name", INVISIBLE)
def test_spelling_that_looks_the_same_does_not_give_a_second_vote(record, store, name, first):
    again = {"query": INVISIBLE[name], "answered": ANSWERED + 1}
    record(event("prefer", image_id=SHOWN[1], over=SHOWN[2], query=first))
    record(event("prefer", image_id=SHOWN[2], over=SHOWN[1], **again))
    assert preferences(store) == [(2, 1)]


def test_database_finds_every_text_with_the_same_words(store):
    letters = [chr(code) for code in range(1, 0x3100) if not 0xD800 <= code < 0xE000]
    texts = [f"{letter}a{letter}B {letter}" for letter in letters] + ["ΟΔΟΣ ΟΔΟΣ", "İ", "ẞ"]
    store.merge("texts", pa.table({"text": texts}), on=["text"])
    found = store.open("texts").search().select({"text": "text", "words": same_words_sql("text")})
    in_database = defaultdict(set)
    for row in found.limit(len(texts)).to_list():
        in_database[same_words(row["text"])].add(row["words"])
    assert len(in_database) > 1000 and all(len(words) == 1 for words in in_database.values())


def test_click_and_direct_choice_on_the_same_images_are_one_vote(record, store):
    record(prefer(0, 1))
    record(click(1))
    assert preferences(store) == [(1, 0)]
    assert record(prefer(0, 1))[0].new
    assert preferences(store) == [(0, 1)]


def test_opposite_choices_at_two_replicas_at_once_leave_the_later_one(store, monkeypatch):
    """Neither replica sees the other's event before it writes its own."""
    answer = SIGNED_IDS.read(prefer(5, 2).search_id, SHOWN, ANSWERED)
    rows = [module.event_row(one, "ada", answer, None) for one in (prefer(5, 2), prefer(2, 5))]
    plain, reads = module._earlier_events, itertools.count()
    monkeypatch.setattr(module, "_earlier_events", lambda *args: plain(*args) if next(reads) % 2 else [])
    for row in reversed(rows):  # the later choice is written first
        store_events(store, [row])
    assert store.count("feedback") == 2 and preferences(store) == [(2, 5)]


def test_blind_comparison_with_swapped_sides_is_known(record, store):
    record(blind(accuracy="a", aesthetics="tie"))
    one = blind(accuracy="b", aesthetics="tie")
    sides = {"search_id": one.other_search_id, "results": OTHERS}
    others = {"other_search_id": one.search_id, "other_results": SHOWN}
    assert not record(one.model_copy(update={**sides, **others}))[0].new
    assert record(blind(accuracy="b", aesthetics="tie"))[0].new, "another verdict is new"
    assert store.count("feedback") == 2


def test_new_names_of_one_key_or_address_are_limited_in_a_day(store):
    async def run():
        feedback = Feedback(store, SIGNED_IDS, clock=lambda: ANSWERED + 60)
        answers = [prefer(5, 2, answered=ANSWERED + number / 100) for number in range(300)]
        calls = (feedback.record(one, f"name {n}", "here") for n, one in enumerate(answers))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(run())
    assert [answer.new for answer in answers[:10]] == [True] * 10
    assert {(one.status_code, one.code) for one in answers[10:]} == {(429, "too_many")}
    assert all(3600 < int(one.headers["Retry-After"]) <= 24 * 3600 for one in answers[10:])
    assert preferences(store) == [(5, 2)] * 10


def test_concurrent_events_are_written_in_few_batches(record, store, monkeypatch):
    sizes = []
    plain = module.store_events
    monkeypatch.setattr(module, "store_events", lambda *args: (sizes.append(len(args[1])), plain(*args))[1])
    answers = record(*(click(index, query=f"query {number}") for index in (5, 6) for number in range(20)))
    assert sum(sizes) == 40 and len(sizes) < 5
    assert all(answer.new for answer in answers) and store.count("feedback") == 40


def test_of_two_concurrent_replicas_only_one_reports_the_event_as_new(store, monkeypatch):
    """Both read the stored events before either writes."""
    rows = [
        module.event_row(click(3), "ada", SIGNED_IDS.read(click(3).search_id, SHOWN, ANSWERED), None)
        for _ in "ab"
    ]
    monkeypatch.setattr(module, "_earlier_events", lambda store, rows: [])
    responses = [store_events(store, [row])[0] for row in rows]
    assert [response.new for response in responses] == [True, False]
    assert store.count("feedback") == 1 and store.count("preferences") == 3


def test_event_interrupted_after_its_preferences_is_completed_when_repeated(record, store, monkeypatch):
    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(module, "_write_events", fail)
    with pytest.raises(OSError, match="no space"):
        record(click(6))
    assert store.count("preferences") == 4 and not store.exists("feedback")
    monkeypatch.undo()
    assert record(click(6))[0].new
    assert store.count("preferences") == 4 and store.count("feedback") == 1


def test_small_files_are_compacted(record, store, monkeypatch):
    monkeypatch.setattr(module, "MAX_FRAGMENTS", 3)
    for number in range(6):
        record(click(3, query=f"query {number}"))
    assert len(store.open("feedback").to_lance().get_fragments()) <= 4
    assert store.count("feedback") == 6 and store.count("preferences") == 18


@pytest.mark.parametrize("deleted", [SHOWN[1], SHOWN[7]], ids=["above the click", "below it"])
def test_event_on_an_answer_with_a_deleted_image_is_refused(record, store, deleted):
    record(click(6), client="ada")
    store.delete_image(deleted)
    for choice in (
        click(6),
        event("prefer", image_id=SHOWN[5], over=SHOWN[2]),
        blind(accuracy="a"),
    ):
        with pytest.raises(ApiError) as caught:
            record(choice, client="ada")
        assert (caught.value.status_code, caught.value.code) == (422, "unknown_result")
        assert caught.value.field == "results"
    assert store.count("feedback") == 0
    named = store.read("preferences").select(["winner", "loser"]).to_pydict()
    assert deleted not in {*named["winner"], *named["loser"]}


def test_valid_events_of_a_batch_with_a_refused_one_are_stored(store):
    store.delete_image(OTHERS[-1])  # an image of the blind comparison only
    events = [click(1), blind(accuracy="a"), click(2)]
    other = SIGNED_IDS.read(events[1].other_search_id, OTHERS, ANSWERED + 60)
    answer = SIGNED_IDS.read(events[0].search_id, SHOWN, ANSWERED + 60)
    rows = [module.event_row(one, "ada", answer, other if one.kind == "blind" else None) for one in events]
    first, refused, last = store_events(store, rows)
    assert (first.event_id, last.event_id) == (rows[0]["event_id"], rows[2]["event_id"])
    assert first.new and last.new and isinstance(refused, ApiError)
    assert store.count("feedback") == 2


UNKNOWN = "f" * 64
OTHER = "other_search_id"


def blind(**fields) -> FeedbackRequest:
    return event("blind", **fields)


REFUSED = {
    "image not shown": (click(3).model_copy(update={"image_id": UNKNOWN}), "unknown_result", "image_id"),
    "over not shown": (event("prefer", image_id=SHOWN[0], over=UNKNOWN), "unknown_result", "over"),
    "the same image": (event("prefer", image_id=SHOWN[0], over=SHOWN[0]), "same_image", "over"),
    "prefer without over": (event("prefer", image_id=SHOWN[0]), "missing_field", "over"),
    "click without one": (event("click"), "missing_field", "image_id"),
    "click with over": (click(3, over=SHOWN[0]), "unknown_field", "over"),
    "click with a verdict": (click(3, accuracy="a"), "unknown_field", "accuracy"),
    "blind without a verdict": (blind(), "missing_field", "accuracy"),
    "blind without the other": (blind(accuracy="a", other_search_id=""), "missing_field", OTHER),
    "blind without its images": (blind(accuracy="a", other_results=[]), "missing_field", "other_results"),
    "another query": (blind(accuracy="a", other_query="blue boat"), "other_query", OTHER),
    "one encoder": (blind(accuracy="a", encoder="b" * 16), "same_encoder", OTHER),
    "a forged id": (click(3).model_copy(update={"search_id": "x" * 80}), "bad_search_id", "search_id"),
    "other images": (click(3).model_copy(update={"results": SHOWN[:5]}), "bad_search_id", "search_id"),
    "other images of b": (blind(accuracy="a", other_results=SHOWN), "bad_search_id", OTHER),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_event_is_refused_and_not_stored(record, store, name):
    refused, code, field = REFUSED[name]
    with pytest.raises(ApiError) as caught:
        record(refused)
    assert (caught.value.status_code, caught.value.code, caught.value.field) == (422, code, field)
    assert not store.exists("feedback")


def test_answer_older_than_a_day_is_refused(record, clock):
    clock.now = ANSWERED + 25 * 3600
    with pytest.raises(ApiError) as caught:
        record(click(3))
    assert (caught.value.status_code, caught.value.code) == (422, "expired_search_id")


@pytest.mark.parametrize(
    ("choice", "too_soon_s", "enough_s"),
    [
        (click(3), 0.2, 0.4),
        (event("prefer", image_id=SHOWN[1], over=SHOWN[0]), 0.9, 1.1),
        (event("blind", accuracy="tie"), 5.9, 6.1),  # the other answer came five seconds later
    ],
    ids=["click", "prefer", "blind"],
)
def test_event_faster_than_a_person_can_choose_is_refused(record, clock, choice, too_soon_s, enough_s):
    clock.now = ANSWERED + too_soon_s
    with pytest.raises(ApiError) as caught:
        record(choice)
    assert (caught.value.status_code, caught.value.code) == (429, "too_fast")
    assert caught.value.headers == {"Retry-After": "1"}
    clock.now = ANSWERED + enough_s
    assert record(choice)[0].new


def test_events_of_one_client_are_limited(store):
    async def run():
        feedback = Feedback(store, SIGNED_IDS, events_per_minute=3, clock=lambda: ANSWERED + 60)
        for index in range(3):
            await feedback.record(click(index), "ada", "here")
        with pytest.raises(ApiError) as caught:
            await feedback.record(click(3), "ada", "here")
        return caught.value, await feedback.record(click(3), "bob", "here")

    refused, other = asyncio.run(run())
    assert (refused.status_code, refused.code) == (429, "too_many")
    assert 50 <= int(refused.headers["Retry-After"]) <= 61
    assert other.new and store.count("feedback") == 4


def test_changing_client_names_does_not_evade_the_limit_of_a_group(store, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_PER_GROUP", 2)

    async def run():
        feedback = Feedback(store, SIGNED_IDS, events_per_minute=1, clock=lambda: ANSWERED + 60)
        await feedback.record(click(1), "ada", "here")
        with pytest.raises(ApiError, match="No more than 1 event"):  # a refused event does not count
            await feedback.record(click(2), "ada", "here")
        await feedback.record(click(1), "bob", "here")
        with pytest.raises(ApiError) as caught:
            await feedback.record(click(1), "eli", "here")
        return caught.value, await feedback.record(click(1, answered=ANSWERED + 1), "eli", "there")

    refused, other = asyncio.run(run())
    assert (refused.status_code, refused.code) == (429, "too_many") and "No more than 2" in refused.detail
    assert other.new


def test_make_tables_keeps_existing_rows(record, store):
    make_tables(store)
    assert store.count("feedback") == store.count("preferences") == 0
    record(click(6))
    make_tables(store)
    assert store.count("feedback") == 1 and store.count("preferences") == 4


RECORD_UNTIL_KILLED = """
    import asyncio, sys, time
    from cluster.tables import Store
    from serve_app.feedback.events import Feedback
    from serve_app.models import FeedbackRequest
    from serve_app.feedback.signed_ids import SignedIds

    async def click(feedback, number):
        shown = [f"{index:064x}" for index in range(8)]
        search_id = signed_ids.issue(f"query {number}", "live", "a" * 16, shown, time.time() - 10)
        event = FeedbackRequest(kind="click", search_id=search_id, results=shown, image_id=shown[3])
        print((await feedback.record(event, "ada", "here")).event_id, flush=True)

    async def main():
        feedback = Feedback(Store(sys.argv[1]), signed_ids, events_per_minute=100_000)
        for start in range(0, 100_000, 4):
            await asyncio.gather(*(click(feedback, start + more) for more in range(4)))

    signed_ids = SignedIds(b"secret")
    asyncio.run(main())
"""


def test_events_reported_as_stored_survive_a_kill(store):
    script = textwrap.dedent(RECORD_UNTIL_KILLED)
    command = [sys.executable, "-c", script, store.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        event_ids = [child.stdout.readline().strip() for _ in range(30)]  # of several batches
        child.send_signal(signal.SIGKILL)
        event_ids += child.stdout.read().split()
    assert child.returncode == -signal.SIGKILL and len(set(event_ids)) == len(event_ids) >= 30
    stored = store.read("feedback")["event_id"].to_pylist()
    assert set(event_ids) <= set(stored) and len(set(stored)) == len(stored)
    runs = store.read("preferences")["run_id"].to_pylist()
    assert {f"feedback-{event_id[:16]}" for event_id in stored} <= set(runs)
    assert all(runs.count(run) == 3 for run in set(runs))
