"""Greedy batching: whatever queued while the worker was busy is the next batch. Nobody waits for company."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.server.refusal import Reason, RefusedError

Rows = NDArray[Any]
Waiting = tuple[Rows, "asyncio.Future[Rows]"]
log = logging.getLogger(__name__)


class Batcher:
    """Joins requests for one worker thread. Everything queued must be valid: a batch fails or succeeds as a whole.

    One batcher serves one model, and a model takes one shape and datatype; rows of another model never share its queue.

    Args:
        run: rows (n, ...) -> rows (n, ...), called from one thread.
        max_rows: of one batch.
        max_waiting: rows in the queue, without those that the model is busy with.
        seen: told the rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Rows], Rows],
        max_rows: int,
        max_waiting: int = 1024,
        seen: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._run, self._max_rows, self._max_waiting, self._seen = run, max_rows, max_waiting, seen
        self._queue: dict[int, Waiting] = {}
        self._next = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None
        self.waiting = 0
        """Rows in the queue."""
        self.batches: deque[int] = deque(maxlen=1024)
        """Rows of the latest batches."""

    async def __call__(self, rows: Rows, expires: float | None = None) -> Rows:
        """Answers to these rows.

        Args:
            rows: (n, ...), as valid as any other in the queue.
            expires: time of the event loop's clock from which nobody waits for the answer any more.

        Raises:
            RefusedError: the queue is full, the time is over, or the model failed; that reason is logged, not sent.
        """
        if self.waiting and self.waiting + len(rows) > self._max_waiting:
            raise RefusedError(Reason.QUEUE, "too many requests wait for the model; try again in a second.")
        answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._next += 1
        ticket = self._next
        self._queue[ticket] = (rows, answer)
        self.waiting += len(rows)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout_at(expires):
                return await answer
        except TimeoutError:
            raise RefusedError(Reason.DEADLINE, "no answer within the request's deadline; allow more time.") from None
        finally:
            # Who gave up must not keep its rows, and the room they take, until the model gets there.
            if self._queue.pop(ticket, None) is not None:
                self.waiting -= len(rows)

    async def idle(self) -> None:
        """Return once nothing waits and nothing runs."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    def close(self, *, wait: bool = True) -> None:
        """Let the thread end; without `wait`, whenever it does."""
        self._thread.shutdown(wait=wait, cancel_futures=not wait)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            count = sum(len(rows) for rows, _ in batch)
            self.batches.append(count)
            self._seen(count)
            try:
                out = await loop.run_in_executor(self._thread, self._joined, batch)
            except Exception:
                log.exception("the model failed on a batch of %d rows", count)
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(
                            RefusedError(Reason.FAILED, "the cloud half failed; ask the operator to read its log.")
                        )
                continue
            start = 0
            for own, answer in batch:
                if not answer.done():
                    answer.set_result(out[start : start + len(own)])
                start += len(own)

    def _joined(self, batch: list[Waiting]) -> Rows:
        rows = np.concatenate([rows for rows, _ in batch]) if len(batch) > 1 else batch[0][0]
        out = self._run(rows)
        if len(out) != len(rows):
            raise ValueError(f"{len(out)} answers to {len(rows)} rows")
        return out

    def _take(self) -> list[Waiting]:
        """The next batch in order of arrival."""
        batch: list[Waiting] = []
        room = self._max_rows
        while self._queue:
            ticket = next(iter(self._queue))
            rows, answer = self._queue[ticket]
            if len(rows) > room:
                break
            del self._queue[ticket]
            self.waiting -= len(rows)
            if not answer.done():
                batch.append((rows, answer))
                room -= len(rows)
        return batch
