"""What people choose becomes preferences: events are checked, kept once, and on the disk before the answer.

A click says that the image is better than those above it that were passed over (skip-above: Joachims 2002);
`prefer` says it of two images outright; a blind comparison is a vote, which `kallos feedback` counts. Rows of
`feedback` are the events, keyed on their id. Rows of `preferences` that come from them have the source
"human" and a run_id of their own for each event, so that two people who agree are both counted.

Preferences are written first, then the event that marks them as done: after a crash between the two the same
event, sent again, completes it, and the keys of both tables let nothing in twice.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from cluster.schemas import FEEDBACK_RUN, HUMAN, PREFERENCE_KEY
from cluster.tables import SCHEMAS, Store, now
from serve_app.feedback.signed_ids import Ticket, Tickets
from serve_app.http.errors import ApiError
from serve_app.http.models import FeedbackRequest, FeedbackResponse
from serve_app.search.batching import Batcher

logger = logging.getLogger(__name__)

EVENTS_PER_MINUTE = 120
CLIENTS_PER_ORIGIN = 10  # as many may send all that they can by one key, or from one address
MAX_BATCH_SIZE = 64
MOST_FRAGMENTS = 32  # every write leaves a file, and each of them makes the next write slower
QUICKEST_S = {"click": 0.3, "prefer": 1.0, "blind": 1.0}  # from the answer: nobody looks and chooses faster
P_CLICKED, P_PREFERRED = 0.65, 0.9
MOST_SKIPPED = 4  # images passed over that a click speaks about: the nearest above it
VERDICTS = ("accuracy", "aesthetics", "diversity")
NEEDED = {
    "click": ("image_id",),
    "prefer": ("image_id", "over"),
    "blind": ("other_search_id", "other_results"),
}
TABLES = {"feedback": ("event_id",), "preferences": PREFERENCE_KEY}  # what is written to, and its key
ALLOWED = {**NEEDED, "blind": (*NEEDED["blind"], *VERDICTS)}


class Feedback:
    """Takes events of people, from one event loop."""

    def __init__(
        self,
        store: Store,
        tickets: Tickets,
        *,
        events_per_minute: int = EVENTS_PER_MINUTE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`events_per_minute`: of one client, at this replica; of one key or address it is
        `CLIENTS_PER_ORIGIN` times that. `clock`: Unix time, seconds.
        """
        self._tickets = tickets
        self._clock = clock
        self._limit = RateLimitItemPerMinute(events_per_minute)
        self._origin_limit = RateLimitItemPerMinute(CLIENTS_PER_ORIGIN * events_per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._keep = Batcher(partial(keep, store), max_batch_size=MAX_BATCH_SIZE)

    async def take(self, event: FeedbackRequest, client: str, origin: str) -> FeedbackResponse:
        """Keep the event of that client; it is on the disk when this returns.

        `origin` is its key or address: a client may call itself by another name with every event.

        Raises ApiError: 422 for an event that does not fit its kind or its answers, 429 (with Retry-After)
        for one that no person could have sent so soon, or for too many from one client or origin.
        """
        name = self._tickets.pseudonym(client)
        self._count(name, origin)
        _check_fields(event)
        told = self._clock()
        ticket = self._tickets.read(event.search_id, event.results, told)
        other = None
        if event.kind == "blind":
            other = self._tickets.read(event.other_search_id, event.other_results, told, "other_search_id")
        _check_answers(event, ticket, other)
        answered = max(ticket.issued_at, other.issued_at if other else 0.0)
        if told - answered < QUICKEST_S[event.kind]:
            raise _later("too_fast", "Nobody chooses so soon after the answer.", 1)
        return await self._keep(event_row(event, name, ticket, other))

    def _count(self, name: str, origin: str) -> None:
        counted = ((self._origin_limit, f"origin {origin}"), (self._limit, name))
        for limit, who in counted:
            if not self._limiter.test(limit, who):  # what is refused counts nowhere
                frees = self._limiter.get_window_stats(limit, who).reset_time
                wait_s = max(1, math.ceil(frees - time.time()))
                raise _later("too_many", f"No more than {limit.amount} events a minute.", wait_s)
        for limit, who in counted:
            self._limiter.hit(limit, who)


def _later(code: str, message: str, wait_s: int) -> ApiError:
    error = ApiError(429, code, message)
    error.headers = {"Retry-After": str(wait_s)}
    return error


def _check_fields(event: FeedbackRequest) -> None:
    """Each kind has its own fields."""
    for name in sorted({name for names in ALLOWED.values() for name in names}):
        given = bool(getattr(event, name))
        if name in NEEDED[event.kind] and not given:
            raise ApiError(422, "missing_field", f"`{name}` is missing: {event.kind} needs it.", name)
        if given and name not in ALLOWED[event.kind]:
            raise ApiError(422, "unknown_field", f"`{name}` is not a field of {event.kind}.", name)
    if event.kind == "blind" and not any(getattr(event, name) for name in VERDICTS):
        raise ApiError(
            422, "missing_field", f"A verdict is missing: give one of {', '.join(VERDICTS)}.", VERDICTS[0]
        )


def _check_answers(event: FeedbackRequest, ticket: Ticket, other: Ticket | None) -> None:
    """What was chosen was there to choose."""
    for name in ("image_id", "over"):
        chosen = getattr(event, name)
        if chosen is not None and chosen not in event.results:
            raise ApiError(422, "unknown_result", f"`{name}` is not among `results`.", name)
    if event.kind == "prefer" and event.image_id == event.over:
        raise ApiError(422, "same_image", "`over` must be another image than `image_id`.", "over")
    if other is not None and other.query != ticket.query:
        raise ApiError(422, "other_query", "Both answers must be to the same query.", "other_search_id")
    if other is not None and other.encoder == ticket.encoder:
        raise ApiError(
            422, "same_encoder", "Both answers come from the same encoder: there is nothing to compare.",
            "other_search_id",
        )  # fmt: skip


def event_row(event: FeedbackRequest, client: str, ticket: Ticket, other: Ticket | None) -> dict[str, Any]:
    """The row of `feedback`. `client` is a pseudonym; `answer` stands for the answer's search_id."""
    verdicts = {name: getattr(event, name) or "" for name in VERDICTS}
    chosen = (event.image_id or "", event.over or "")
    said = json.dumps([event.kind, event.search_id, event.other_search_id, *chosen, verdicts, client])
    return {
        "event_id": hashlib.sha256(said.encode()).hexdigest(),
        "at": now(),
        "client": client,
        "kind": event.kind,
        "answer": hashlib.sha256(event.search_id.encode()).hexdigest()[:16],
        "query": ticket.query,
        "system": ticket.system,
        "encoder": ticket.encoder,
        "image_ids": event.results,
        "image_id": chosen[0],
        "over": chosen[1],
        "other_system": other.system if other else "",
        "other_encoder": other.encoder if other else "",
        "other_image_ids": event.other_results,
        **verdicts,
    }


def preference_rows(row: Mapping[str, Any], clicked: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of `preferences` that follow from a row of `feedback`.

    `clicked`: images of the same answer that the same person had clicked before: they were not passed over.
    None for a blind comparison, and none without words: an encoder learns from a query.
    """
    rank = {image_id: place for place, image_id in enumerate(row["image_ids"])}
    chosen = row["image_id"]
    if row["kind"] == "blind" or not row["query"]:
        return []
    if row["kind"] == "prefer":
        losers, p_winner = [row["over"]], P_PREFERRED
    else:
        passed = [image_id for image_id in row["image_ids"][: rank[chosen]] if image_id not in clicked]
        losers, p_winner = passed[-MOST_SKIPPED:], P_CLICKED
    about = {
        **{"query": row["query"], "rephrased": row["query"], "style": "original", "consistent": True},
        **{"winner": chosen, "winner_cell": [0, rank[chosen]], "p_winner": p_winner},
        **{"source": HUMAN, "judge": HUMAN, "run_id": f"{FEEDBACK_RUN}-{row['event_id'][:16]}"},
    }
    return [{**about, "loser": loser, "loser_cell": [0, rank[loser]]} for loser in losers]


def make_tables(store: Store) -> None:
    """Make the tables that events are written to, where they are missing.

    Done by one process before there are replicas: of two that make a table of an object store at once, the
    later may empty it.
    """
    for name, key in TABLES.items():
        if not store.exists(name):
            store.merge(name, SCHEMAS[name].empty_table(), on=key)


def keep(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[FeedbackResponse | ApiError]:
    """Write those rows of `feedback` that are not there yet, with what follows from them; tells of each.

    A row that shows an image which was deleted meanwhile is refused: nobody could learn from it.
    """
    present = _present(store, rows)
    allowed = [row for row in rows if _shown(row) <= present]
    told = iter(_write(store, allowed) if allowed else [])
    return [next(told) if _shown(row) <= present else _deleted() for row in rows]


def _shown(row: Mapping[str, Any]) -> set[str]:
    """The images of the answers that a row of `feedback` is about."""
    return {*row["image_ids"], *row["other_image_ids"]}


def _present(store: Store, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Those of the images that the rows are about which the store still holds."""
    where = _any_of("image_id", set().union(*map(_shown, rows)))
    return set(store.read("images", ["image_id"], where)["image_id"].to_pylist())


def _deleted() -> ApiError:
    told = "An image of this answer was deleted: search again."
    return ApiError(422, "unknown_result", told, "results")


def _write(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[FeedbackResponse]:
    earlier = _about_the_same_answers(store, rows)
    known = {row["event_id"] for row in earlier}
    clicks = [row for row in earlier if row["kind"] == "click"]
    fresh: dict[str, Mapping[str, Any]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        event_id = row["event_id"]
        if event_id not in known and event_id not in fresh:
            whose = (row["answer"], row["client"])
            clicked = {click["image_id"] for click in clicks if (click["answer"], click["client"]) == whose}
            fresh[event_id], found[event_id] = row, preference_rows(row, clicked)
            clicks += [row] if row["kind"] == "click" else []
    preferences = [pair for pairs in found.values() for pair in pairs]
    if preferences:
        table = pa.Table.from_pylist(preferences, SCHEMAS["preferences"])
        store.merge("preferences", table, on=TABLES["preferences"])
        _compact(store, "preferences")
    ours = _write_events(store, fresh) if fresh else set()
    answers = []
    for row in rows:
        new = row["event_id"] in ours
        ours.discard(row["event_id"])  # told once
        num = len(found[row["event_id"]]) if new else 0
        answers.append(FeedbackResponse(event_id=row["event_id"], new=new, num_preferences=num))
    return answers


def _about_the_same_answers(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events that are kept already about the answers that the rows are about, themselves included."""
    if not store.exists("feedback"):
        return []
    columns = ["event_id", "answer", "client", "kind", "image_id"]
    return store.read("feedback", columns, _any_of("answer", {row["answer"] for row in rows})).to_pylist()


def _write_events(store: Store, fresh: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Write rows of `feedback` by their id; returns the ids that no other replica was first with."""
    table = pa.Table.from_pylist(list(fresh.values()), SCHEMAS["feedback"])
    num_new = store.merge("feedback", table, on=TABLES["feedback"])
    _compact(store, "feedback")
    if num_new == len(fresh):
        return set(fresh)
    stored = store.read("feedback", ["event_id", "at"], _any_of("event_id", fresh)).to_pylist()
    return {row["event_id"] for row in stored if row["at"] == fresh[row["event_id"]]["at"]}


def _compact(store: Store, name: str) -> None:
    """Join the table's small files once there are many."""
    table = store.open(name)
    if len(table.to_lance().get_fragments()) > MOST_FRAGMENTS:
        try:
            table.optimize()
        except (OSError, RuntimeError) as error:  # another writer was quicker; what was written stays
            logger.info("Table %s is compacted later: %s", name, error)


def _any_of(column: str, digests: Collection[str]) -> str:
    """SQL: the column is one of those, which are hexadecimal and need no quoting."""
    return f"{column} IN ({', '.join(repr(digest) for digest in sorted(digests))})"
