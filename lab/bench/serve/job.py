"""Measures the search endpoint: its overhead, its batching, and its behaviour when it is disturbed.

    kallos bench serve --num-images 20000

search_p50_over_direct: median latency of `/v1/search`, one request at a time, over the median of one encoder
forward pass and one LanceDB search, called directly, in turns.
search_batched_over_unbatched: requests per second at `--concurrency`, with the profile's batch size over a
batch size of one.
search_qps_over_flask_lock: requests per second over those of the same encoder and index behind Flask with a
lock.
promotion: `live` is moved repeatedly under load. A response is mixed if its images are not those that
its encoder finds.
soak: replicas are killed under load. Feedback that was answered with 200 must be in the table.
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
from cluster import command, terminal
from cluster.errors import UserError
from cluster.profile import Profile
from lab.bench.report import comparison, report
from lab.bench.serve.config import BenchServeConfig
from lab.bench.serve.load import Response, client_session, post, post_all, requests_per_s
from lab.bench.serve.servers import BenchStore, Server, flask_loop, kallos, make_store
from lab.studio.captions import sample_query

COLUMNS = ("caption", "width_px", "height_px")
K = 12
NUM_WARM_UP = 60
PROMOTION_INTERVAL_S = 1.5
NUM_KILLS = 2
NUM_CLIENTS = 8
CLICK_DELAY_S = 0.6  # after the response; the server ignores clicks within 300 ms
QUIET_S = 5.0  # an outage ends after this long without a failure


def run(config: BenchServeConfig) -> dict:
    """Measure all sides in turns, then promotion and soak."""
    profile, _ = command.settings(config)
    rng = np.random.default_rng(config.seed)
    captions = [f"{sample_query(rng)} {index}" for index in range(config.num_images)]
    with tempfile.TemporaryDirectory(prefix="kallos-bench-") as scratch:
        folder = Path(scratch)
        bench_store = make_store(profile, folder, captions, config.seed)
        own = profile.model_copy(update={"store": bench_store.store.uri})
        terminal.say(f"bench serve: latency and throughput, {config.num_runs} turns")
        turns, figures = measure_turns(config, own, bench_store, folder, rng)
        if config.num_promoted or config.soak_s:
            with kallos(own, folder, refresh_s=0.2) as server:
                if config.num_promoted:
                    terminal.say(f"bench serve: {config.num_promoted} requests while encoders are promoted")
                    figures["promotion"] = promote_under_load(config, server, bench_store, rng)
                if config.soak_s:
                    terminal.say(f"bench serve: {config.soak_s:g} s of load while replicas are killed")
                    figures["soak"] = soak(config, server, bench_store, rng)
    ratios = {
        "search_p50_over_direct": comparison(turns["single_ms"], turns["direct_ms"]),
        "search_batched_over_unbatched": comparison(turns["batched"], turns["unbatched"]),
        "search_qps_over_flask_lock": comparison(turns["batched"], turns["flask"]),
    }
    rounded = {name: [round(value, 3) for value in values] for name, values in turns.items()}
    sizes = {"num_images": config.num_images, "concurrency": config.concurrency}
    return report("serve", ratios, {**rounded, **figures, **sizes})


def measure_turns(
    config: BenchServeConfig,
    profile: Profile,
    bench_store: BenchStore,
    folder: Path,
    rng: np.random.Generator,
) -> tuple[dict[str, list[float]], dict]:
    """Milliseconds of single requests, and requests per second under load; one value for each turn."""
    turns: dict[str, list[float]] = {
        name: [] for name in ("direct_ms", "single_ms", "batched", "unbatched", "flask")
    }
    with ExitStack() as stack:
        servers = {
            "batched": stack.enter_context(kallos(profile, folder)),
            "unbatched": stack.enter_context(kallos(profile, folder, max_batch_size=1)),
            "flask": stack.enter_context(flask_loop(bench_store, folder)),
        }
        for server in servers.values():
            _successful(post_all(server.address, search_requests(rng, NUM_WARM_UP), config.concurrency))
        for _ in range(config.num_runs):
            single = search_requests(rng, config.num_single)
            turns["direct_ms"].append(direct_ms(bench_store, [body["query"] for body in single]))
            responses = _successful(post_all(servers["batched"].address, single, 1))
            turns["single_ms"].append(1000 * median(response.seconds for response in responses))
            for name, server in servers.items():
                loaded = search_requests(rng, config.num_loaded)
                responses = _successful(post_all(server.address, loaded, config.concurrency))
                turns[name].append(requests_per_s(responses))
        responses = _successful(post_all(servers["batched"].address, single, 1))
    timings = [response.body["timings_ms"] for response in responses if response.body]
    means = {step: round(float(np.mean([of[step] for of in timings])), 3) for step in timings[0]}
    return turns, {"single_steps_ms": means}


def search_requests(rng: np.random.Generator, count: int) -> list[dict]:
    """Search requests, each with a query of its own."""
    return [{"query": f"{sample_query(rng)} {rng.integers(1 << 30)}", "k": K} for _ in range(count)]


def direct_ms(bench_store: BenchStore, queries: list[str]) -> float:
    """Median milliseconds of one forward pass of the text tower and one LanceDB search."""
    encoder = bench_store.encoders[0]
    retriever = Retriever(bench_store.store, encoder.fingerprint)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # like the server
    seconds = []
    for query in queries:
        started = time.perf_counter()
        vector = encoder.encode_texts([query])[0]
        found = retriever.table.search(vector).distance_type("cosine").limit(K)
        found.select(["image_id", *COLUMNS, "_distance"]).to_list()
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return 1000 * median(seconds)


def _successful(responses: list[Response]) -> list[Response]:
    """The responses. Raises UserError unless all are 200: figures of a broken server mean nothing."""
    statuses = Counter(response.status for response in responses)
    if set(statuses) != {200}:
        raise UserError(f"The server did not answer every request with 200: statuses {dict(statuses)}.")
    return responses


def promote_under_load(
    config: BenchServeConfig, server: Server, bench_store: BenchStore, rng: np.random.Generator
) -> dict:
    """Send requests while `live` is moved; counts failed and mixed responses."""
    searches = search_requests(rng, 20)
    expected = {
        encoder.fingerprint: [
            [row["image_id"] for row in rows]
            for rows in Retriever(bench_store.store, encoder.fingerprint).search(
                encoder.encode_texts([body["query"] for body in searches]), K
            )
        ]
        for encoder in bench_store.encoders
    }
    order = [int(index) for index in rng.integers(len(searches), size=config.num_promoted)]
    with _promotions(bench_store) as switches:
        responses = post_all(server.address, [searches[index] for index in order], config.concurrency)
    answered = [
        (response.body, index)
        for response, index in zip(responses, order, strict=True)
        if response.status == 200 and response.body
    ]
    encoders = Counter(body["encoder"] for body, _ in answered)
    mixed = sum(
        [row["image_id"] for row in body["results"]] != expected[body["encoder"]][index]
        for body, index in answered
    )
    return {
        "requests": len(responses),
        "switches": len(switches),
        "answers_by_encoder": sorted(encoders.values()),
        "failed": sum(response.status != 200 for response in responses),
        "mixed": mixed,
    }


@contextmanager
def _promotions(bench_store: BenchStore) -> Iterator[list[str]]:
    """Move `live` from encoder to encoder at intervals, until the block ends; yields the fingerprints."""
    done, switches = threading.Event(), []

    def switch() -> None:
        while not done.wait(PROMOTION_INTERVAL_S):
            encoder = bench_store.encoders[(len(switches) + 1) % 2]
            bench_store.store.set_alias("live", encoder.fingerprint)
            switches.append(encoder.fingerprint)

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        yield switches
    finally:
        done.set()
        thread.join()


def soak(config: BenchServeConfig, server: Server, bench_store: BenchStore, rng: np.random.Generator) -> dict:
    """Send searches and clicks for `soak_s` seconds while the replicas are killed twice."""
    kills: list[float] = []

    def kill_replicas() -> None:
        for _ in range(NUM_KILLS):
            time.sleep(config.soak_s / (NUM_KILLS + 1))
            for replica in server.replicas():
                replica.kill()
            kills.append(time.monotonic())

    killer = threading.Thread(target=kill_replicas)
    killer.start()
    searches, clicks = asyncio.run(_search_and_click(config, server, search_requests(rng, 200)))
    killer.join()
    stored = set(bench_store.store.read("feedback", ["event_id"])["event_id"].to_pylist())
    accepted = [click.body["event_id"] for click in clicks if click.status == 200 and click.body]
    failed_searches, failed_clicks = (
        [response for response in responses if response.status not in (200, 429)]
        for responses in (searches, clicks)
    )
    return {
        "seconds": config.soak_s,
        "kills": len(kills),
        "searches": len(searches),
        "feedback_answered": len(accepted),
        "feedback_lost": sum(event_id not in stored for event_id in accepted),
        "searches_failed_by_status": _by_status(failed_searches),
        "feedback_failed_by_status": _by_status(failed_clicks),
        "longest_outage_s": round(_longest_outage_s([*failed_searches, *failed_clicks]), 1),
    }


def _by_status(responses: list[Response]) -> dict[str, int]:
    return dict(Counter(str(response.status or "no answer") for response in responses))


def _longest_outage_s(failed: list[Response]) -> float:
    """Seconds from the first to the last failure of the longest outage."""
    longest, outage_start, last = 0.0, 0.0, -1e9
    for moment in sorted(response.started_s + response.seconds for response in failed):
        if moment - last > QUIET_S:
            outage_start = moment
        longest, last = max(longest, moment - outage_start), moment
    return longest


async def _search_and_click(
    config: BenchServeConfig, server: Server, searches: list[dict]
) -> tuple[list[Response], list[Response]]:
    """Search from several clients and click on a result of each search; returns both lists of responses."""
    search_responses: list[Response] = []
    click_responses: list[Response] = []
    end = time.monotonic() + config.soak_s

    async def client(index: int) -> None:
        draw = random.Random(index)
        async with client_session(f"client {index}") as session:
            while time.monotonic() < end:
                found = await post(session, f"{server.address}/v1/search", draw.choice(searches))
                search_responses.append(found)
                await asyncio.sleep(CLICK_DELAY_S)
                if found.status != 200 or not found.body:
                    continue
                ids = [row["image_id"] for row in found.body["results"]]
                event = {"kind": "click", "search_id": found.body["search_id"], "results": ids}
                event["image_id"] = draw.choice(ids)
                click_responses.append(await post(session, f"{server.address}/v1/feedback", event))

    await asyncio.gather(*(client(index) for index in range(NUM_CLIENTS)))
    return search_responses, click_responses
