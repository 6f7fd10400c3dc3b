"""Work that may never end, waited for only so long."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
WAITED_FOR = "waited-for"
"""Name of the threads."""


async def in_time(work: Callable[[], T], seconds: float) -> T:
    """What `work` returns or raises, from a thread that nobody has to wait for: not here, nor at the process's end.

    Raises:
        TimeoutError: it has not ended within `seconds`; it may still run.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # what `work` returned, None included

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is gone, and so is whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=WAITED_FOR, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await done
