"""Writes a studio: images, captions, latents, queries and votes, in the form of an ordinary image folder.

    kallos studio --out runs/studio --seed 0 --num-images 4000

Input: a seed. Output folder:

    images/<split>/<index>.jpg   split: train | gallery | heldout
    metadata.parquet             file_name, caption, detailed_caption, tags, split: input of `kallos ingest`
    latents.parquet              image_id, file_name, split, aesthetics and every latent
    truth.parquet                query, image_id, accurate, aesthetics: held-out queries x gallery images
    labels.parquet               image_id, label: the subject of each image
    queries_train.parquet        query; disjoint from the held-out queries
    queries_heldout.parquet      query; each has at least five accurate images in the gallery
    hpir.parquet                 votes of simulated people on held-out images (form: `raters.hpir_row`)
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from cluster.command import output_folder, save_config, settings
from cluster.errors import UserError
from cluster.session import connect
from lab.studio.captions import detailed_caption, sample_queries, web_caption
from lab.studio.config import StudioConfig
from lab.studio.draw import render
from lab.studio.latents import Latents, sample_latents, true_aesthetics
from lab.studio.raters import Rater, hpir_row, sample_raters
from lab.studio.truth import accurate_ids, label_table, scenes, truth_table

SPLITS = {"train": 0.4, "gallery": 0.4, "heldout": 0.2}
JPEG_QUALITY = 92
MIN_ACCURATE = 5  # images of the gallery that match a held-out query, at least
GROUP_SIZE = 5  # images of a group that people vote on
# Seed streams of queries and votes; the stream of an image is its index.
QUERIES_STREAM, VOTES_STREAM = 1_000_003, 1_000_004


def split_of(index: int, num_images: int) -> str:
    """The split of the image with that index."""
    bounds = np.cumsum(list(SPLITS.values())) * num_images
    return list(SPLITS)[int(np.searchsorted(bounds, index, side="right"))]


@dataclasses.dataclass(frozen=True)
class Queries:
    """The queries of a studio; the two lists are disjoint."""

    train: list[str]
    held_out: list[str]


def choose_queries(config: StudioConfig) -> Queries:
    """Draw the queries, and check that there are enough images for them and for the votes.

    Queries depend on what the images show, which is known before any image is drawn. Raises UserError for too
    few images or too many queries.
    """
    splits: dict[str, dict[str, Latents]] = {split: {} for split in SPLITS}
    for index in range(config.num_images):
        latents = sample_latents(np.random.default_rng((config.seed, index)))
        splits[split_of(index, config.num_images)][str(index)] = latents
    rng = np.random.default_rng((config.seed, QUERIES_STREAM))
    gallery = splits["gallery"]
    try:
        held_out = sample_queries(
            rng, config.num_heldout_queries, lambda query: len(accurate_ids(query, gallery)) >= MIN_ACCURATE
        )
    except ValueError as error:
        raise UserError(
            f"num_images={config.num_images} is too few for {config.num_heldout_queries} held-out queries "
            f"with {MIN_ACCURATE} images each ({error}): give more images, or fewer --num-heldout-queries."
        ) from None
    try:
        train = sample_queries(rng, config.num_train_queries, lambda query: query not in held_out)
    except ValueError as error:
        raise UserError(
            f"num_train_queries={config.num_train_queries} is too many ({error}): give fewer."
        ) from None
    _, _, voted = _voters_and_queries(config, splits["heldout"])
    if config.num_hpir and not voted:
        raise UserError(
            f"num_images={config.num_images} is too few for votes on groups of {GROUP_SIZE} images: give at "
            "least 1,000 images, or num_hpir=0."
        )
    return Queries(train, held_out)


def write_image(index: int, config: StudioConfig) -> dict:
    """Draw and save one image; returns its columns of `metadata` and `latents`."""
    rng = np.random.default_rng((config.seed, index))
    latents = sample_latents(rng)
    encoded = cv2.imencode(
        ".jpg", render(latents, config.size_px)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )[1].tobytes()
    split = split_of(index, config.num_images)
    name = f"images/{split}/{index:06d}.jpg"
    (Path(config.out) / name).write_bytes(encoded)
    return {
        "image_id": hashlib.sha256(encoded).hexdigest(),
        "file_name": name,
        "split": split,
        "caption": web_caption(latents, rng),
        "detailed_caption": detailed_caption(latents),
        "aesthetics": true_aesthetics(latents),
        **dataclasses.asdict(latents),
    }


def draw_batch(batch: dict[str, np.ndarray], config: StudioConfig) -> pa.Table:
    """Ray Data stage: column `id` -> the rows of `write_image`."""
    cv2.setNumThreads(1)
    return pa.Table.from_pylist([write_image(int(index), config) for index in batch["id"]])


def draw_images(config: StudioConfig) -> pa.Table:
    """Draw all images in parallel with Ray Data; returns their rows, ordered by file name."""
    for split in SPLITS:
        (Path(config.out) / "images" / split).mkdir(parents=True, exist_ok=True)
    num_blocks = max(2, config.num_images // 250)
    rows = ray.data.range(config.num_images, override_num_blocks=num_blocks).map_batches(
        cast(Any, draw_batch),  # Ray's types allow no arguments besides the batch
        fn_kwargs={"config": config},
        batch_size=50,
        compute=ray.data.TaskPoolStrategy(size=os.cpu_count()),
        num_cpus=1,
    )
    blocks: Any = rows.to_arrow_refs()  # `ray.get` has no annotation for references to tables
    return pa.concat_tables(ray.get(blocks)).sort_by("file_name")


def write_queries(rows: pa.Table, queries: Queries, config: StudioConfig) -> None:
    """Write training and held-out queries, and the truth of the held-out ones."""
    for name, texts in (("train", queries.train), ("heldout", queries.held_out)):
        pq.write_table(pa.table({"query": texts}), Path(config.out) / f"queries_{name}.parquet")
    truth = truth_table(queries.held_out, scenes(rows, "gallery"))
    pq.write_table(truth, Path(config.out) / "truth.parquet")


def _voters_and_queries(
    config: StudioConfig, held_out: Mapping[str, Latents]
) -> tuple[np.random.Generator, list[Rater], list[tuple[str, list[str]]]]:
    """The raters, and the queries with enough held-out images for two groups, each with these images."""
    rng = np.random.default_rng((config.seed, VOTES_STREAM))
    raters = sample_raters(rng, config.num_raters)
    matched = [(query, accurate_ids(query, held_out)) for query in sample_queries(rng, 300)]
    most = len(held_out) - 2 * GROUP_SIZE  # some images of the groups are replaced by others
    return rng, raters, [(query, ids) for query, ids in matched if 2 * GROUP_SIZE <= len(ids) <= most]


def write_votes(rows: pa.Table, config: StudioConfig) -> None:
    """Write HPIR rows on the held-out split."""
    held_out = scenes(rows, "heldout")
    rng, raters, usable = _voters_and_queries(config, held_out)
    votes = []
    for index in range(config.num_hpir):
        query, ids = usable[index % len(usable)]
        votes.append(hpir_row(query, held_out, ids, raters, rng, GROUP_SIZE))
    pq.write_table(pa.Table.from_pylist(votes), Path(config.out) / "hpir.parquet")


def write_metadata(rows: pa.Table, config: StudioConfig) -> None:
    """Write `latents.parquet`, `labels.parquet` and `metadata.parquet`."""
    folder = Path(config.out)
    pq.write_table(rows.drop_columns(["caption", "detailed_caption"]), folder / "latents.parquet")
    pq.write_table(label_table(scenes(rows)), folder / "labels.parquet")
    tags = [[f"split:{split}"] for split in rows["split"].to_pylist()]
    metadata = rows.select(["file_name", "caption", "detailed_caption", "split"])
    pq.write_table(metadata.append_column("tags", pa.array(tags)), folder / "metadata.parquet")


def run(config: StudioConfig) -> dict:
    """Write the folder, unless the same config has written it before.

    Raises UserError when the folder holds something else.
    """
    started = time.monotonic()
    folder = Path(config.out)
    done_mark = folder / "studio.json"
    identity = config.model_dump(exclude={"profile", "set", "store", "out"})
    if done_mark.exists() and done_mark.read_text() != json.dumps(identity):
        raise UserError(f"The folder {folder} holds a studio of another configuration: give another --out.")
    if not done_mark.exists():
        output_folder(folder)
        if not (folder / "resolved_config.yaml").exists() and any(folder.iterdir()):
            raise UserError(f"The folder {folder} is not empty and holds no studio: give another --out.")
        profile, _ = settings(config)
        queries = choose_queries(config)
        save_config(config, folder)
        connect(profile)
        rows = draw_images(config)
        write_queries(rows, queries, config)
        write_votes(rows, config)
        write_metadata(rows, config)
        done_mark.write_text(json.dumps(identity))
    return {
        "studio": str(folder),
        "num_images": config.num_images,
        "seconds": round(time.monotonic() - started, 1),
    }
