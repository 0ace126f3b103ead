"""`kallos bench serve`: what the endpoint adds to one search, what batching gains, what a promotion breaks.

    kallos bench serve --num-images 20000

search_p50_over_direct: median latency of `/v1/search`, one request at a time, over the median of one encoder
forward and one LanceDB search called directly, in turns.
search_batched_over_unbatched: requests per second at `--concurrency`, with batches of the profile's size over
batches of one.
search_qps_over_flask_lock: the same, over the same encoder and index behind Flask with a lock.
promotion: `live` changes hands again and again under load; an answer is mixed when its images are not what
the encoder that it names finds.
soak: replicas are killed under load; what feedback was answered with 200 has to be in the table.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch

from actors.retriever import Retriever
from cluster import command
from cluster.errors import UserError
from cluster.profile import Profile
from lab.bench.report import comparison
from lab.bench.serve import load
from lab.bench.serve.config import BenchServeConfig
from lab.bench.serve.servers import Server, World, flask_loop, kallos, make_world
from lab.machine import machine
from lab.studio.captions import sample_query

COLUMNS = ("caption", "width_px", "height_px")
K = 12
NUM_WARM_UP = 60


def run(config: BenchServeConfig) -> dict:
    """All sides in turns, then promotion and soak; returns the benchmark's line."""
    profile, _ = command.settings(config)
    rng = np.random.default_rng(config.seed)
    captions = [f"{sample_query(rng)} {number}" for number in range(config.num_images)]
    with tempfile.TemporaryDirectory(prefix="kallos-bench-") as scratch:
        folder = Path(scratch)
        world = make_world(profile, folder, captions, config.seed)
        own = profile.model_copy(update={"store": world.store.uri})
        turns, figures = measure_turns(config, own, world, folder, rng)
        if config.num_promoted or config.soak_s:
            with kallos(own, folder, refresh_s=0.2) as server:
                if config.num_promoted:
                    figures["promotion"] = promote_under_load(config, server, world, rng)
                if config.soak_s:
                    figures["soak"] = soak(config, server, world, rng)
    return {
        "bench": "serve",
        "ratios": {
            "search_p50_over_direct": comparison(turns["single_ms"], turns["direct_ms"]),
            "search_batched_over_unbatched": comparison(turns["batched"], turns["unbatched"]),
            "search_qps_over_flask_lock": comparison(turns["batched"], turns["flask"]),
        },
        "figures": {
            **{name: [round(value, 3) for value in values] for name, values in turns.items()},
            **figures,
            "num_images": config.num_images,
            "concurrency": config.concurrency,
        },
        "machine": machine(),
    }


def measure_turns(
    config: BenchServeConfig, profile: Profile, world: World, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, list[float]], dict]:
    """Milliseconds of the single sides and requests per second of the loaded ones, turn by turn."""
    turns: dict[str, list[float]] = {
        name: [] for name in ("direct_ms", "single_ms", "batched", "unbatched", "flask")
    }
    with ExitStack() as stack:
        servers = {
            "batched": stack.enter_context(kallos(profile, folder)),
            "unbatched": stack.enter_context(kallos(profile, folder, max_batch_size=1)),
            "flask": stack.enter_context(flask_loop(world, folder)),
        }
        for server in servers.values():
            _answered(load.ask(server.address, bodies(rng, NUM_WARM_UP), config.concurrency))
        for _ in range(config.num_runs):
            single = bodies(rng, config.num_single)
            turns["direct_ms"].append(direct_ms(world, [body["query"] for body in single]))
            answers = _answered(load.ask(servers["batched"].address, single, 1))
            turns["single_ms"].append(1000 * median(answer.seconds for answer in answers))
            for name, server in servers.items():
                loaded = bodies(rng, config.num_loaded)
                answers = _answered(load.ask(server.address, loaded, config.concurrency))
                turns[name].append(load.rate(answers))
        steps = [answer.body["timings_ms"] for answer in load.ask(servers["batched"].address, single, 1)]
    means = {step: round(float(np.mean([told[step] for told in steps])), 3) for step in steps[0]}
    return turns, {"single_steps_ms": means}


def bodies(rng: np.random.Generator, count: int, **others: object) -> list[dict]:
    """Search requests, each of its own query."""
    return [{"query": f"{sample_query(rng)} {rng.integers(1 << 30)}", "k": K, **others} for _ in range(count)]


def direct_ms(world: World, queries: list[str]) -> float:
    """Median milliseconds of one forward of the text encoder and one LanceDB search."""
    encoder = world.encoders[0]
    retriever = Retriever(world.store, encoder.fingerprint, encoder)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the server's
    seconds = []
    for query in queries:
        begun = time.perf_counter()
        vector = encoder.encode_texts([query])[0]
        found = retriever.table.search(vector).distance_type("cosine").limit(K)
        found.select(["image_id", *COLUMNS, "_distance"]).to_list()
        seconds.append(time.perf_counter() - begun)
    torch.set_num_threads(before)
    return 1000 * median(seconds)


def _answered(answers: list[load.Answer]) -> list[load.Answer]:
    """The answers. Raises UserError when one is not 200: figures of a broken server mean nothing."""
    statuses = Counter(answer.status for answer in answers)
    if set(statuses) != {200}:
        raise UserError(f"the server did not answer every request: statuses {dict(statuses)}")
    return answers


def promote_under_load(
    config: BenchServeConfig, server: Server, world: World, rng: np.random.Generator
) -> dict:
    """Requests while `live` changes hands; counts of failed and mixed answers."""
    asked = bodies(rng, 20)
    expected = {
        encoder.fingerprint: [
            [row["image_id"] for row in rows]
            for rows in Retriever(world.store, encoder.fingerprint).search(
                encoder.encode_texts([body["query"] for body in asked]), K
            )
        ]
        for encoder in world.encoders
    }
    order = [int(place) for place in rng.integers(len(asked), size=config.num_promoted)]
    with _promotions(world) as switches:
        answers = load.ask(server.address, [asked[place] for place in order], config.concurrency)
    encoders = Counter(answer.body["encoder"] for answer in answers if answer.status == 200)
    mixed = sum(
        [row["image_id"] for row in answer.body["results"]] != expected[answer.body["encoder"]][place]
        for answer, place in zip(answers, order, strict=True)
        if answer.status == 200
    )
    return {
        "requests": len(answers),
        "switches": len(switches),
        "answers_by_encoder": sorted(encoders.values()),
        "failed": sum(answer.status != 200 for answer in answers),
        "mixed": mixed,
    }


@contextmanager
def _promotions(world: World) -> Iterator[list[str]]:
    """`live` changes hands every second and a half while the block runs."""
    done, switches = threading.Event(), []

    def switch() -> None:
        while not done.wait(1.5):
            encoder = world.encoders[(len(switches) + 1) % 2]
            world.store.set_alias("live", encoder.fingerprint)
            switches.append(encoder.fingerprint)

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        yield switches
    finally:
        done.set()
        thread.join()


def soak(config: BenchServeConfig, server: Server, world: World, rng: np.random.Generator) -> dict:
    """Searches and feedback for a while, with the replica killed twice."""
    asked = bodies(rng, 200)
    kills: list[float] = []

    def kill() -> None:
        for _ in range(2):
            time.sleep(config.soak_s / 3)
            for replica in server.replicas():
                replica.kill()
            kills.append(time.monotonic())

    killer = threading.Thread(target=kill)
    killer.start()
    searched, told = asyncio.run(_search_and_tell(config, server, asked))
    killer.join()
    kept = set(world.store.read("feedback", ["event_id"])["event_id"].to_pylist())
    searches_failed, feedback_failed = (
        [answer for answer in answers if answer.status not in (200, 429)] for answers in (searched, told)
    )
    return {
        "seconds": config.soak_s,
        "kills": len(kills),
        "searches": len(searched),
        "feedback_answered": sum(answer.status == 200 for answer in told),
        "feedback_lost": sum(answer.body["event_id"] not in kept for answer in told if answer.status == 200),
        "searches_failed_by_status": _by_status(searches_failed),
        "feedback_failed_by_status": _by_status(feedback_failed),
        "longest_outage_s": round(_outage([*searches_failed, *feedback_failed]), 1),
    }


def _by_status(answers: list[load.Answer]) -> dict[str, int]:
    return dict(Counter(str(answer.status or "no answer") for answer in answers))


def _outage(failed: list[load.Answer]) -> float:
    """Seconds from a first failed answer to a last, the longest such stretch without 5 s of peace."""
    longest, begun, last = 0.0, 0.0, -1e9
    for moment in sorted(answer.begun_s + answer.seconds for answer in failed):
        if moment - last > 5:
            begun = moment
        longest, last = max(longest, moment - begun), moment
    return longest


async def _search_and_tell(
    config: BenchServeConfig, server: Server, asked: list[dict]
) -> tuple[list[load.Answer], list[load.Answer]]:
    """Searches from several clients; each answer is followed, a moment later, by a click on it."""
    searched: list[load.Answer] = []
    told: list[load.Answer] = []
    end = time.monotonic() + config.soak_s

    async def client(number: int) -> None:
        draw = random.Random(number)
        async with load.client_session(f"client {number}") as session:
            while time.monotonic() < end:
                answer = await load.post(session, f"{server.address}/v1/search", draw.choice(asked))
                searched.append(answer)
                await asyncio.sleep(0.6)
                if answer.status != 200:
                    continue
                ids = [row["image_id"] for row in answer.body["results"]]
                event = {"kind": "click", "search_id": answer.body["search_id"], "results": ids}
                event["image_id"] = draw.choice(ids)
                told.append(await load.post(session, f"{server.address}/v1/feedback", event))

    await asyncio.gather(*(client(number) for number in range(8)))
    return searched, told
