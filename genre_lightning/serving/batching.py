"""Films of many requests computed together, by one thread that has the model to itself."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from genre_lightning.serving.counters import Counters

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """As many films wait as may."""


@dataclass
class _Waiting(Generic[T]):
    item: T
    tokens: int
    caller: int
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[T, R]):
    """Gathers items of many callers into batches.

    While a batch is computed, the next one gathers. A lone caller is never kept waiting: only after a batch of several
    callers does the next wait for as many items, for `max_wait` seconds at most.

    Args:
        compute: From items to results, in the model's thread; an Exception in place of a result is raised for its
            caller alone.
        max_batch: Items of a batch.
        max_tokens: Of a batch together; an item that has more goes alone.
        max_wait: Seconds.
        max_queue: Items that may wait.
        counters: Of the worker.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        max_batch: int,
        max_tokens: int,
        max_wait: float,
        max_queue: int,
        counters: Counters,
    ) -> None:
        self.compute = compute
        self.max_batch, self.max_tokens, self.max_wait, self.max_queue = max_batch, max_tokens, max_wait, max_queue
        self.counters = counters
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: deque[_Waiting[T]] = deque()
        self._arrived = asyncio.Event()
        self._callers = 0
        self._last = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, items: Sequence[tuple[T, int]]) -> list[R]:
        """Wait for the results of items, each with its number of tokens.

        Raises:
            QueueFullError: Too many wait already; none of these is computed.
        """
        if len(self._waiting) + len(items) > self.max_queue:
            raise QueueFullError
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        self._callers += 1
        waiting = [_Waiting(item, tokens, self._callers) for item, tokens in items]
        self._waiting.extend(waiting)
        self.counters.put("queued_films", len(self._waiting))
        self._arrived.set()
        try:
            return list(await asyncio.gather(*(one.answer for one in waiting)))
        finally:
            for one in waiting:  # of a client that is gone, or whose other film failed
                one.answer.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the model's thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function)

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather()
            batch = self._take()
            if not batch:
                continue
            started = time.perf_counter()
            try:
                results = await self.call(partial(self.compute, [one.item for one in batch]))
            except Exception as error:
                results = [error] * len(batch)
            self._last = len(batch) if len({one.caller for one in batch}) > 1 else 0
            self.counters.add("batches")
            self.counters.add("compute_seconds", time.perf_counter() - started)
            for one, result in zip(batch, results, strict=True):
                if one.answer.done():
                    continue
                if isinstance(result, Exception):
                    one.answer.set_exception(result)
                else:
                    self.counters.add("films")
                    one.answer.set_result(result)

    async def _gather(self) -> None:
        """Wait for as many items as the last batch had: its clients are about to send their next."""
        end = time.perf_counter() + self.max_wait
        wanted = min(self._last, self.max_batch)
        while len(self._waiting) < wanted and (left := end - time.perf_counter()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[T]]:
        batch: list[_Waiting[T]] = []
        tokens, most = 0, self.max_tokens
        while self._waiting and len(batch) < self.max_batch:
            if self._waiting[0].answer.done():
                self._waiting.popleft()
                continue
            tokens += self._waiting[0].tokens
            if batch and tokens > most:
                break
            batch.append(self._waiting.popleft())
        self.counters.put("queued_films", len(self._waiting))
        return batch
