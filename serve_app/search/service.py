"""The search service: answers a search from one of several systems. No HTTP, Ray or model code."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter, time

import numpy as np

from actors.heatmap import similarity_map
from actors.images import UnusableImage, decode
from actors.nulls.axis import Axis
from actors.retriever import Gone
from cluster.errors import UserError
from cluster.profile import Serve
from cluster.schemas import embeddings_table
from cluster.tables import Store
from serve_app.errors import ApiError
from serve_app.feedback.events import Feedback
from serve_app.feedback.signed_ids import SignedIds
from serve_app.metrics import Metrics
from serve_app.models import (
    BaseSearchRequest,
    Diversity,
    FeedbackRequest,
    FeedbackResponse,
    Heatmap,
    WordsRead,
)
from serve_app.search import filters, paging, query, tastes
from serve_app.search.batched_search import ResultPage, ResultRow, SearchOptions
from serve_app.search.beauty import AXIS, REPHRASE, SUFFIX
from serve_app.search.diversity import mmr
from serve_app.search.experiment import is_assigned
from serve_app.search.step_timer import StepTimer
from serve_app.search.systems import CANDIDATE, System, Systems
from serve_app.search.teacher import TEACHER, Teacher

NUM_CACHED_PREVIEWS = 2048  # about 10 kB each
NUM_EXAMPLES = 6
# Systems that search with the baseline's encoder, in ways of their own.
VARIANTS = (SUFFIX, AXIS, REPHRASE, TEACHER)


@dataclass(frozen=True)
class SearchAnswer:
    """The answer to a search, with the fields of `models.SearchResponse`.

    rows: image_id, score and `systems.COLUMNS`, best first. timings_ms: milliseconds per step.
    """

    search_id: str
    query: str
    query_words: WordsRead
    negatives_words: list[WordsRead]
    rephrased: str
    system: str
    encoder: str
    rows: list[ResultRow]
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
        signed_ids: SignedIds,
        teacher: Teacher | None = None,
        examples: Sequence[str] = (),
    ) -> None:
        """`examples`: default drawn from captions. `teacher`: None if it is not offered."""
        self._store = store
        self._systems = systems
        self._config = config
        self._signed_ids = signed_ids
        self._teacher = teacher
        self._metrics = metrics
        self._feedback = Feedback(store, signed_ids)
        self._images = store.open("images")
        self._cached_preview = lru_cache(NUM_CACHED_PREVIEWS)(self._read_preview)
        self.system_names = (*systems.names, SUFFIX, AXIS, *([REPHRASE, TEACHER] if teacher else []))
        self.examples = list(examples) or _examples(store, systems.get(systems.required[0]))

    @property
    def systems(self) -> dict[str, System]:
        """The systems that are open now, by alias."""
        return dict(self._systems.by_alias)

    @property
    def tastes(self) -> list[dict[str, str]]:
        """The tastes of the default system: name, less, more."""
        axes = self._systems.get(self._systems.required[0]).axes
        known = tastes.PROPERTIES
        return [{"name": name, "less": known[name].less, "more": known[name].more} for name in axes]

    @property
    def suffix(self) -> str | None:
        """What the system `suffix` adds to a query, None if it is not available."""
        baseline = self._systems.by_alias.get("baseline")
        nulls = self._systems.nulls(baseline.fingerprint) if baseline else None
        return nulls.suffix if nulls else None

    def axis(self, system: System) -> Axis:
        """The axis along which `beauty` moves a query of this system."""
        return self._systems.axis(system)

    def unready_reason(self) -> str:
        """Why searches cannot be answered now, in one sentence; "" if they can."""
        missing = [alias for alias in self._systems.required if alias not in self._systems.by_alias]
        if missing:
            return f"No encoder is open for {', '.join(missing)}."
        try:
            self._images.count_rows()
        except Exception as error:  # any error of the store: a deleted folder, an unreachable object store
            return f"The store does not respond: {type(error).__name__}."
        return ""

    async def search(self, request: BaseSearchRequest, client: str) -> SearchAnswer:
        """The answer to one search of this client. Raises ApiError if it cannot be answered."""
        name, system, cursor = self._choose_system(request, client)
        if name == TEACHER:
            return await self._search_teacher(request, system)
        return await self._search_encoder(request, name, system, cursor)

    def _choose_system(
        self, request: BaseSearchRequest, client: str
    ) -> tuple[str, System, paging.Cursor | None]:
        """The system's name, the system and the cursor. Later pages keep the encoder of the first."""
        cursor = paging.read(request)
        if cursor is None:
            name = self._assign(request.system, client)
            return name, self._system(name), None
        system = self._systems.by_encoder(cursor.encoder)
        if system is None:
            raise ApiError(
                410, "page_expired", "The encoder of this page has been replaced: search again.", "cursor"
            )
        aliases = [
            alias for alias, one in self._systems.by_alias.items() if one.fingerprint == cursor.encoder
        ]
        if request.system in (*VARIANTS, *aliases) or not aliases:
            return request.system, system, cursor
        return aliases[0], system, cursor

    def _system(self, name: str) -> System:
        return self._systems.get("baseline" if name in VARIANTS else name)

    def _assign(self, name: str, client: str) -> str:
        """`name`, or the candidate if the experiment assigns this client to it."""
        if name != "live" or not self._config.experiment_share or CANDIDATE not in self._systems.by_alias:
            return name
        candidate = self._systems.get(CANDIDATE)
        assigned = is_assigned(client, self._config.experiment_share, candidate.fingerprint)
        self._metrics.experiment(CANDIDATE if assigned else "live")
        return CANDIDATE if assigned else name

    async def _search_encoder(
        self, request: BaseSearchRequest, name: str, system: System, cursor: paging.Cursor | None
    ) -> SearchAnswer:
        timer = StepTimer(self._metrics, name)
        searched = await self._searched(request, name, system, timer)
        vector = await query.vector(searched, system, self.axis(system), self._config, timer)
        where, version = filters.sql_condition(request.filters), cursor.version if cursor else None
        offset, num_candidates = cursor.offset if cursor else 0, None
        started = perf_counter()
        if request.diversity is None:
            options = SearchOptions(request.k + 1, where, offset, version)
            rows, version = await self._search_index(system, vector, options)
            timer.record("search", started)
        else:
            num_candidates = self._num_candidates(request.k, request.diversity, cursor)
            options = SearchOptions(num_candidates, where, 0, version, with_vectors=True)
            rows, version = await self._search_index(system, vector, options)
            started = timer.record("search", started)
            rows = _diverse(rows, offset + request.k + 1, request.diversity.weight)[offset:]
            timer.record("diversify", started)
        next_page = ""
        if len(rows) > request.k and offset + request.k <= paging.MAX_OFFSET:
            next_page = paging.Cursor(
                encoder=system.fingerprint,
                version=version,
                offset=offset + request.k,
                search=paging.digest(request),
                num_candidates=num_candidates,
            ).encode()
        # Deleted images are dropped after the page is cut, so that no other image moves to another page.
        page = [row for row in rows[: request.k] if not row.get("deleted")]
        rephrased = searched.query if searched.query != request.query else ""
        return await self._answer(request, name, system, page, timer, next_page, rephrased)

    async def _searched(
        self, request: BaseSearchRequest, name: str, system: System, timer: StepTimer
    ) -> BaseSearchRequest:
        """The request as the system searches for it: other words, or more beauty.

        A search without words has none to change. Raises ApiError (404) if no aligned encoder has the nulls.
        """
        if name == REPHRASE and request.query:
            assert self._teacher is not None
            return request.model_copy(update={"query": await self._teacher.rephrase(request.query, timer)})
        if name not in (SUFFIX, AXIS):
            return request
        nulls = self._systems.nulls(system.fingerprint)
        if nulls is None:
            message = f"There is no system {name!r}: no open encoder was aligned from the baseline with one."
            raise ApiError(404, "no_such_system", message, "system")
        if name == AXIS:
            # An axis that was fitted with strength 0 is the baseline; `beauty` moves along the prompts then.
            return request.model_copy(update={"beauty": request.beauty + bool(nulls.axis.strength)})
        return request.model_copy(update={"query": request.query and request.query + nulls.suffix})

    def _num_candidates(self, k: int, diversity: Diversity, cursor: paging.Cursor | None) -> int:
        """How many images a diverse search chooses from: the same number on every page.

        Cursors are not signed, so the number in a cursor is capped at what a first page could ask for.
        """
        if cursor and cursor.num_candidates:
            return min(cursor.num_candidates, max(diversity.num_candidates, self._config.max_k))
        return max(diversity.num_candidates, k)

    async def _search_teacher(self, request: BaseSearchRequest, system: System) -> SearchAnswer:
        assert self._teacher is not None
        timer = StepTimer(self._metrics, TEACHER)
        where = filters.sql_condition(request.filters)
        ranked = await self._teacher.answer(request, system, where, self.preview, timer)
        rows = ranked.rows[: request.k]
        return await self._answer(request, TEACHER, system, rows, timer, rephrased=ranked.rephrased)

    async def _answer(
        self,
        request: BaseSearchRequest,
        name: str,
        system: System,
        rows: list[ResultRow],
        timer: StepTimer,
        next_page: str = "",
        rephrased: str = "",
    ) -> SearchAnswer:
        self._metrics.search(name)
        # Preferences are about words: if the search used anything else, the id carries no query.
        changed = request.image or request.negatives or request.tastes or request.beauty
        words = "" if changed else request.query
        image_ids = [row["image_id"] for row in rows]
        # Votes are counted by encoder: what a variant does with the baseline's is not the baseline.
        encoder = f"{system.fingerprint}+{name}" if name in VARIANTS else system.fingerprint
        search_id = self._signed_ids.issue(words, name, encoder, image_ids, time())
        texts = (request.query, *request.negatives)
        query_words, *negatives_words = await asyncio.to_thread(
            lambda: [query.words_read(text, system) for text in texts]
        )
        return SearchAnswer(
            search_id=search_id,
            query=request.query,
            query_words=query_words,
            negatives_words=negatives_words,
            rephrased=rephrased,
            system=name,
            encoder=system.fingerprint,
            rows=rows,
            next=next_page,
            timings_ms=timer.finish(),
        )

    async def _search_index(self, system: System, vector: np.ndarray, options: SearchOptions) -> ResultPage:
        try:
            return await system.search((vector, options))
        except Gone:
            raise ApiError(
                410, "page_expired", "The index of this page no longer exists: search again.", "cursor"
            ) from None

    def heatmap(self, image_id: str, text: str, system: str) -> Heatmap:
        """How similar each part of the image is to the text.

        Raises KeyError for an unknown image, ApiError for an unknown system, an unsupported image tower, or a
        preview that cannot be read.
        """
        chosen = self._system(system)
        try:
            image = decode(self.preview(image_id))
        except UnusableImage as error:
            raise ApiError(
                422, "unreadable_image", f"The preview cannot be read: {error}.", "image_id"
            ) from None
        try:
            values = similarity_map(chosen.encoder, image, chosen.encoder.encode_texts([text])[0])
        except UserError as error:
            raise ApiError(422, "no_parts", f"There is no heat map: {error}") from None
        words = query.words_read(text, chosen)
        return Heatmap(encoder=chosen.fingerprint, query_words=words, values=np.round(values, 4).tolist())

    async def feedback(self, event: FeedbackRequest, client: str, group: str) -> FeedbackResponse:
        """Store a person's choice; it is on disk when this returns. Raises ApiError for a bad event.

        `group`: the API key or address of the client.
        """
        try:
            response = await self._feedback.record(event, client, group)
        except ApiError as refusal:
            self._metrics.feedback(event.kind, refusal.code)
            raise
        self._metrics.feedback(event.kind, "new" if response.new else "known")
        return response

    def preview(self, image_id: str) -> bytes:
        """The JPEG preview of an image (64 hex characters). Raises KeyError for an unknown one."""
        return self._cached_preview(image_id, self._images.version)

    def _read_preview(self, image_id: str, version: int) -> bytes:
        # `version` is part of the cache key: a deleted image is not served from the cache.
        where = f"image_id = '{image_id}'"
        rows = self._images.search().where(where).select(["preview"]).limit(1).to_list()
        if not rows:
            raise KeyError(image_id)
        return rows[0]["preview"]

    def delete(self, image_id: str) -> int:
        """Remove the image from all tables; returns the number of rows.

        Raises KeyError if there are none, ApiError if the store does not respond.
        """
        if reason := self.unready_reason():  # a store whose folder is gone would seem to have no such image
            raise ApiError(503, "not_ready", reason)
        return self._store.delete_image(image_id)


def _diverse(rows: list[ResultRow], k: int, weight: float) -> list[ResultRow]:
    if not rows:
        return []
    scores = np.array([row["score"] for row in rows])
    order = mmr(scores, np.stack([row["vector"] for row in rows]), k, weight)
    return [{key: value for key, value in rows[index].items() if key != "vector"} for index in order]


def _examples(store: Store, system: System) -> list[str]:
    """A few short captions of indexed images, the same ones at every start."""
    table = store.open(embeddings_table(system.fingerprint))
    rows = table.search().select(["caption"]).limit(2000).to_arrow()["caption"].to_pylist()
    short = {text.strip().lower(): text.strip() for text in rows if 2 <= len(text.split()) <= 6}
    return random.Random(0).sample(sorted(short.values()), min(NUM_EXAMPLES, len(short)))
