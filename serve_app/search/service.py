"""The search itself, free of HTTP, of Ray and of model code: a query's way through one of several systems."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter, time

import numpy as np

from actors.images import decode
from actors.parts import similarity_map
from actors.retriever import Gone
from cluster.errors import UserError
from cluster.profile import Serve
from cluster.schemas import embeddings_table
from cluster.tables import Store
from serve_app.feedback.events import Feedback
from serve_app.feedback.signed_ids import Tickets
from serve_app.http.errors import ApiError
from serve_app.http.metrics import Metrics
from serve_app.http.models import FeedbackRequest, FeedbackResponse, Heatmap, SearchBase
from serve_app.search import paging, query, tastes
from serve_app.search.batched_search import Asked, Page, Row
from serve_app.search.clock import Clock
from serve_app.search.diversity import mmr
from serve_app.search.experiment import assigned
from serve_app.search.systems import CANDIDATE, System, Systems
from serve_app.search.teacher import TEACHER, Teacher

NUM_PREVIEWS_KEPT = 2048  # about 10 kB each
NUM_EXAMPLES = 6


@dataclass(frozen=True)
class Found:
    """What a search gives; the fields are those of `models.SearchResponse`.

    rows: image_id, score and `systems.COLUMNS`, best first. timings_ms: milliseconds per step.
    """

    search_id: str
    query: str
    rephrased: str
    system: str
    encoder: str
    rows: list[Row]
    next: str
    timings_ms: dict[str, float]


class Service:
    """Answers searches from one or more systems over one store."""

    def __init__(
        self,
        store: Store,
        systems: Systems,
        config: Serve,
        metrics: Metrics,
        *,
        tickets: Tickets,
        teacher: Teacher | None = None,
        examples: Sequence[str] = (),
    ) -> None:
        """No `examples`: drawn from captions. No `teacher`: the cascade is not offered."""
        self._store = store
        self._systems = systems
        self._config = config
        self._tickets = tickets
        self._teacher = teacher
        self._metrics = metrics
        self._feedback = Feedback(store, tickets)
        self._images = store.open("images")
        self._preview = lru_cache(NUM_PREVIEWS_KEPT)(self._read_preview)
        self.system_names = (*systems.names, *([TEACHER] if teacher else []))
        self.examples = list(examples) or _examples(store, systems.get(systems.required[0]))

    @property
    def systems(self) -> dict[str, System]:
        """The encoders that answer now, by alias."""
        return dict(self._systems.by_alias)

    @property
    def tastes(self) -> list[dict[str, str]]:
        """The tastes of the default system: name, less, more."""
        axes = self._systems.get(self._systems.required[0]).axes
        return [
            {"name": name, "less": tastes.LOOKS[name].less, "more": tastes.LOOKS[name].more} for name in axes
        ]

    def fault(self) -> str:
        """Why searches cannot be answered now, in one sentence, or ""."""
        missing = [alias for alias in self._systems.required if alias not in self._systems.by_alias]
        if missing:
            return f"No encoder answers for {', '.join(missing)}."
        try:
            self._images.count_rows()
        except Exception as error:  # the store's own: a folder that is gone, an object store that is away
            return f"The store does not answer: {type(error).__name__}."
        return ""

    async def search(self, request: SearchBase, client: str) -> Found:
        """The answer to one search; `client` is who asks. Raises ApiError for what cannot be answered."""
        name, system, cursor = self._choose(request, client)
        if name == TEACHER:
            return await self._ask_teacher(request, system)
        return await self._ask_encoder(request, name, system, cursor)

    def _choose(self, request: SearchBase, client: str) -> tuple[str, System, paging.Cursor | None]:
        """Who answers: a next page's own encoder, the candidate for the experiment's share of `live`."""
        cursor = paging.read(request)
        if cursor is None:
            name = self._drawn(request.system, client)
            return name, self._systems.get("baseline" if name == TEACHER else name), None
        system = self._systems.by_encoder(cursor.encoder)
        if system is None:
            raise ApiError(
                410, "page_expired", "Another encoder answers by now: search again from the start.", "cursor"
            )
        named = [alias for alias, one in self._systems.by_alias.items() if one.fingerprint == cursor.encoder]
        if request.system == TEACHER or request.system in named or not named:
            return request.system, system, cursor
        return named[0], system, cursor

    def _drawn(self, name: str, client: str) -> str:
        """`name`, or the candidate's where the experiment draws this client for it."""
        if name != "live" or not self._config.experiment_share or CANDIDATE not in self._systems.by_alias:
            return name
        candidate = self._systems.get(CANDIDATE)
        chosen = assigned(client, self._config.experiment_share, candidate.fingerprint)
        self._metrics.experiment(CANDIDATE if chosen else "live")
        return CANDIDATE if chosen else name

    async def _ask_encoder(
        self, request: SearchBase, name: str, system: System, cursor: paging.Cursor | None
    ) -> Found:
        clock = Clock(self._metrics, name)
        vector = await query.vector(request, system, self._config, clock)
        offset = cursor.offset if cursor else 0
        begun, wanted = perf_counter(), None
        if request.diversity is None:
            asked = Asked(request.k + 1, query.condition(request, system), offset, cursor and cursor.version)
            rows, version = await self._find(system, vector, asked)
        else:
            wanted = self._num_candidates(request, cursor)
            asked = Asked(wanted, query.condition(request, system), 0, cursor and cursor.version, True)
            rows, version = await self._find(system, vector, asked)
            begun = clock.step("search", begun)
            rows = _diverse(rows, offset + request.k + 1, request.diversity.weight)[offset:]
        clock.step("search" if request.diversity is None else "diversify", begun)
        follows = ""
        if len(rows) > request.k and offset + request.k <= paging.MAX_OFFSET:
            follows = paging.Cursor(
                encoder=system.fingerprint,
                version=version,
                offset=offset + request.k,
                search=paging.digest(request),
                num_candidates=wanted,
            ).encode()
        return self._answer(request, name, system, rows[: request.k], clock, follows)

    def _num_candidates(self, request: SearchBase, cursor: paging.Cursor | None) -> int:
        """How many images a diverse search chooses from: as many as its first page did, whatever its `k`.

        Cursors are not signed, so none gets more than a first page could have asked for.
        """
        least = request.diversity.num_candidates
        if cursor and cursor.num_candidates:
            return min(cursor.num_candidates, max(least, self._config.max_k))
        return max(least, request.k)

    async def _ask_teacher(self, request: SearchBase, system: System) -> Found:
        assert self._teacher is not None
        clock = Clock(self._metrics, TEACHER)
        where = query.condition(request, system)
        ranked = await self._teacher.answer(request, system, where, self.preview, clock)
        rows = ranked.rows[: request.k]
        return self._answer(request, TEACHER, system, rows, clock, rephrased=ranked.rephrased)

    def _answer(
        self,
        request: SearchBase,
        name: str,
        system: System,
        rows: list[Row],
        clock: Clock,
        follows: str = "",
        rephrased: str = "",
    ) -> Found:
        self._metrics.search(name)
        ids = [row["image_id"] for row in rows]
        # A preference speaks about words: what more than words found says nothing about them.
        words = "" if request.image or request.negatives or request.tastes else request.query
        ticket = self._tickets.issue(words, name, system.fingerprint, ids, time())
        return Found(ticket, request.query, rephrased, name, system.fingerprint, rows, follows, clock.total())

    async def _find(self, system: System, vector: np.ndarray, asked: Asked) -> Page:
        try:
            return await system.find((vector, asked))
        except Gone:
            raise ApiError(
                410,
                "page_expired",
                "That index is gone: search again from the start.",
                "cursor",
            ) from None

    def why(self, image_id: str, text: str, system: str) -> Heatmap:
        """Which parts of the image speak for the text.

        Raises KeyError for an unknown image, ApiError for an unknown system or a tower without parts.
        """
        chosen = self._systems.get("baseline" if system == TEACHER else system)
        image = decode(self.preview(image_id))
        try:
            values = similarity_map(chosen.encoder, image, chosen.encoder.encode_texts([text])[0])
        except UserError as error:
            raise ApiError(422, "no_parts", f"No map can be drawn: {error}") from None
        return Heatmap(encoder=chosen.fingerprint, values=np.round(values, 4).tolist())

    async def feedback(self, event: FeedbackRequest, client: str, origin: str) -> FeedbackResponse:
        """Keep what a person chose; it is on the disk when this returns. Raises ApiError for a bad event.

        `origin`: the key or address behind what the client calls itself.
        """
        try:
            told = await self._feedback.take(event, client, origin)
        except ApiError as refusal:
            self._metrics.feedback(event.kind, refusal.code)
            raise
        self._metrics.feedback(event.kind, "new" if told.new else "known")
        return told

    def preview(self, image_id: str) -> bytes:
        """The JPEG preview of an image (64 hex characters). Raises KeyError for an unknown one."""
        return self._preview(image_id, self._images.version)

    def _read_preview(self, image_id: str, version: int) -> bytes:
        # `version` is the cache's: an image that was deleted is not found in what was read before.
        where = f"image_id = '{image_id}'"
        rows = self._images.search().where(where).select(["preview"]).limit(1).to_list()
        if not rows:
            raise KeyError(image_id)
        return rows[0]["preview"]

    def delete(self, image_id: str) -> int:
        """Remove the image everywhere; returns the number of rows. Raises KeyError when there is none."""
        return self._store.delete_image(image_id)


def _diverse(rows: list[Row], num_wanted: int, weight: float) -> list[Row]:
    if not rows:
        return []
    scores = np.array([row["score"] for row in rows])
    order = mmr(scores, np.stack([row["vector"] for row in rows]), num_wanted, weight)
    return [{key: value for key, value in rows[place].items() if key != "vector"} for place in order]


def _examples(store: Store, system: System) -> list[str]:
    """A few short captions of the indexed images, the same ones at every start."""
    table = store.open(embeddings_table(system.fingerprint))
    rows = table.search().select(["caption"]).limit(2000).to_arrow()["caption"].to_pylist()
    short = {text.strip().lower(): text.strip() for text in rows if 2 <= len(text.split()) <= 6}
    return random.Random(0).sample(sorted(short.values()), min(NUM_EXAMPLES, len(short)))
