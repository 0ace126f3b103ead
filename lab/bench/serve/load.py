"""Load on a search endpoint: a fixed number of simultaneous requests over connections that stay open."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT_S = 60


@dataclass(frozen=True)
class Response:
    """The outcome of one request.

    status: HTTP status, 0 for a broken connection. started_s, seconds: when it started and how long it took,
    by `time.monotonic`. body: the JSON object, None without one.
    """

    status: int
    started_s: float
    seconds: float
    body: dict[str, Any] | None


def post_all(
    address: str, bodies: Sequence[dict], concurrency: int, path: str = "/v1/search"
) -> list[Response]:
    """Post every body, `concurrency` at a time; returns the responses in the order of the bodies."""
    return asyncio.run(_post_all(address + path, bodies, concurrency))


async def _post_all(url: str, bodies: Sequence[dict], concurrency: int) -> list[Response]:
    responses: list[Response | None] = [None] * len(bodies)
    indices = iter(range(len(bodies)))

    async with client_session("load", concurrency) as session:

        async def worker() -> None:
            for index in indices:
                responses[index] = await post(session, url, bodies[index])

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return [response for response in responses if response is not None]


def client_session(name: str, concurrency: int = 1) -> aiohttp.ClientSession:
    """Connections of one client, which identifies itself as `name`."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"X-Kallos-Client": name},
    )


async def post(session: aiohttp.ClientSession, url: str, body: dict) -> Response:
    """Send one request."""
    started = time.monotonic()
    try:
        async with session.post(url, json=body) as response:
            content = await response.read()
            seconds = time.monotonic() - started
            is_json = response.content_type == "application/json"
            return Response(response.status, started, seconds, json.loads(content) if is_json else None)
    except (aiohttp.ClientError, TimeoutError):
        return Response(0, started, time.monotonic() - started, None)


def requests_per_s(responses: Sequence[Response]) -> float:
    """Requests per second, from the start of the first to the end of the last."""
    ends = [response.started_s + response.seconds for response in responses]
    return len(responses) / (max(ends) - min(response.started_s for response in responses))
