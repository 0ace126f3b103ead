"""The servers of the benchmark, each in its own process, and the store that they search."""

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
from lab.bench.serve.processes import command_lines

START_S = 300
WEIGHT_NOISE = 0.02  # in standard deviations of a weight: gives a second encoder close to the first
VECTOR_NOISE = 0.3  # length of the noise between an image vector and that of its caption


@dataclass(frozen=True)
class BenchStore:
    """A store with two encoders, `baseline` and another one, and the embeddings of each."""

    store: Store
    encoders: tuple[Encoder, Encoder]
    captions: list[str]


def make_store(profile: Profile, folder: Path, captions: list[str], seed: int) -> BenchStore:
    """A store with one image for each caption, whose vector is near that of the caption."""
    first = Encoder.load(profile.encoder.model)
    changed = Encoder.load(profile.encoder.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in changed.model.parameters():
            weight += WEIGHT_NOISE * weight.std() * torch.randn(weight.shape, generator=generator)
    save_encoder(changed.model, profile.encoder.model, str(folder / "other"))
    second = Encoder.load(str(folder / "other"))
    store, rng = Store(str(folder / "store")), np.random.default_rng(seed)
    jpeg = preview_jpeg(Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)))
    rows = [_row(index, caption) for index, caption in enumerate(captions)]
    images = [{**row, "uri": "", "detailed_caption": "", "preview": jpeg} for row in rows]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    for encoder, checkpoint in ((first, profile.encoder.model), (second, str(folder / "other"))):
        record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=checkpoint, dim=encoder.dim)
        store.register_encoder(record)
        noise = rng.standard_normal((len(captions), encoder.dim)) / np.sqrt(encoder.dim)
        vectors = encoder.encode_texts(captions) + VECTOR_NOISE * noise
        _add_vectors(store, encoder, rows, vectors.astype(np.float32))
    for alias in ("baseline", "live"):
        store.set_alias(alias, first.fingerprint)
    return BenchStore(store, (first, second), captions)


def _row(index: int, caption: str) -> dict:
    shared = {"width_px": 640, "height_px": 480, "tags": [], "source": "bench", "added_at": now()}
    return {"image_id": image_id(f"{index}".encode()), "caption": caption, **shared}


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
    """A running server and its address."""

    address: str
    process: subprocess.Popen

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas, which hold encoder and index."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        title = replica_title("kallos", "Search")
        return [process for process, words in command_lines(below).items() if title in "".join(words)]


@contextlib.contextmanager
def kallos(profile: Profile, folder: Path, **changes: object) -> Iterator[Server]:
    """Run `kallos serve`, with some fields of the profile's `serve` changed, until the block ends."""
    values = profile.model_dump(mode="json")
    values["serve"] |= {"teacher": False, **changes}
    path = folder / f"profile_{abs(hash(tuple(sorted(changes))))}_{changes.get('max_batch_size')}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    log = path.with_suffix(".log")
    command = [sys.executable, "-m", "serve_app", "--profile", str(path), "--port", "0"]
    with _process(command, log) as process:
        yield Server(_address(process, log), process)


@contextlib.contextmanager
def flask_loop(bench_store: BenchStore, folder: Path) -> Iterator[Server]:
    """Run the plain loop of `flask_loop.py` until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = [sys.executable, "-m", "lab.bench.serve.flask_loop"]
    command = [*module, bench_store.store.uri, bench_store.encoders[0].fingerprint, str(port)]
    address = f"http://127.0.0.1:{port}"
    with _process(command, folder / "flask.log") as process:
        for _ in range(10 * START_S):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/healthz").status_code == 200:
                    break
            if process.poll() is not None:
                raise UserError(f"The Flask server ended: {(folder / 'flask.log').read_text()[-1000:]}")
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
    raise UserError(f"The server did not start: {log.read_text()[-1000:]}")
