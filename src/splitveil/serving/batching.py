"""Greedy batching: whatever queued while the worker was busy is the next batch. Nobody waits for company."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.errors import LinkError

Rows = NDArray[Any]
log = logging.getLogger(__name__)


class Batcher:
    """Joins requests for one worker thread. Everything queued must be valid: a batch fails or succeeds as a whole.

    Args:
        run: rows (n, ...) -> rows (n, ...), called from one thread.
        max_rows: of one batch.
    """

    def __init__(self, run: Callable[[Rows], Rows], max_rows: int) -> None:
        self._run, self._max_rows = run, max_rows
        self._waiting: deque[tuple[Rows, asyncio.Future[Rows]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None
        self.batches: deque[int] = deque(maxlen=1024)
        """Rows of the latest batches."""

    async def __call__(self, rows: Rows) -> Rows:
        """Answers to these rows.

        Raises:
            LinkError: the model failed; the reason is logged, not sent.
        """
        answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            rows = np.concatenate([r for r, _ in batch]) if len(batch) > 1 else batch[0][0]
            self.batches.append(len(rows))
            try:
                out = await loop.run_in_executor(self._thread, self._run, rows)
            except Exception:
                log.exception("the model failed on a batch of %d rows", len(rows))
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(LinkError("the cloud half failed; ask the operator to read its log."))
                continue
            start = 0
            for own, answer in batch:
                if not answer.done():
                    answer.set_result(out[start : start + len(own)])
                start += len(own)

    def _take(self) -> list[tuple[Rows, "asyncio.Future[Rows]"]]:
        """The next batch in order of arrival, without those that gave up."""
        batch: list[tuple[Rows, asyncio.Future[Rows]]] = []
        room = self._max_rows
        while self._waiting and len(self._waiting[0][0]) <= room:
            rows, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((rows, answer))
                room -= len(rows)
        return batch
