"""What people choose: refused when it cannot be, kept once, never lost, and turned into preferences."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pyarrow as pa
import pytest

from cluster.profile import ROOT
from cluster.tables import SCHEMAS
from serve_app.feedback import events as module
from serve_app.feedback.events import Feedback, keep, make_tables
from serve_app.feedback.signed_ids import Tickets
from serve_app.http.errors import ApiError
from serve_app.http.models import FeedbackRequest, FeedbackResponse

SHOWN = [f"{number:064x}" for number in range(8)]
OTHERS = [f"{number:064x}" for number in range(4, 12)]
TICKETS = Tickets(b"secret")
ANSWERED = 1000.0


def event(
    kind: str, *, query="red boat", encoder="a" * 16, other_query="red boat", **fields
) -> FeedbackRequest:
    """An event about an answer with `SHOWN`; a blind one compares it with `OTHERS` of another encoder."""
    search_id = TICKETS.issue(query, "live", encoder, SHOWN, ANSWERED)
    if kind == "blind":
        other = TICKETS.issue(other_query, "baseline", "b" * 16, OTHERS, ANSWERED + 5)
        fields = {"other_search_id": other, "other_results": OTHERS, **fields}
    return FeedbackRequest(**{"kind": kind, "search_id": search_id, "results": SHOWN, **fields})


def click(place: int, **fields) -> FeedbackRequest:
    return event("click", image_id=SHOWN[place], **fields)


@pytest.fixture
def store(store):
    """The store with the images of both answers."""
    images = [{"image_id": image_id} for image_id in {*SHOWN, *OTHERS}]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    return store


@pytest.fixture
def clock():
    return SimpleNamespace(now=ANSWERED + 60)


@pytest.fixture
def taker(store, clock):
    """Take events one after the other, or lists of them at once: by a fresh replica for each call."""

    def take(*events: FeedbackRequest, client="ada", **settings) -> list[FeedbackResponse]:
        async def run():
            feedback = Feedback(store, TICKETS, clock=lambda: clock.now, **settings)
            return await asyncio.gather(*(feedback.take(one, client, "here") for one in events))

        return asyncio.run(run())

    return take


def preferences(store) -> list[tuple[int, int]]:
    """Which place of `SHOWN` is preferred to which, sorted."""
    rows = store.read("preferences").to_pylist() if store.exists("preferences") else []
    return sorted((SHOWN.index(row["winner"]), SHOWN.index(row["loser"])) for row in rows)


def test_a_click_is_better_than_the_four_nearest_above_it(taker, store):
    (answer,) = taker(click(6))
    assert (answer.new, answer.num_preferences) == (True, 4)
    assert preferences(store) == [(6, 2), (6, 3), (6, 4), (6, 5)]
    row = store.read("preferences").to_pylist()[0]
    assert (row["query"], row["rephrased"], row["style"]) == ("red boat", "red boat", "original")
    assert (row["source"], row["judge"], row["consistent"]) == ("human", "human", True)
    assert row["p_winner"] == pytest.approx(0.65) and row["winner_cell"] == [0, 6]
    assert row["run_id"] == f"feedback-{answer.event_id[:16]}"


def test_what_the_same_person_clicked_before_was_not_passed_over(taker, store):
    assert taker(click(1))[0].num_preferences == 1
    assert [answer.num_preferences for answer in taker(click(3), click(4))] == [2, 2]
    assert preferences(store) == [(1, 0), (3, 0), (3, 2), (4, 0), (4, 2)]
    assert taker(click(2), client="bob")[0].num_preferences == 2, "another person's clicks are another's"


def test_a_click_on_the_first_image_is_kept_and_prefers_nothing(taker, store):
    assert taker(click(0))[0].num_preferences == 0
    assert store.count("feedback") == 1 and not store.exists("preferences")


def test_preferring_one_image_to_another_is_one_preference(taker, store):
    (answer,) = taker(event("prefer", image_id=SHOWN[5], over=SHOWN[2]))
    assert answer.num_preferences == 1 and preferences(store) == [(5, 2)]
    assert store.read("preferences")["p_winner"].to_pylist() == [pytest.approx(0.9)]


def test_a_blind_comparison_is_a_vote_and_no_preference(taker, store):
    (answer,) = taker(event("blind", accuracy="a", diversity="tie"))
    assert answer.new and answer.num_preferences == 0
    (row,) = store.read("feedback").to_pylist()
    assert (row["accuracy"], row["aesthetics"], row["diversity"]) == ("a", "", "tie")
    assert (row["system"], row["encoder"], row["image_ids"]) == ("live", "a" * 16, SHOWN)
    assert (row["other_system"], row["other_encoder"], row["other_image_ids"]) == (
        "baseline",
        "b" * 16,
        OTHERS,
    )


def test_an_answer_to_an_image_alone_has_no_query_to_learn_from(taker, store):
    assert taker(click(3, query=""))[0].num_preferences == 0
    assert store.count("feedback") == 1


def test_the_clients_name_is_not_kept(taker, store):
    taker(click(3), client="10.1.2.3")
    (row,) = store.read("feedback").to_pylist()
    assert row["client"] == TICKETS.pseudonym("10.1.2.3") and "10.1.2.3" not in str(row)


def test_the_same_event_again_adds_nothing_at_any_replica(taker, store):
    first, *copies = taker(click(6), click(6), click(6))
    (later,) = taker(click(6))
    assert [answer.new for answer in (first, *copies, later)] == [True, False, False, False]
    assert {answer.event_id for answer in (first, *copies, later)} == {first.event_id}
    assert later.num_preferences == 0
    assert store.count("feedback") == 1 and store.count("preferences") == 4


def test_two_people_who_agree_are_both_counted(taker, store):
    taker(click(1), client="ada")
    taker(click(1), client="bob")
    assert preferences(store) == [(1, 0), (1, 0)]


def test_what_comes_at_once_is_written_together(taker, store, monkeypatch):
    sizes = []
    monkeypatch.setattr(module, "keep", lambda *args: (sizes.append(len(args[1])), keep(*args))[1])
    answers = taker(*(click(place, query=f"query {number}") for place in (5, 6) for number in range(20)))
    assert sum(sizes) == 40 and len(sizes) < 5
    assert all(answer.new for answer in answers) and store.count("feedback") == 40


def test_of_two_replicas_with_the_same_event_one_says_that_it_is_new(store, monkeypatch):
    """Both look before either writes."""
    rows = [
        module.event_row(click(3), "ada", TICKETS.read(click(3).search_id, SHOWN, ANSWERED), None)
        for _ in "ab"
    ]
    monkeypatch.setattr(module, "_about_the_same_answers", lambda store, rows: [])
    told = [keep(store, [row])[0] for row in rows]
    assert [answer.new for answer in told] == [True, False]
    assert store.count("feedback") == 1 and store.count("preferences") == 3


def test_an_event_whose_preferences_alone_were_written_is_completed(taker, store, monkeypatch):
    def dies(*args):
        raise OSError("no space left")

    monkeypatch.setattr(module, "_write_events", dies)
    with pytest.raises(OSError, match="no space"):
        taker(click(6))
    assert store.count("preferences") == 4 and not store.exists("feedback")
    monkeypatch.undo()
    assert taker(click(6))[0].new
    assert store.count("preferences") == 4 and store.count("feedback") == 1


def test_small_files_are_joined(taker, store, monkeypatch):
    monkeypatch.setattr(module, "MOST_FRAGMENTS", 3)
    for number in range(6):
        taker(click(3, query=f"query {number}"))
    assert len(store.open("feedback").to_lance().get_fragments()) <= 4
    assert store.count("feedback") == 6 and store.count("preferences") == 18


@pytest.mark.parametrize("deleted", [SHOWN[1], SHOWN[7]], ids=["above the click", "below it"])
def test_an_answer_of_which_an_image_was_deleted_is_refused_and_not_kept(taker, store, deleted):
    taker(click(6), client="ada")
    store.delete_image(deleted)
    for sent in (click(6), event("prefer", image_id=SHOWN[5], over=SHOWN[2]), blind(accuracy="a")):
        with pytest.raises(ApiError) as caught:
            taker(sent, client="ada")
        assert (caught.value.status_code, caught.value.code) == (422, "unknown_result")
        assert caught.value.field == "results"
    assert store.count("feedback") == 0
    named = store.read("preferences").select(["winner", "loser"]).to_pydict()
    assert deleted not in {*named["winner"], *named["loser"]}


def test_others_in_the_same_batch_are_kept(store):
    store.delete_image(OTHERS[-1])  # shown by the comparison alone
    sent = [click(1), blind(accuracy="a"), click(2)]
    other = TICKETS.read(sent[1].other_search_id, OTHERS, ANSWERED + 60)
    ticket = TICKETS.read(sent[0].search_id, SHOWN, ANSWERED + 60)
    rows = [module.event_row(one, "ada", ticket, other if one.kind == "blind" else None) for one in sent]
    first, refused, last = keep(store, rows)
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
def test_what_cannot_be_is_refused_and_not_kept(taker, store, name):
    refused, code, field = REFUSED[name]
    with pytest.raises(ApiError) as caught:
        taker(refused)
    assert (caught.value.status_code, caught.value.code, caught.value.field) == (422, code, field)
    assert not store.exists("feedback")


def test_an_answer_of_yesterday_is_refused(taker, clock):
    clock.now = ANSWERED + 25 * 3600
    with pytest.raises(ApiError) as caught:
        taker(click(3))
    assert (caught.value.status_code, caught.value.code) == (422, "expired_search_id")


@pytest.mark.parametrize(
    ("sent", "too_soon_s", "enough_s"),
    [
        (click(3), 0.2, 0.4),
        (event("prefer", image_id=SHOWN[1], over=SHOWN[0]), 0.9, 1.1),
        (event("blind", accuracy="tie"), 5.9, 6.1),  # the other answer came five seconds later
    ],
    ids=["click", "prefer", "blind"],
)
def test_what_comes_sooner_than_a_person_can_choose_is_refused(taker, clock, sent, too_soon_s, enough_s):
    clock.now = ANSWERED + too_soon_s
    with pytest.raises(ApiError) as caught:
        taker(sent)
    assert (caught.value.status_code, caught.value.code) == (429, "too_fast")
    assert caught.value.headers == {"Retry-After": "1"}
    clock.now = ANSWERED + enough_s
    assert taker(sent)[0].new


def test_one_client_cannot_send_without_end(store):
    async def run():
        feedback = Feedback(store, TICKETS, events_per_minute=3, clock=lambda: ANSWERED + 60)
        for place in range(3):
            await feedback.take(click(place), "ada", "here")
        with pytest.raises(ApiError) as caught:
            await feedback.take(click(3), "ada", "here")
        return caught.value, await feedback.take(click(3), "bob", "here")

    refused, other = asyncio.run(run())
    assert (refused.status_code, refused.code) == (429, "too_many")
    assert 50 <= int(refused.headers["Retry-After"]) <= 61
    assert other.new and store.count("feedback") == 4


def test_names_without_end_do_not_help_one_key_or_address(store, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_PER_ORIGIN", 2)

    async def run():
        feedback = Feedback(store, TICKETS, events_per_minute=1, clock=lambda: ANSWERED + 60)
        await feedback.take(click(1), "ada", "here")
        with pytest.raises(ApiError, match="No more than 1 event"):  # and counts for nobody
            await feedback.take(click(2), "ada", "here")
        await feedback.take(click(1), "bob", "here")
        with pytest.raises(ApiError) as caught:
            await feedback.take(click(1), "eli", "here")
        return caught.value, await feedback.take(click(1), "eli", "there")

    refused, other = asyncio.run(run())
    assert (refused.status_code, refused.code) == (429, "too_many") and "No more than 2" in refused.detail
    assert other.new


def test_the_tables_of_events_are_made_once_and_left_as_they_are(taker, store):
    make_tables(store)
    assert store.count("feedback") == store.count("preferences") == 0
    taker(click(6))
    make_tables(store)
    assert store.count("feedback") == 1 and store.count("preferences") == 4


ANSWERS_UNTIL_KILLED = """
    import asyncio, sys, time
    from cluster.tables import Store
    from serve_app.feedback.events import Feedback
    from serve_app.http.models import FeedbackRequest
    from serve_app.feedback.signed_ids import Tickets

    async def one(feedback, number):
        shown = [f"{place:064x}" for place in range(8)]
        search_id = tickets.issue(f"query {number}", "live", "a" * 16, shown, time.time() - 10)
        event = FeedbackRequest(kind="click", search_id=search_id, results=shown, image_id=shown[3])
        print((await feedback.take(event, "ada", "here")).event_id, flush=True)

    async def main():
        feedback = Feedback(Store(sys.argv[1]), tickets, events_per_minute=100_000)
        for start in range(0, 100_000, 4):
            await asyncio.gather(*(one(feedback, start + more) for more in range(4)))

    tickets = Tickets(b"secret")
    asyncio.run(main())
"""


def test_what_was_answered_is_on_the_disk_once_after_a_kill(store):
    script = textwrap.dedent(ANSWERS_UNTIL_KILLED)
    command = [sys.executable, "-c", script, store.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        told = [
            child.stdout.readline().strip() for _ in range(30)
        ]  # several writes; the next one is under way
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().split()
    assert child.returncode == -signal.SIGKILL and len(set(told)) == len(told) >= 30
    kept = store.read("feedback")["event_id"].to_pylist()
    assert set(told) <= set(kept) and len(set(kept)) == len(kept)
    runs = store.read("preferences")["run_id"].to_pylist()
    assert {f"feedback-{event_id[:16]}" for event_id in kept} <= set(runs)
    assert all(runs.count(run) == 3 for run in set(runs))
