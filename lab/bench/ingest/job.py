"""Compares the ingest pipeline with a plain open_clip loop over the same JPEG files, in turns, in one run.

    kallos bench ingest --num-images 2000

ingest: read, sha256, decode, preview, pixels, embed, merge into `embeddings_<encoder>` and `images` of a new
store. Time is measured from the end of the first embedded block, which is not counted, to the last merge. The
actors start before the first file is read, so that no decoded images pile up in front of them.
bare loop: open, decode, open_clip's own preprocessing, encode, L2-normalise, in one process with torch's
threads, the same batch size and precision, and a model that is loaded and warm. It computes no identities and
no previews, and writes no tables.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import open_clip
import pyarrow as pa
import ray.data
import torch
from PIL import Image

from actors.encoder import PRECISIONS, Encoder, open_clip_name
from cluster import command, session
from cluster.errors import UserError, shown
from cluster.profile import EncoderModel
from cluster.tables import Store
from jobs.ingest import job as pipeline
from jobs.ingest.config import IngestConfig
from jobs.ingest.lookup import Lookup
from jobs.ingest.prepare import DecodeSettings
from jobs.ingest.sources.listing import images_of, list_files, locate
from jobs.ingest.sources.opening import open_source
from jobs.ingest.writer import Writer
from lab.bench.ingest.config import BenchIngestConfig
from lab.bench.report import comparison, report

ACTORS_READY_S = 600


def run(config: BenchIngestConfig) -> dict[str, Any]:
    """Measure both sides in turns; the ratio is of images per second."""
    profile, _ = command.settings(config)
    if config.source:
        files_of(config.source, profile.encoder.stage.batch_size)
    session.connect(profile)
    ray.data.DataContext.get_current().wait_for_min_actors_s = ACTORS_READY_S
    with tempfile.TemporaryDirectory(prefix="kallos-bench-") as scratch:
        source = config.source or write_studio(config, f"{scratch}/studio")
        files = files_of(source, profile.encoder.stage.batch_size)
        loop = BareLoop(profile.encoder)
        speeds: dict[str, list[float]] = {"ingest": [], "bare_loop": []}
        for turn in range(config.num_runs):
            speeds["bare_loop"].append(loop.images_per_s(files))
            speeds["ingest"].append(ingest_images_per_s(profile.encoder, source, f"{scratch}/store_{turn}"))
    figures = {f"{side}_images_per_s": round(median(values), 1) for side, values in speeds.items()}
    figures |= {"num_images": len(files), "batch_size": profile.encoder.stage.batch_size}
    figures |= {"bare_loop_threads": torch.get_num_threads(), "embed_threads": profile.encoder.num_threads}
    ratio = comparison(speeds["ingest"], speeds["bare_loop"])
    return report("ingest", {"ingest_over_bare_loop": ratio}, figures)


def files_of(source: str, batch_size: int) -> list[str]:
    """The image files of a folder. Raises UserError unless there are more than the warm-up batch."""
    files = [path for path, _ in images_of(list_files(locate(source)).files)]
    if len(files) <= batch_size:
        raise UserError(
            f"{shown(source)} has {len(files)} images, but the first {batch_size} only warm up: give more."
        )
    return files


def write_studio(config: BenchIngestConfig, folder: str) -> str:
    """Write a seeded studio; returns the folder of its JPEG files."""
    from lab.studio import job as write

    write.run(
        write.StudioConfig(
            profile=config.profile,
            out=folder,
            num_images=config.num_images,
            num_train_queries=1,
            num_heldout_queries=1,
            num_hpir=0,
        )
    )
    return folder


def ingest_images_per_s(model: EncoderModel, source: str, store_uri: str) -> float:
    """Images per second of the whole pipeline, into a new store, after the first block."""
    opened = open_source(IngestConfig(source=source), model.decode)
    encoder = Encoder.load(model.model)
    settings = DecodeSettings(encoder.fit, preview_px=256, max_pixels=IngestConfig(source=source).max_pixels)
    writer = Writer(Store(store_uri), encoder, opened.label)
    batches = pipeline.embedded_batches(opened, model, settings, Lookup(pa.array([], pa.string())))
    uncounted = next(batches)
    writer.add(uncounted)
    started = time.perf_counter()
    for batch in batches:
        writer.add(batch)
    writer.flush()
    return (writer.counts["num_inputs"] - uncounted.num_rows) / (time.perf_counter() - started)


class BareLoop:
    """A hand-written loop with open_clip and Pillow, in one process."""

    def __init__(self, model: EncoderModel) -> None:
        name, weights = open_clip_name(model.model)
        model_and_transforms: Any = open_clip.create_model_and_transforms(name, pretrained=weights)
        network, _, self.preprocess = model_and_transforms
        self.device = "cuda" if model.stage.num_gpus else "cpu"
        self.network = network.eval().to(self.device)
        self.batch_size = model.stage.batch_size
        self.bf16 = PRECISIONS[model.precision] == torch.bfloat16

    def images_per_s(self, files: Sequence[str]) -> float:
        """Encode the files; the first batch is a warm-up and not counted."""
        batches = [files[start : start + self.batch_size] for start in range(0, len(files), self.batch_size)]
        self.encode(batches[0])
        started = time.perf_counter()
        for batch in batches[1:]:
            self.encode(batch)
        return (len(files) - len(batches[0])) / (time.perf_counter() - started)

    @torch.inference_mode()
    def encode(self, files: Sequence[str]) -> torch.Tensor:
        """L2-normalised vectors [B, D] of the files."""
        images = torch.stack([self.preprocess(Image.open(Path(file)).convert("RGB")) for file in files])
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return self.network.encode_image(images.to(self.device), normalize=True).cpu()
