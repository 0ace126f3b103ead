"""Turns people's feedback into preferences.

Each event is validated, stored once, and on disk before the response. A click prefers the opened image to the
skipped ones above it (skip-above: Joachims 2002). `prefer` compares two images directly. A blind comparison
is a vote, which `kallos feedback` counts. Rows of `feedback` are the events, keyed by their id. The resulting
rows of `preferences` have the source "human" and a run_id per event: two people who agree are both counted.

A person has one vote on each question, and the last one counts. A question is either two images for a query,
or two encoders in a blind comparison for a query. An answer was given to one person, so all events on it
count as events of the client that sent the first. Clients choose their own names, so the number of names per
key or address is limited too.

Preferences are written before the event that completes them. After a crash in between, sending the same event
again completes it, and the keys of both tables prevent duplicates.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from cluster.schemas import FEEDBACK_RUN, HUMAN, PREFERENCE_KEY
from cluster.sql import in_list, literal
from cluster.tables import SCHEMAS, Store, now, retry_on_commit_conflict
from cluster.votes.events import CRITERIA, same_words, same_words_sql
from serve_app.batching import Batcher
from serve_app.errors import ApiError
from serve_app.feedback.limits import Limits, too_many
from serve_app.feedback.signed_ids import SignedAnswer, SignedIds
from serve_app.feedback.votes import answers_question_of, clicked_before, is_same_choice, order, voter
from serve_app.models import FeedbackRequest, FeedbackResponse

logger = logging.getLogger(__name__)

EVENTS_PER_MINUTE = 120
EVENTS_PER_DAY = 2000
CLIENTS_PER_GROUP = 10  # names per key or address and day; together they may send this many times the events
MAX_BATCH_SIZE = 64
MAX_FRAGMENTS = 32  # every write adds a file, and each file slows the next write
MIN_SECONDS = {"click": 0.3, "prefer": 1.0, "blind": 1.0}  # from answer to event: no person is faster
P_CLICKED, P_PREFERRED = 0.65, 0.9
MAX_SKIPPED = 4  # a clicked image beats at most this many skipped ones, the nearest above it
REQUIRED_FIELDS = {
    "click": ("image_id",),
    "prefer": ("image_id", "over"),
    "blind": ("other_search_id", "other_results"),
}
ALLOWED_FIELDS = {**REQUIRED_FIELDS, "blind": (*REQUIRED_FIELDS["blind"], *CRITERIA)}
TABLES = {"feedback": ("event_id",), "preferences": PREFERENCE_KEY}  # table -> its key


class Feedback:
    """Records people's events; used from one asyncio event loop."""

    def __init__(
        self,
        store: Store,
        signed_ids: SignedIds,
        *,
        events_per_minute: int = EVENTS_PER_MINUTE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            store: where events and preferences are written.
            signed_ids: reads the search ids of events.
            events_per_minute: limit of one client at this replica. The clients of one API key or address
                together may send `CLIENTS_PER_GROUP` times as many.
            clock: Unix time, seconds.
        """
        self._signed_ids = signed_ids
        self._clock = clock
        self._limits = Limits(events_per_minute, EVENTS_PER_DAY, CLIENTS_PER_GROUP)
        self._store_events = Batcher(partial(store_events, store), max_batch_size=MAX_BATCH_SIZE)

    async def record(self, event: FeedbackRequest, client: str, group: str) -> FeedbackResponse:
        """Store the event of a client; it is on disk when this returns.

        `group` is the client's API key or address. A client can change its name with every event,
        but not its group.

        Raises:
            ApiError: 422 for an event that does not match its kind or its answers; 429 (with Retry-After) for
                one that arrived faster than a person can choose, or for too many from one client or group.
        """
        pseudonym = self._signed_ids.pseudonym(client)
        self._limits.count(pseudonym, group)
        _check_fields(event)
        now_s = self._clock()
        answer = self._signed_ids.read(event.search_id, event.results, now_s)
        other = None
        if event.kind == "blind":
            other = self._signed_ids.read(
                event.other_search_id, event.other_results, now_s, "other_search_id"
            )
        _check_choice(event, answer, other)
        answered_at = max(answer.issued_at, other.issued_at if other else 0.0)
        if now_s - answered_at < MIN_SECONDS[event.kind]:
            raise too_many("too_fast", "The event came too soon after the answer.", 1)
        return await self._store_events(event_row(event, pseudonym, answer, other))


def _check_fields(event: FeedbackRequest) -> None:
    """Refuse an event that lacks a field of its kind, or has one of another kind."""
    for name in sorted({name for names in ALLOWED_FIELDS.values() for name in names}):
        given = bool(getattr(event, name))
        if name in REQUIRED_FIELDS[event.kind] and not given:
            raise ApiError(422, "missing_field", f"`{name}` is missing: {event.kind} needs it.", name)
        if given and name not in ALLOWED_FIELDS[event.kind]:
            raise ApiError(422, "unknown_field", f"`{name}` is not a field of {event.kind}.", name)
    if event.kind == "blind" and not any(getattr(event, name) for name in CRITERIA):
        raise ApiError(
            422, "missing_field", f"A verdict is missing: give one of {', '.join(CRITERIA)}.", CRITERIA[0]
        )


def _check_choice(event: FeedbackRequest, answer: SignedAnswer, other: SignedAnswer | None) -> None:
    """Refuse images that were not in the answer, and blind comparisons that compare nothing."""
    for name in ("image_id", "over"):
        chosen = getattr(event, name)
        if chosen is not None and chosen not in event.results:
            raise ApiError(422, "unknown_result", f"`{name}` is not among `results`.", name)
    if event.kind == "prefer" and event.image_id == event.over:
        raise ApiError(422, "same_image", "`over` must not be the same image as `image_id`.", "over")
    if other is not None and other.query != answer.query:
        raise ApiError(422, "other_query", "Both answers must be to the same query.", "other_search_id")
    if other is not None and other.encoder == answer.encoder:
        message = "Both answers come from the same encoder: there is nothing to compare."
        raise ApiError(422, "same_encoder", message, "other_search_id")


def event_row(
    event: FeedbackRequest, pseudonym: str, answer: SignedAnswer, other: SignedAnswer | None
) -> dict[str, Any]:
    """The row of `feedback` for an event; its column `answer` is a digest of the sorted search_ids."""
    verdicts = {name: getattr(event, name) or "" for name in CRITERIA}
    chosen = (event.image_id or "", event.over or "")
    search_ids = (event.search_id, event.other_search_id)
    identity = json.dumps([event.kind, event.search_id, event.other_search_id, *chosen, verdicts, pseudonym])
    return {
        "event_id": hashlib.sha256(identity.encode()).hexdigest(),
        "at": now(),
        "client": pseudonym,
        "kind": event.kind,
        "answer": hashlib.sha256("".join(sorted(search_ids)).encode()).hexdigest()[:16],
        "query": answer.query,
        "system": answer.system,
        "encoder": answer.encoder,
        "image_ids": event.results,
        "image_id": chosen[0],
        "over": chosen[1],
        "other_system": other.system if other else "",
        "other_encoder": other.encoder if other else "",
        "other_image_ids": event.other_results,
        **verdicts,
    }


def preference_rows(row: Mapping[str, Any], clicked: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of `preferences` that follow from a row of `feedback`.

    `clicked`: images of the same answer that the same person clicked before, so they were not skipped. Blind
    comparisons and searches without words give no preferences: an encoder learns from queries.
    """
    rank = {image_id: index for index, image_id in enumerate(row["image_ids"])}
    winner = row["image_id"]
    if row["kind"] == "blind" or not row["query"]:
        return []
    if row["kind"] == "prefer":
        losers, p_winner = [row["over"]], P_PREFERRED
    else:
        skipped = [image_id for image_id in row["image_ids"][: rank[winner]] if image_id not in clicked]
        losers, p_winner = skipped[-MAX_SKIPPED:], P_CLICKED
    common = {
        **{"query": row["query"], "rephrased": row["query"], "style": "original", "consistent": True},
        **{"winner": winner, "winner_cell": [0, rank[winner]], "p_winner": p_winner},
        **{"source": HUMAN, "judge": HUMAN, "run_id": _run_id(row)},
    }
    return [{**common, "loser": loser, "loser_cell": [0, rank[loser]]} for loser in losers]


def _run_id(event: Mapping[str, Any]) -> str:
    return f"{FEEDBACK_RUN}-{event['event_id'][:16]}"


def make_tables(store: Store) -> None:
    """Create the tables of events and preferences if they are missing.

    One process does this before the replicas start: if two processes create a table in an object store at
    once, the second may empty it.
    """
    for name, key in TABLES.items():
        if not store.exists(name):
            store.merge(name, SCHEMAS[name].empty_table(), on=key)


def store_events(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[FeedbackResponse | ApiError]:
    """Write the rows of `feedback` that are new, with their preferences; returns one result per row.

    A row with an image that has been deleted since is refused: nothing could be learned from it.
    """
    existing = _existing_images(store, rows)
    valid = [row for row in rows if _images(row) <= existing]
    responses = iter(_write_rows(store, valid) if valid else [])
    return [next(responses) if _images(row) <= existing else _image_deleted() for row in rows]


def _images(row: Mapping[str, Any]) -> set[str]:
    """All images of the answers of a row of `feedback`."""
    return {*row["image_ids"], *row["other_image_ids"]}


def _existing_images(store: Store, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The images of the rows that are still in the store."""
    where = in_list("image_id", set().union(*map(_images, rows)))
    image_ids: list[Any] = store.read("images", ["image_id"], where)["image_id"].to_pylist()
    return set(image_ids)


def _image_deleted() -> ApiError:
    return ApiError(422, "unknown_result", "An image of this answer was deleted: search again.", "results")


def _write_rows(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[FeedbackResponse]:
    events = _earlier_events(store, rows)
    new_events: dict[str, Mapping[str, Any]] = {}
    preferences: dict[str, list[dict[str, Any]]] = {}
    event_ids = []
    for row in rows:
        row = {**row, "client": voter(row, events)}
        last = max((event for event in events if answers_question_of(row, event)), key=order, default=None)
        if last and is_same_choice(row, last):
            event_ids.append(last["event_id"])
            continue
        if last:  # its id depends on the replaced event: a choice can be made, changed and made again
            row["event_id"] = hashlib.sha256(f"{row['event_id']} {last['event_id']}".encode()).hexdigest()
        new_events[row["event_id"]] = row
        preferences[row["event_id"]] = preference_rows(row, clicked_before(row, events))
        events.append(row)
        event_ids.append(row["event_id"])
    pairs = [pair for rows_of_event in preferences.values() for pair in rows_of_event]
    if pairs:
        table = pa.Table.from_pylist(pairs, SCHEMAS["preferences"])
        store.merge("preferences", table, on=TABLES["preferences"])
        _compact(store, "preferences")
    written = _write_events(store, new_events) if new_events else set()
    _drop_replaced(store, rows)
    responses = []
    for event_id in event_ids:
        new = event_id in written
        written.discard(event_id)  # only the first of equal events is new
        num_preferences = len(preferences[event_id]) if new else 0
        responses.append(FeedbackResponse(event_id=event_id, new=new, num_preferences=num_preferences))
    return responses


def _earlier_events(store: Store, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored events on the queries of the rows, including the rows themselves if they are stored.

    Image searches all have an empty query: of these, only events on the same answers or by the same clients.
    """
    if not store.exists("feedback"):
        return []
    queries = {same_words_sql(literal(row["query"])) for row in rows if same_words(row["query"])}
    own = " OR ".join(in_list(name, {row[name] for row in rows}) for name in ("answer", "client"))
    asked = f"{same_words_sql('query')} IN ({', '.join(queries)}) OR " if queries else ""
    where = f"{asked}(query = '' AND ({own}))"
    return store.read("feedback", where=where).to_pylist()


def _drop_replaced(store: Store, rows: Iterable[Mapping[str, Any]]) -> None:
    """Delete preferences that a later choice of the same person has replaced, for the queries of the rows.

    This runs after the events are written: if two replicas store opposite choices at once, the later one
    sees both.
    """
    events = {_run_id(event): event for event in _earlier_events(store, rows) if event["kind"] != "blind"}
    if not events or not store.exists("preferences"):
        return
    stored = store.read("preferences", TABLES["preferences"], in_list("run_id", events)).to_pylist()
    last: dict[tuple, dict[str, Any]] = {}
    for pair in sorted(stored, key=lambda pair: order(events[pair["run_id"]])):
        question = (same_words(pair["query"]), frozenset((pair["winner"], pair["loser"])))
        last[(events[pair["run_id"]]["client"], *question)] = pair
    kept = {id(pair) for pair in last.values()}
    replaced = [pair for pair in stored if id(pair) not in kept]
    if replaced:
        _delete(store, "preferences", " OR ".join(map(_is_row, replaced)))


def _is_row(pair: Mapping[str, str]) -> str:
    """SQL condition that selects the row with this key."""
    return "(" + " AND ".join(f"{name} = {literal(value)}" for name, value in pair.items()) + ")"


@retry_on_commit_conflict
def _delete(store: Store, name: str, where: str) -> None:
    store.open(name).delete(where)


def _write_events(store: Store, events: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Write rows of `feedback` by their id; returns the ids that no other replica wrote first."""
    table = pa.Table.from_pylist(list(events.values()), SCHEMAS["feedback"])
    num_new = store.merge("feedback", table, on=TABLES["feedback"])
    _compact(store, "feedback")
    if num_new == len(events):
        return set(events)
    stored = store.read("feedback", ["event_id", "at"], in_list("event_id", events)).to_pylist()
    return {row["event_id"] for row in stored if row["at"] == events[row["event_id"]]["at"]}


def _compact(store: Store, name: str) -> None:
    """Merge the small files of a table once there are many."""
    table = store.open(name)
    if len(table.to_lance().get_fragments()) > MAX_FRAGMENTS:
        try:
            table.optimize()
        except (OSError, RuntimeError) as error:  # another writer was faster; the written rows stay
            logger.info("table %s will be compacted later: %s", name, error)
