"""Servers as processes of their own, and the store that they search."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import torch
import yaml
from PIL import Image

from actors.encoder import Encoder, save_encoder
from actors.images import image_id, preview_jpeg
from actors.scorers import PromptPairs
from cluster.compat.serve import replica_title
from cluster.errors import UserError
from cluster.profile import Profile
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now

START_S = 300
NOISE = 0.02  # of a weight's own spread: another encoder, near the first


@dataclass(frozen=True)
class World:
    """A store with two encoders, `baseline` and another, and a table of each."""

    store: Store
    encoders: tuple[Encoder, Encoder]
    captions: list[str]


def make_world(profile: Profile, folder: Path, captions: list[str], seed: int) -> World:
    """As many images as captions, with vectors near their captions' own."""
    first = Encoder.load(profile.encoder.model)
    changed = Encoder.load(profile.encoder.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in changed.model.parameters():
            weight += NOISE * weight.std() * torch.randn(weight.shape, generator=generator)
    save_encoder(changed.model, profile.encoder.model, str(folder / "other"))
    second = Encoder.load(str(folder / "other"))
    store, rng = Store(str(folder / "store")), np.random.default_rng(seed)
    jpeg = preview_jpeg(Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)))
    rows = [_row(number, caption) for number, caption in enumerate(captions)]
    images = [{**row, "uri": "", "detailed_caption": "", "preview": jpeg} for row in rows]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    for encoder, checkpoint in ((first, profile.encoder.model), (second, str(folder / "other"))):
        record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim)
        store.register_encoder(record)
        vectors = encoder.encode_texts(captions) + 0.3 * rng.standard_normal(
            (len(captions), encoder.dim)
        ) / np.sqrt(encoder.dim)
        _add_vectors(store, encoder, rows, vectors.astype(np.float32))
    for alias in ("baseline", "live"):
        store.set_alias(alias, first.fingerprint)
    return World(store, (first, second), captions)


def _row(number: int, caption: str) -> dict:
    shared = {"width_px": 640, "height_px": 480, "tags": [], "source": "bench", "added_at": now()}
    return {"image_id": image_id(f"{number}".encode()), "caption": caption, **shared}


def _add_vectors(store: Store, encoder: Encoder, rows: list[dict], vectors: np.ndarray) -> None:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = PromptPairs.of(encoder.encode_texts, encoder.temperature).score(vectors)
    full = [
        {**row, "vector": vector, "aesthetic": float(score)}
        for row, vector, score in zip(rows, vectors, scores, strict=True)
    ]
    table = pa.Table.from_pylist(full, embeddings_schema(encoder.dim))
    store.merge(embeddings_table(encoder.fingerprint), table, on=["image_id"])


@dataclass(frozen=True)
class Server:
    """A server that answers at `address`."""

    address: str
    process: subprocess.Popen

    def replicas(self) -> list[psutil.Process]:
        """The processes that hold encoder and index."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        title = replica_title("kallos", "Search")
        return [process for process in below if title in "".join(process.cmdline())]


@contextlib.contextmanager
def kallos(profile: Profile, folder: Path, **changes: object) -> Iterator[Server]:
    """`kallos serve` with those fields of the profile's `serve` changed, until the block ends."""
    values = profile.model_dump(mode="json")
    values["serve"] |= {"teacher": False, **changes}
    path = folder / f"profile_{abs(hash(tuple(sorted(changes))))}_{changes.get('max_batch_size')}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    log = path.with_suffix(".log")
    command = [sys.executable, "-m", "serve_app", "--profile", str(path), "--port", "0"]
    with _process(command, log) as process:
        yield Server(_address(process, log), process)


@contextlib.contextmanager
def flask_loop(world: World, folder: Path) -> Iterator[Server]:
    """The plain loop of `flask_loop.py`, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = [sys.executable, "-m", "lab.bench.serve.flask_loop"]
    command = [*module, world.store.uri, world.encoders[0].fingerprint, str(port)]
    address = f"http://127.0.0.1:{port}"
    with _process(command, folder / "flask.log") as process:
        for _ in range(10 * START_S):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/healthz").status_code == 200:
                    break
            if process.poll() is not None:
                raise UserError(f"the Flask server ended: {(folder / 'flask.log').read_text()[-1000:]}")
            time.sleep(0.1)
        yield Server(address, process)


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen, log: Path) -> str:
    for _ in range(10 * START_S):
        if found := re.search(r"Kallos answers at (http://\S+) ", log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise UserError(f"the server did not start: {log.read_text()[-1000:]}")
