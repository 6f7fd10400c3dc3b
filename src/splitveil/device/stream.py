"""Many questions on their way at once, answers in the order of the questions."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

F = TypeVar("F")
A = TypeVar("A")


def in_order(frames: Iterable[F], prepare: Callable[[F], Callable[[], A]], in_flight: int) -> Iterator[A]:
    """Answers in the order of `frames`, of which `in_flight` are asked about at a time.

    Args:
        frames: drawn one by one, none before it can be sent.
        prepare: what this thread does with a frame; what it returns runs in another.
        in_flight: threads.

    Raises:
        whatever `prepare` or the question raise, when its turn comes; frames behind it are dropped.
    """
    waiting: deque[Future[A]] = deque()
    with ThreadPoolExecutor(in_flight, thread_name_prefix="frames") as pool:
        try:
            for frame in frames:
                waiting.append(pool.submit(prepare(frame)))
                while waiting and (len(waiting) >= in_flight or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
