"""A store whose answers are known in advance, and a real server process over it.

The gallery's vectors are the standard basis, so the scores of one search are the components of the query's
vector: what the server computed can be read back and compared with what the encoder gives here.
"""

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
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
START_TIMEOUT_S = 500  # twenty are enough on an idle machine
HEX_64 = "0" * 64


def add_gallery(store, dim, fingerprint, order):
    """`dim` images; the one at place `number` of `order` has the unit vector of axis `number`."""
    pictures = [Image.new("RGB", (64 + 8 * number, 300), (7 * number, 99, 60)) for number in range(dim)]
    ids = [hashlib.sha256(f"picture {number}".encode()).hexdigest() for number in range(dim)]
    shared = [
        {
            "image_id": ids[number],
            "caption": f"the picture {number}",
            "width_px": pictures[number].width,
            "height_px": 300,
            "tags": [],
            "source": "test",
            "added_at": now(),
        }
        for number in range(dim)
    ]
    images = [
        {**row, "uri": f"{row['image_id']}.png", "detailed_caption": "", "preview": preview_jpeg(picture)}
        for row, picture in zip(shared, pictures, strict=True)
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    axes = np.eye(dim, dtype=np.float32)
    rows = [
        {**shared[number], "vector": axes[place], "aesthetic": place / dim}
        for place, number in enumerate(order)
    ]
    vectors = pa.Table.from_pylist(rows, embeddings_schema(dim))
    store.merge(embeddings_table(fingerprint), vectors, on=["image_id"])
    return [ids[number] for number in order]


def make_world(folder: Path) -> dict:
    """A store with two encoders and their indexes, and a profile file that points to it."""
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
    return {"store": store, "encoders": encoders, "axes": axes, "profile": str(profile), "folder": folder}


def running(world: dict) -> Iterator[httpx.Client]:
    """`python -m serve_app` in a process of its own; ends it with SIGTERM and checks how it ended."""
    command = [sys.executable, "-m", "serve_app", "--profile", world["profile"], "--port", "0"]
    log = open(world["folder"] / "stderr.txt", "w+")  # noqa: SIM115 (open until the process has ended)
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
    answer = client.post("/v1/search", json={"query": query, "k": k, "system": system})
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_back(results, axes):
    """The query's vector, from the scores against the unit vectors of the axes."""
    scores = {row["image_id"]: row["score"] for row in results}
    return np.array([scores[image_id] for image_id in axes])


def ask(client: httpx.Client, **body: object) -> dict:
    """The answer to one request, which must be 200."""
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict) -> list[str]:
    """image_ids of an answer, best first."""
    return [row["image_id"] for row in answer["results"]]
