"""The systems that can be searched, each an encoder with its own index; they follow the aliases of the store.

An encoder and the table of its vectors are one object. A search takes this object once and keeps it, so a
promotion under load never mixes two encoders in one answer.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from actors.encoder import Encoder, load_registered
from actors.nulls.axis import Axis
from actors.retriever import Retriever
from cluster.errors import UserError
from cluster.profile import EncoderModel, Profile
from cluster.sql import in_list
from cluster.tables import EncoderRecord, Store
from serve_app.batching import Batcher
from serve_app.errors import ApiError
from serve_app.metrics import Metrics
from serve_app.search import tastes
from serve_app.search.batched_search import search_batch
from serve_app.search.beauty import Nulls, fitted_nulls, prompt_axis

logger = logging.getLogger(__name__)

COLUMNS = ("caption", "width_px", "height_px")
NUM_TASTE_IMAGES = 400
# Encoders without an alias that stay open to answer the next pages of their searches.
NUM_RETIRED = 1
CANDIDATE = "candidate"
# An encoder that failed to open is tried again after this long, or as soon as its index is measured again.
RETRY_S = 60.0


class OpenFailure(NamedTuple):
    """Why and when (`time.monotonic`) an encoder failed to open, and when its index had been measured."""

    reason: str
    measured_at: datetime | None
    at_s: float


@dataclass(frozen=True)
class System:
    """One encoder and the index of its own vectors. They change together or not at all."""

    record: EncoderRecord
    encoder: Encoder
    encode_text: Batcher  # text -> float32 [D]
    encode_image: Batcher  # uint8 [3, H, W] -> float32 [D]
    search: Batcher  # (query vector float32 [D], SearchOptions) -> ResultPage
    retriever: Retriever
    prompt_axis: Axis
    nulls: Nulls | None = None  # fitted when the encoder was aligned, in the space of its parent
    axes: Mapping[str, np.ndarray] = field(default_factory=dict)  # taste -> its direction, float32 [D]
    recall_at_10: float | None = None
    measured_at: datetime | None = None  # last measurement by `kallos index` when the index was opened

    @property
    def fingerprint(self) -> str:
        return self.record.encoder

    @property
    def num_rows(self) -> int:
        """Number of images in the index now."""
        return self.retriever.table.count_rows()


# (fingerprint, `measured_at` of its index, an open system with the same encoder or None) -> the system
Opener = Callable[[str, datetime | None, System | None], System]


class Systems:
    """The systems by alias. `refresh` follows the aliases and reopens indexes that `kallos index` changed."""

    def __init__(self, store: Store, required: Sequence[str], open_system: Opener) -> None:
        """Open the encoders of the aliases `required`, the default first. Raises UserError if one fails."""
        check_store(store)
        self._store = store
        self._open = open_system
        self._opened: dict[str, System] = {}
        self._failures: dict[str, OpenFailure] = {}
        self._retired: list[str] = []  # fingerprints without an alias, the most recent last
        self.required = tuple(required)
        self.names = tuple(dict.fromkeys((*required, CANDIDATE)))
        self.by_alias: dict[str, System] = {}
        self.errors: dict[str, str] = {}  # alias -> why its encoder is not open
        self._follow_aliases()
        for alias in required:
            if alias in self.errors:
                raise UserError(self.errors[alias])

    def get(self, alias: str) -> System:
        """The system of an alias. Raises ApiError (404) if there is none."""
        if alias not in self.by_alias:
            reason = self.errors.get(alias, "No encoder has this alias.")
            raise ApiError(404, "no_such_system", f"There is no system {alias!r}. {reason}", "system")
        return self.by_alias[alias]

    def by_encoder(self, fingerprint: str) -> System | None:
        """The system of an encoder that has an alias, or lost it recently."""
        return self._opened.get(fingerprint)

    def nulls(self, fingerprint: str) -> Nulls | None:
        """The nulls in the space of an encoder, from the first alias whose encoder was aligned from it."""
        aligned = (one for one in self.by_alias.values() if one.record.parent == fingerprint)
        return next((one.nulls for one in aligned if one.nulls), None)

    def axis(self, system: System) -> Axis:
        """The axis of beauty in the space of a system: the fitted one if there is one that moves anything."""
        nulls = self.nulls(system.fingerprint)
        return nulls.axis if nulls and nulls.axis.strength else system.prompt_axis

    def refresh(self) -> None:
        """Follow the aliases. A new encoder is opened first and then replaces the old one at once.

        An index that was measured again is reopened, as it may have been incomplete before. If an encoder
        cannot be opened, the error is logged, the old one stays, and the other aliases are still followed.
        """
        before = dict(self.errors)
        self._follow_aliases()
        for alias, reason in self.errors.items():
            if before.get(alias) != reason:
                logger.error("alias %s is not followed: %s", alias, reason)

    def _follow_aliases(self) -> None:
        # Read before anything is opened: what is measured meanwhile is left to the next refresh.
        aliases, measured = self._store.aliases(), _measured_at(self._store)
        current, errors = dict(self.by_alias), {}
        for alias in self.names:
            try:
                fingerprint = self._resolve(aliases, alias)
                if fingerprint is None:
                    current.pop(alias, None)
                    continue
                current[alias] = self._system(fingerprint, measured.get(fingerprint))
            except UserError as error:
                errors[alias] = str(error)
        before = [system.fingerprint for system in self.by_alias.values()]
        self.by_alias, self.errors = current, errors
        self._retire(before, {system.fingerprint for system in current.values()})

    def _system(self, fingerprint: str, measured_at: datetime | None) -> System:
        """The system with this encoder and index, opened if necessary. Raises UserError if that fails."""
        system = self._opened.get(fingerprint)
        if system is not None and system.measured_at == measured_at:
            return system
        failure = self._failures.get(fingerprint)
        if failure and failure.measured_at == measured_at and time.monotonic() - failure.at_s < RETRY_S:
            raise UserError(failure.reason)
        try:
            system = self._opened[fingerprint] = self._open(fingerprint, measured_at, system)
        except Exception as error:  # from Lance, torch or the disk: it must not affect the other encoders
            reason = str(error)
            if not isinstance(error, UserError):
                logger.exception("encoder %s cannot be opened", fingerprint)
                reason = f"Encoder {fingerprint} cannot be opened: {type(error).__name__}: {error}."
            self._failures[fingerprint] = OpenFailure(reason, measured_at, time.monotonic())
            raise UserError(reason) from error
        self._failures.pop(fingerprint, None)
        return system

    def _resolve(self, aliases: Mapping[str, str], alias: str) -> str | None:
        """The fingerprint of an alias. Until an encoder is promoted, `live` is the baseline."""
        if alias == "live" and "live" not in aliases:
            alias = "baseline"
        if alias in aliases:
            return aliases[alias]
        return None if alias == CANDIDATE else self._store.encoder(alias).encoder

    def _retire(self, before: Sequence[str], used: set[str]) -> None:
        """Close encoders without an alias, except the `NUM_RETIRED` that lost theirs last.

        If several lose their alias at the same time, the one whose alias comes first stays.
        """
        known = (*self._retired, *reversed(before))
        unused = list(dict.fromkeys(fingerprint for fingerprint in known if fingerprint not in used))
        self._retired = unused[-NUM_RETIRED:]
        for fingerprint in unused[:-NUM_RETIRED]:
            del self._opened[fingerprint]


def check_store(store: Store) -> None:
    """Raise UserError if the folder of the store does not exist: LanceDB would create it."""
    if "://" not in store.uri and not os.path.isdir(store.uri):
        raise UserError(f"There is no store {store.uri}: run `kallos ingest` first, or give another --store.")


def opener(profile: Profile, store: Store, metrics: Metrics) -> Opener:
    """The function that opens systems of this profile and store."""
    return partial(open_system, profile, store, metrics)


def open_system(
    profile: Profile,
    store: Store,
    metrics: Metrics,
    fingerprint: str,
    measured_at: datetime | None = None,
    before: System | None = None,
) -> System:
    """Load an encoder and open its index; with `before`, a system of the same encoder, only the index.

    Raises UserError when a table or checkpoint is missing or belongs to another encoder.
    """
    record = store.encoder(fingerprint)
    retriever = Retriever(store, fingerprint)  # first: a missing index is refused before weights are loaded
    encoder = before.encoder if before else _load(record, profile.encoder)
    vector = encoder.encode_texts(["warm-up"])  # the first call is slow
    retriever.search(vector, 1, columns=COLUMNS)
    batched = partial(Batcher, max_batch_size=profile.serve.max_batch_size)
    index: dict[str, Any] = {
        "search": batched(
            partial(search_batch, retriever, COLUMNS), on_batch=partial(metrics.batch, "search")
        ),
        "retriever": retriever,
        "axes": _taste_axes(store, retriever),
        "recall_at_10": _recall(store, retriever),
        "measured_at": measured_at,
    }
    if before:
        return replace(before, **index)
    return System(
        record=record,
        encoder=encoder,
        prompt_axis=prompt_axis(encoder.encode_texts),
        nulls=fitted_nulls(record.metrics),
        encode_text=batched(
            encoder.encode_texts, wait_s=profile.serve.batch_wait_s, on_batch=partial(metrics.batch, "encode")
        ),
        encode_image=batched(
            lambda images: encoder.encode_images(np.stack(images)), on_batch=partial(metrics.batch, "image")
        ),
        **index,
    )


def _measured_at(store: Store) -> dict[str, datetime]:
    """Fingerprint -> when `kallos index` last measured the index of the encoder."""
    if not store.exists("indexes"):
        return {}
    rows: list[Any] = store.read("indexes", ["encoder", "measured_at"]).sort_by("measured_at").to_pylist()
    return {row["encoder"]: row["measured_at"] for row in rows}


def _taste_axes(store: Store, retriever: Retriever) -> dict[str, np.ndarray]:
    """The taste directions of an index, fitted to images spread evenly over its table."""
    num_rows = retriever.table.count_rows()
    if not num_rows:
        return {}
    indices = np.unique(np.linspace(0, num_rows - 1, min(num_rows, NUM_TASTE_IMAGES)).astype(int))
    sample = retriever.table.to_lance().take(indices.tolist(), ["image_id", "vector"])
    vectors = dict(zip(sample["image_id"].to_pylist(), sample["vector"].to_pylist(), strict=True))
    images = store.read("images", ["image_id", "preview"], in_list("image_id", vectors)).to_pylist()
    matrix = np.array([vectors[row["image_id"]] for row in images], np.float32)
    return tastes.fit([row["preview"] for row in images], matrix)


def _recall(store: Store, retriever: Retriever) -> float | None:
    """recall@10 of the index as `kallos index` last measured it, None if it has not."""
    if not retriever.approximate:
        return 1.0
    if not store.exists("indexes"):
        return None
    rows = store.read("indexes", where=f"encoder = '{retriever.fingerprint}'").sort_by("measured_at")
    return rows["recall_at_10"][-1].as_py() if rows.num_rows else None


def _load(record: EncoderRecord, config: EncoderModel) -> Encoder:
    """The registered encoder. Raises UserError if its checkpoint is not the one that made the index."""
    return load_registered(
        record,
        precision=config.precision,
        num_threads=config.num_threads,
        num_gpus=config.stage.num_gpus,
    )
