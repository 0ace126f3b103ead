"""Dynamic batching without added latency: the next batch gathers while the one before it runs.

`ray.serve.batch` closes a batch before it waits for the running one: it makes every lone request wait for its
timeout, or never batches at all. Here a lone request starts at once, and a busy encoder gets full batches.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


class Batcher:
    """Calls `call(items) -> results` in a thread, a batch at a time; `await batcher(item)` is its result."""

    def __init__(
        self,
        call: Callable[[list], Sequence],
        *,
        max_batch_size: int,
        wait_s: float = 0.0,
        told: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`wait_s`: seconds that a batch which is not full waits for company, 0 = it starts at once. `told`:
        is told the size of each batch.
        """
        self._call = call
        self._told = told
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._waiting: deque[tuple[Any, asyncio.Future]] = deque()
        self._task: asyncio.Task | None = None

    async def __call__(self, item: Any) -> Any:
        """The result for `item`: an exception that `call` raises reaches everyone in the batch, one that it
        gives as a result its own item alone.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            if self._wait_s and len(self._waiting) < self._max_batch_size:
                await asyncio.sleep(self._wait_s)
            size = min(len(self._waiting), self._max_batch_size)
            taken = [self._waiting.popleft() for _ in range(size)]
            # A client that hung up has cancelled its future: no work for it.
            await self._run([pair for pair in taken if not pair[1].done()])

    async def _run(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        if not batch:
            return
        items, futures = zip(*batch, strict=True)
        self._told(len(items))
        try:
            results = await asyncio.to_thread(self._call, list(items))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
