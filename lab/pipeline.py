"""The verbs of `kallos` in turn on one studio: the demo runs them once, the suite for each seed.

Every step calls the verb's own job, so an interrupted pipeline resumes where it stopped. The folder of a
pipeline holds `studio/`, the tables in `store/`, and the encoders.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.encoder import Encoder
from cluster import terminal
from cluster.command import ProfileConfig, profile_of
from jobs.align import job as align
from jobs.align.config import AlignConfig
from jobs.evaluate import language_models
from jobs.evaluate.config import EvaluateConfig
from jobs.index import job as index
from jobs.index.config import IndexConfig
from jobs.ingest import job as ingest
from jobs.ingest.config import IngestConfig
from jobs.label import job as label
from jobs.label.config import LabelConfig
from lab.studio import job as studio
from lab.studio.config import StudioConfig


class StepRunner:
    """Runs steps one after the other, announces each, and records its seconds."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}

    def run(self, name: str, what: str, step: Callable[[], dict]) -> dict:
        """Run a step; returns its report."""
        terminal.say(f"[{len(self.seconds) + 1}/{self.total}] {name}: {what}")
        started = time.monotonic()
        report = step()
        self.seconds[name] = round(time.monotonic() - started, 1)
        terminal.say(f"{name} done in {self.seconds[name]:.0f} s")
        return report


def check_models(config: ProfileConfig, *, judge: str | None = None) -> None:
    """Load the encoder and check the language models, before a studio is drawn. Raises UserError."""
    profile = profile_of(config)
    Encoder.load(profile.encoder.model, precision=profile.encoder.precision)
    language_models.check_models(EvaluateConfig(judge=judge), profile)


def split_filter(name: str) -> str:
    """SQL filter that selects one split of the studio."""
    return f"array_contains(tags, 'split:{name}')"


@dataclass(frozen=True)
class StudioPipeline:
    """One studio, its store, and the verbs that run on it.

    config: the profile and the settings changed in it. seed: for the studio, the training order and samples.
    store: address of the tables, default: inside the folder. prefix: put before the names of the steps.
    """

    folder: Path
    config: ProfileConfig
    seed: int
    steps: StepRunner
    num_images: int
    num_queries: int
    store: str | None = None
    prefix: str = ""

    @property
    def shared(self) -> dict[str, Any]:
        """The options that every verb of the pipeline is called with."""
        store = self.store or str(self.folder / "store")
        return {"profile": self.config.profile, "set": self.config.set, "store": store}

    @property
    def studio(self) -> str:
        """The studio's folder."""
        return str(self.folder / "studio")

    def evaluation_inputs(self) -> dict[str, Any]:
        """Options of `kallos evaluate` for the studio's held-out queries, images and votes."""
        return {
            "queries": f"{self.studio}/queries_heldout.parquet",
            "truth": f"{self.studio}/truth.parquet",
            "labels": f"{self.studio}/labels.parquet",
            "hpir": (f"{self.studio}/hpir.parquet",),
            "where": split_filter("gallery"),
            "seed": self.seed,
            **self.shared,
        }

    def ingest(self) -> dict:
        """Draw the studio and ingest it; returns ingest's report."""
        drawn = StudioConfig(out=self.studio, seed=self.seed, num_images=self.num_images, **self.shared)
        what = f"{self.num_images} scenes with captions, queries and votes (seed {self.seed})"
        self.run("studio", what, lambda: studio.run(drawn))
        config = IngestConfig(source=self.studio, label="studio", **self.shared)
        return self.run("ingest", "check, hash, decode, embed, write", lambda: ingest.run(config))

    def label(self, name: str = "label", **changes: Any) -> dict:
        """Label the training queries; `changes` are fields of `LabelConfig`."""
        config = LabelConfig(
            queries=f"{self.studio}/queries_train.parquet",
            num_queries=self.num_queries,
            where=split_filter("train"),
            **self.shared,
            **changes,
        )
        what = f"{self.num_queries} queries: the LLM rephrases, the encoder retrieves, models re-rank"
        return self.run(name, what, lambda: label.run(config))

    def align(self, labelled: dict, name: str = "align", **changes: Any) -> dict:
        """Align with the preferences of `label`'s report; `changes` are fields of `AlignConfig`."""
        own = {"run_id": labelled["run_id"], "where": split_filter("train"), "seed": self.seed}
        config = AlignConfig(**own | self.shared | changes)
        what = f"distributed DPO on {labelled['num_preferences']} preferences"
        return self.run(name, what, lambda: align.run(config))

    def index(self, encoder: str, name: str = "index") -> dict:
        """Embed all images with an encoder, an alias or a fingerprint."""
        config = IndexConfig(encoder=encoder, **self.shared)
        return self.run(name, "embed all images with the aligned encoder", lambda: index.run(config))

    def run(self, name: str, what: str, step: Callable[[], dict]) -> dict:
        """Run a step under the pipeline's prefix."""
        return self.steps.run(f"{self.prefix}{name}", what, step)
