"""Load on a search endpoint: so many requests, so many at a time, over connections that stay open."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    status: 0 where the connection broke. begun_s, seconds: when it began and how long it took, by
    `time.monotonic`. body: the JSON answer, None where there was none.
    """

    status: int
    begun_s: float
    seconds: float
    body: dict[str, Any] | None


def ask(address: str, bodies: Sequence[dict], concurrency: int, path: str = "/v1/search") -> list[Answer]:
    """Post every body, `concurrency` at a time; the answers in the order of the bodies."""
    return asyncio.run(_ask(address + path, list(bodies), concurrency))


async def _ask(url: str, bodies: list[dict], concurrency: int) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(bodies)
    places = iter(range(len(bodies)))

    async with client_session("load", concurrency) as session:

        async def worker() -> None:
            for place in places:
                answers[place] = await post(session, url, bodies[place])

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return [answer for answer in answers if answer is not None]


def client_session(name: str, concurrency: int = 1) -> aiohttp.ClientSession:
    """Connections of one client, which calls itself `name`."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"X-Kallos-Client": name},
    )


async def post(session: aiohttp.ClientSession, url: str, body: dict) -> Answer:
    """One request."""
    begun = time.monotonic()
    try:
        async with session.post(url, json=body) as response:
            told = await response.read()
            seconds = time.monotonic() - begun
            is_json = response.content_type == "application/json"
            return Answer(response.status, begun, seconds, json.loads(told) if is_json else None)
    except (aiohttp.ClientError, TimeoutError):
        return Answer(0, begun, time.monotonic() - begun, None)


def rate(answers: Sequence[Answer]) -> float:
    """Requests per second, from the first begun to the last answered."""
    ends = [answer.begun_s + answer.seconds for answer in answers]
    return len(answers) / (max(ends) - min(answer.begun_s for answer in answers))
