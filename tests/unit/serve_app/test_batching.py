"""The batcher: concurrent requests share a batch, a lone one starts at once, each gets its own result."""

import asyncio
import threading
import time

import pytest

from serve_app.batching import Batcher


class Doubler:
    """Doubles numbers and records batch sizes. It blocks on `gate`, so that a test can let requests queue."""

    def __init__(self):
        self.sizes, self.gate = [], threading.Event()

    def __call__(self, items):
        self.sizes.append(len(items))
        self.gate.wait(5)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


def test_requests_that_queue_behind_a_running_batch_form_the_next_batch():
    call = Doubler()

    async def run():
        batcher = Batcher(call, max_batch_size=4)
        tasks = [asyncio.create_task(batcher(0))]
        await asyncio.sleep(0.05)  # the first request runs alone
        tasks += [asyncio.create_task(batcher(number)) for number in range(1, 8)]
        await asyncio.sleep(0.05)
        call.gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [2 * number for number in range(8)]
    assert call.sizes == [1, 4, 3]


def test_lone_request_does_not_wait():
    call = Doubler()
    call.gate.set()

    async def run():
        batcher = Batcher(call, max_batch_size=64)
        await batcher(1)
        started = time.perf_counter()
        for _ in range(20):
            await batcher(1)
        return (time.perf_counter() - started) / 20

    assert asyncio.run(run()) < 0.02


def test_incomplete_batch_waits_wait_s_for_more_requests():
    call = Doubler()
    call.gate.set()

    async def delayed(batcher, number):
        await asyncio.sleep(0.02)
        return await batcher(number)

    async def run():
        batcher = Batcher(call, max_batch_size=8, wait_s=0.2)
        return await asyncio.gather(batcher(1), delayed(batcher, 2))

    assert asyncio.run(run()) == [2, 4]
    assert call.sizes == [2]


def test_exception_reaches_every_request_of_its_batch_and_the_next_batch_runs():
    call = Doubler()
    call.gate.set()

    async def run():
        batcher = Batcher(call, max_batch_size=8)
        with pytest.raises(ValueError, match="negative"):
            await batcher(-1)
        return await batcher(3)

    assert asyncio.run(run()) == 6


def test_cancelled_request_is_not_computed():
    call = Doubler()

    async def run():
        batcher = Batcher(call, max_batch_size=8)
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.05)
        cancelled, other = asyncio.create_task(batcher(2)), asyncio.create_task(batcher(3))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.sleep(0)
        call.gate.set()
        return await first, await other

    assert asyncio.run(run()) == (2, 6)
    assert call.sizes == [1, 1]
