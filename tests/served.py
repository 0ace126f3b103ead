"""A store with known search results, and a real server process over it.

The vectors of the images are the standard basis, so the scores of one search are the components of the query
vector. Tests read back the vector that the server computed and compare it with the encoder's.
"""

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import yaml
from PIL import Image
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder
from actors.images import preview_jpeg
from cluster.profile import PROFILES, ROOT
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now

MAX_K = 32
START_TIMEOUT_S = 500  # an idle machine takes 20 s
HEX_64 = "0" * 64


def add_gallery(store, dim, fingerprint, order):
    """Add `dim` images; image `order[axis]` has the unit vector of `axis`. Returns the image_ids by axis."""
    pictures = [Image.new("RGB", (64 + 8 * index, 300), (7 * index, 99, 60)) for index in range(dim)]
    ids = [hashlib.sha256(f"picture {index}".encode()).hexdigest() for index in range(dim)]
    shared = [
        {
            "image_id": ids[index],
            "caption": f"the picture {index}",
            "width_px": pictures[index].width,
            "height_px": 300,
            "tags": [],
            "source": "test",
            "added_at": now(),
        }
        for index in range(dim)
    ]
    images = [
        {**row, "uri": f"{row['image_id']}.png", "detailed_caption": "", "preview": preview_jpeg(picture)}
        for row, picture in zip(shared, pictures, strict=True)
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    unit_vectors = np.eye(dim, dtype=np.float32)
    rows = [
        {**shared[index], "vector": unit_vectors[axis], "aesthetic": axis / dim}
        for axis, index in enumerate(order)
    ]
    vectors = pa.Table.from_pylist(rows, embeddings_schema(dim))
    store.merge(embeddings_table(fingerprint), vectors, on=["image_id"])
    return [ids[index] for index in order]


@dataclass
class Deployment:
    """A store with encoders `baseline` and `live`, and its profile. `axes`: alias -> image_ids by axis."""

    store: Store
    encoders: dict[str, Encoder]
    axes: dict[str, list[str]]
    profile: str
    folder: Path


def make_deployment(folder: Path) -> Deployment:
    """Make the store, its encoders and indexes, and the profile."""
    store = Store(str(folder / "store"))
    encoders, axes = {}, {}
    for seed, alias in enumerate(("baseline", "live")):
        checkpoint = write_tiny_encoder(folder / alias, seed)
        encoder = encoders[alias] = Encoder.load(checkpoint)
        record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim)
        store.register_encoder(record)
        store.set_alias(alias, encoder.fingerprint)
        order = np.random.default_rng(seed).permutation(encoder.dim)
        axes[alias] = add_gallery(store, encoder.dim, encoder.fingerprint, order)
    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["store"] = store.uri
    values["encoder"]["model"] = str(folder / "baseline")
    values["serve"] |= {"max_k": MAX_K, "refresh_s": 0.2, "allow_delete": True}
    values["ray"]["object_store_bytes"] = 200_000_000
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump(values))
    return Deployment(store, encoders, axes, str(profile), folder)


def run_server(profile: str, folder: Path) -> Iterator[httpx.Client]:
    """Run `python -m serve_app` in a process; end it with SIGTERM and check its exit status and report."""
    command = [sys.executable, "-m", "serve_app", "--profile", profile, "--port", "0"]
    log = open(folder / "stderr.txt", "w+")  # noqa: SIM115 (the process writes to it)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address = wait_for_address(process, Path(log.name))
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 0, Path(log.name).read_text()
        assert json.loads(stdout.splitlines()[-1])["address"] == address
    finally:
        process.kill()
        log.close()


def wait_for_address(process, log):
    for _ in range(10 * START_TIMEOUT_S):
        if found := re.search(r"Kallos answers at (http://\S+) ", log.read_text()):
            return found[1]
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def search(client, query, system="live", k=MAX_K):
    return ask(client, query=query, k=k, system=system)


def query_vector(results, axes):
    """The query vector, whose components are the scores of the images `axes`."""
    scores = {row["image_id"]: row["score"] for row in results}
    return np.array([scores[image_id] for image_id in axes])


def ask(client: httpx.Client, **body: object) -> dict:
    """The JSON response to one search request, which must succeed."""
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer: dict) -> list[str]:
    """The image_ids of an answer, best first."""
    return [row["image_id"] for row in answer["results"]]
