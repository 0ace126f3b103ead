"""Dynamic batching without added latency: the next batch fills while the current one runs.

`ray.serve.batch` closes a batch before it waits for the running one. So either every lone request waits for
the timeout, or nothing is ever batched. Here a lone request starts at once, and a busy encoder gets full
batches.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any


class Batcher:
    """Calls `call(items) -> results` in a thread, batch by batch; `await batcher(item)` gives its result."""

    def __init__(
        self,
        call: Callable[[list], Iterable],
        *,
        max_batch_size: int,
        wait_s: float = 0.0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """
        Args:
            call: the items of a batch -> one result per item, in the same order.
            max_batch_size: maximum number of items in a batch.
            wait_s: seconds that an incomplete batch waits for more items, 0 = not at all.
            on_batch: called with the size of each batch.
        """
        self._call = call
        self._on_batch = on_batch
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._waiting: deque[tuple[Any, asyncio.Future]] = deque()
        self._task: asyncio.Task | None = None

    async def __call__(self, item: Any) -> Any:
        """The result for `item`.

        If `call` raises, every item of the batch gets the exception. An exception that `call` returns as a
        result is raised for its own item alone.
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
            batch = [self._waiting.popleft() for _ in range(size)]
            # A client that disconnected has cancelled its future: its item needs no work.
            await self._run([pair for pair in batch if not pair[1].done()])

    async def _run(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        if not batch:
            return
        items, futures = zip(*batch, strict=True)
        self._on_batch(len(items))
        try:
            results = await asyncio.to_thread(self._call, list(items))
        except Exception as error:
            results = [error] * len(items)
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
