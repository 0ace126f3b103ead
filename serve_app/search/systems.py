"""The encoders that answer, each with its own index, and the look-out for what their aliases name next.

An encoder and the table of its own vectors are one object: a search takes it once and keeps it to the end, so
a promotion under load never mixes two encoders in one answer.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import NamedTuple

import numpy as np

from actors.encoder import Encoder, load_registered
from actors.retriever import Retriever
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile
from cluster.tables import EncoderRecord, Store
from serve_app.http.errors import ApiError
from serve_app.http.metrics import Metrics
from serve_app.search import tastes
from serve_app.search.batched_search import find
from serve_app.search.batching import Batcher

logger = logging.getLogger(__name__)

COLUMNS = ("caption", "width_px", "height_px")
NUM_TASTE_IMAGES = 400
# Encoders that no alias names any more and that still answer the next pages of their searches.
NUM_RETIRED = 1
CANDIDATE = "candidate"
# What was refused is opened again after this, unless its index is measured anew: weights take long to load.
REFUSED_S = 60.0


class Refused(NamedTuple):
    """Why an encoder was not opened, with which index, and when, by `time.monotonic`."""

    reason: str
    measured_at: datetime | None
    at_s: float


@dataclass(frozen=True)
class System:
    """One encoder and the index of its own vectors: they change together or not at all."""

    record: EncoderRecord
    encoder: Encoder
    encode: Batcher  # text -> float32 [D]
    see: Batcher  # uint8 [3, H, W] -> float32 [D]
    find: Batcher  # (float32 [D], finding.Asked) -> finding.Page
    retriever: Retriever
    axes: Mapping[str, np.ndarray] = field(default_factory=dict)
    recall_at_10: float | None = None
    measured_at: datetime | None = None  # when `kallos index` had measured it last, as it was opened

    @property
    def fingerprint(self) -> str:
        return self.record.encoder

    @property
    def num_rows(self) -> int:
        """Images in its index now."""
        return self.retriever.table.count_rows()


# (fingerprint, `measured_at` of its index, the system whose encoder is used again) -> the system
Opener = Callable[[str, datetime | None, System | None], System]


class Systems:
    """The systems by alias; `refresh` follows the aliases and what `kallos index` makes of their indexes."""

    def __init__(self, store: Store, required: Sequence[str], open_system: Opener) -> None:
        """Open what the aliases `required` name, the default first. Raises UserError for what is missing."""
        check_store(store)
        self._store = store
        self._open = open_system
        self._opened: dict[str, System] = {}
        self._not_opened: dict[str, Refused] = {}
        self._retired: list[str] = []  # fingerprints that no alias names any more, the latest last
        self.required = tuple(required)
        self.names = tuple(dict.fromkeys((*required, CANDIDATE)))
        self.by_alias: dict[str, System] = {}
        self.refused: dict[str, str] = {}
        self._follow()
        for alias in required:
            if alias in self.refused:
                raise UserError(self.refused[alias])

    def get(self, alias: str) -> System:
        """The system that an alias names now. Raises ApiError (404) where it names none."""
        if alias not in self.by_alias:
            reason = self.refused.get(alias, "Nothing has that alias.")
            raise ApiError(404, "no_such_system", f"There is no {alias!r} to ask. {reason}", "system")
        return self.by_alias[alias]

    def by_encoder(self, fingerprint: str) -> System | None:
        """The system of an encoder that an alias names or named a moment ago."""
        return self._opened.get(fingerprint)

    def refresh(self) -> None:
        """Follow the aliases: what they name anew is opened first and then takes over at once.

        An index that was measured anew is opened again: it may have been half made before. What cannot be
        opened is logged, what was open before goes on, and the other aliases are followed all the same.
        """
        before = dict(self.refused)
        self._follow()
        for alias, reason in self.refused.items():
            if before.get(alias) != reason:
                logger.error("alias %s is not followed: %s", alias, reason)

    def _follow(self) -> None:
        # Read before anything is opened: what is measured meanwhile shows at the next look.
        named, measured = self._store.aliases(), _measured(self._store)
        current, refused = dict(self.by_alias), {}
        for alias in self.names:
            try:
                fingerprint = self._resolve(named, alias)
                if fingerprint is None:
                    current.pop(alias, None)
                    continue
                current[alias] = self._system(fingerprint, measured.get(fingerprint))
            except UserError as error:
                refused[alias] = str(error)
        before = [system.fingerprint for system in self.by_alias.values()]
        self.by_alias, self.refused = current, refused
        self._retire(before, {system.fingerprint for system in current.values()})

    def _system(self, fingerprint: str, measured_at: datetime | None) -> System:
        """The system with that index, opened where it is not. Raises UserError where it cannot be."""
        system = self._opened.get(fingerprint)
        if system is not None and system.measured_at == measured_at:
            return system
        before = self._not_opened.get(fingerprint)
        if before and before.measured_at == measured_at and time.monotonic() - before.at_s < REFUSED_S:
            raise UserError(before.reason)
        try:
            system = self._opened[fingerprint] = self._open(fingerprint, measured_at, system)
        except Exception as error:  # of Lance, torch, the disk: of one encoder, and no matter of the others
            reason = str(error)
            if not isinstance(error, UserError):
                logger.exception("encoder %s cannot be opened", fingerprint)
                reason = f"Encoder {fingerprint} cannot be opened: {type(error).__name__}: {error}."
            self._not_opened[fingerprint] = Refused(reason, measured_at, time.monotonic())
            raise UserError(reason) from error
        self._not_opened.pop(fingerprint, None)
        return system

    def _resolve(self, named: Mapping[str, str], alias: str) -> str | None:
        """The fingerprint behind an alias. Until something is promoted, `live` is the baseline."""
        if alias == "live" and "live" not in named:
            alias = "baseline"
        if alias in named:
            return named[alias]
        return None if alias == CANDIDATE else self._store.encoder(alias).encoder

    def _retire(self, before: Sequence[str], used: set[str]) -> None:
        """Keep those that lost their alias last; of several at once, those of the first aliases."""
        known = (*self._retired, *reversed(before))
        unused = list(dict.fromkeys(fingerprint for fingerprint in known if fingerprint not in used))
        self._retired = unused[-NUM_RETIRED:]
        for fingerprint in unused[:-NUM_RETIRED]:
            del self._opened[fingerprint]


def check_store(store: Store) -> None:
    """Raises UserError where there is no such folder: LanceDB would make it."""
    if "://" not in store.uri and not os.path.isdir(store.uri):
        raise UserError(f"There is no store {store.uri}: run `kallos ingest` first, or give another --store.")


def opener(profile: Profile, store: Store, metrics: Metrics) -> Opener:
    """How systems of that profile and store are opened."""
    return partial(open_system, profile, store, metrics)


def open_system(
    profile: Profile,
    store: Store,
    metrics: Metrics,
    fingerprint: str,
    measured_at: datetime | None = None,
    before: System | None = None,
) -> System:
    """Load an encoder and its index; only the index where `before` is a system of the same encoder.

    Raises UserError when a table or checkpoint is missing or another's.
    """
    record = store.encoder(fingerprint)
    retriever = Retriever(store, fingerprint)  # first: an index that is missing costs no loading of weights
    encoder = before.encoder if before else _load(record, profile.encoder)
    vector = encoder.encode_texts(["warm-up"])  # the first call of everything is slow: not for a user
    retriever.search(vector, 1, columns=COLUMNS)
    batched = partial(Batcher, max_batch_size=profile.serve.max_batch_size)
    index = {
        "find": batched(partial(find, retriever, COLUMNS), told=partial(metrics.batch, "search")),
        "retriever": retriever,
        "axes": _axes(store, retriever),
        "recall_at_10": _recall(store, retriever),
        "measured_at": measured_at,
    }
    if before:
        return replace(before, **index)
    wait_s = profile.serve.batch_wait_s
    return System(
        record=record,
        encoder=encoder,
        encode=batched(encoder.encode_texts, wait_s=wait_s, told=partial(metrics.batch, "encode")),
        see=batched(
            lambda images: encoder.encode_images(np.stack(images)), told=partial(metrics.batch, "image")
        ),
        **index,
    )


def _measured(store: Store) -> dict[str, datetime]:
    """When `kallos index` measured each encoder's index last, by fingerprint."""
    if not store.exists("indexes"):
        return {}
    rows = store.read("indexes", ["encoder", "measured_at"]).sort_by("measured_at")
    return dict(zip(rows["encoder"].to_pylist(), rows["measured_at"].to_pylist(), strict=True))


def _axes(store: Store, retriever: Retriever) -> dict[str, np.ndarray]:
    """The tastes of an index, from images all over its table."""
    num_rows = retriever.table.count_rows()
    if not num_rows:
        return {}
    places = np.unique(np.linspace(0, num_rows - 1, min(num_rows, NUM_TASTE_IMAGES)).astype(int))
    sample = retriever.table.to_lance().take(places.tolist(), ["image_id", "vector"])
    vectors = dict(zip(sample["image_id"].to_pylist(), sample["vector"].to_pylist(), strict=True))
    listed = ", ".join(f"'{image_id}'" for image_id in vectors)
    shown = store.read("images", ["image_id", "preview"], f"image_id IN ({listed})").to_pylist()
    own = np.array([vectors[row["image_id"]] for row in shown], np.float32)
    return tastes.fit([row["preview"] for row in shown], own)


def _recall(store: Store, retriever: Retriever) -> float | None:
    """recall@10 of the index as `kallos index` measured it last, None when it did not."""
    if not retriever.approximate:
        return 1.0
    if not store.exists("indexes"):
        return None
    rows = store.read("indexes", where=f"encoder = '{retriever.fingerprint}'").sort_by("measured_at")
    return rows["recall_at_10"][-1].as_py() if rows.num_rows else None


def _load(record: EncoderRecord, config: EncoderModel) -> Encoder:
    """The registered encoder, refused when its checkpoint is not the one that made the index."""
    return load_registered(
        record,
        precision=config.precision,
        device="cuda" if config.stage.num_gpus else "cpu",
        num_threads=config.num_threads,
    )
