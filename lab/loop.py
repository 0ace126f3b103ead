"""The verbs in turn on one studio of its own: what the demo shows once and the evaluation suite repeats.

Every step is the verb itself, called as anyone would call it, so a loop that was stopped goes on where it
stopped. A loop's folder holds `studio/`, the tables in `store/`, and the encoders.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.align import job as align
from jobs.align.config import AlignConfig
from jobs.index import job as index
from jobs.index.config import IndexConfig
from jobs.ingest import job as ingest
from jobs.ingest.config import IngestConfig
from jobs.label import job as label
from jobs.label.config import LabelConfig
from lab.studio import job as studio
from lab.studio.config import StudioConfig


class Stages:
    """Runs steps one after the other, tells what is going on, keeps the seconds."""

    def __init__(self, total: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.total = total
        self.seconds: dict[str, float] = {}

    def run(self, name: str, what: str, step: Callable[[], dict]) -> dict:
        self.console.rule(f"[bold]{len(self.seconds) + 1}/{self.total} {name}[/] · {what}", align="left")
        started = time.monotonic()
        report = step()
        self.seconds[name] = round(time.monotonic() - started, 1)
        self.console.print(f"[green]{name} done[/] in {self.seconds[name]:.0f} s")
        return report


def split(name: str) -> str:
    """SQL filter for one split of the studio."""
    return f"array_contains(tags, 'split:{name}')"


def kept_epochs(training: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(epoch, the weights that learned, as trained) of the checkpoints that an alignment kept, in order.

    training: what `kallos align` reports under that name.
    """
    from jobs.align.train import kept_states  # Ray Train is needed for this alone

    for epoch, state in kept_states(Path(training)):
        yield epoch, state["learned"]


@dataclass(frozen=True)
class Loop:
    """One studio, its store, and the verbs with what they share.

    seed: of the studio, the training order and the samples. set: changed profile fields. prefix: before the
    names of the stages.
    """

    folder: Path
    profile: str
    seed: int
    stages: Stages
    set: tuple[str, ...] = ()
    store: str | None = None
    num_images: int = 4000
    num_queries: int = 160
    prefix: str = ""
    common: dict = field(init=False)

    def __post_init__(self) -> None:
        store = self.store or str(self.folder / "store")
        common = {"profile": self.profile, "set": self.set, "store": store}
        object.__setattr__(self, "common", common)

    @property
    def scenes(self) -> str:
        """The studio's folder."""
        return str(self.folder / "studio")

    def ingest(self) -> dict:
        """Draw the studio and ingest it; returns ingest's report."""
        written = StudioConfig(out=self.scenes, seed=self.seed, num_images=self.num_images, **self.common)
        drawn = f"{self.num_images} scenes with captions, queries and votes (seed {self.seed})"
        self._run("studio", drawn, lambda: studio.run(written))
        photos = IngestConfig(source=self.scenes, label="studio", **self.common)
        return self._run("ingest", "check, hash, decode, embed, write", lambda: ingest.run(photos))

    def label(self, name: str = "label", **changes: object) -> dict:
        """Label the training queries; `changes` are fields of `LabelConfig`."""
        asked = LabelConfig(
            queries=f"{self.scenes}/queries_train.parquet",
            num_queries=self.num_queries,
            where=split("train"),
            **self.common,
            **changes,
        )
        what = f"{self.num_queries} queries: LLM rephrases, encoder retrieves, models re-rank"
        return self._run(name, what, lambda: label.run(asked))

    def align(self, labelled: dict, name: str = "align", **changes: object) -> dict:
        """Align with the preferences of `label`'s report; `changes` are fields of `AlignConfig`."""
        learnt = AlignConfig(
            **{"run_id": labelled["run_id"], "where": split("train"), "seed": self.seed}
            | self.common
            | changes
        )
        what = f"distributed DPO on {labelled['num_preferences']} preferences"
        return self._run(name, what, lambda: align.run(learnt))

    def index(self, encoder: str, name: str = "index") -> dict:
        """Embed everything with an encoder, an alias or a fingerprint."""
        embedded = IndexConfig(encoder=encoder, **self.common)
        return self._run(name, "embed everything with the aligned encoder", lambda: index.run(embedded))

    def _run(self, name: str, what: str, step: Callable[[], dict]) -> dict:
        return self.stages.run(f"{self.prefix}{name}", what, step)
