import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.errors import LinkError
from splitveil.serving.batching import Batcher

Rows = NDArray[Any]


class Gate:
    """A model that waits until it is let go; doubles its rows."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, rows: Rows) -> Rows:
        self.entered.set()
        assert self.go.wait(20)
        return 2 * rows


def rows(value: float, count: int = 1) -> Rows:
    return np.full((count, 3), value, np.float32)


def with_batcher(
    model: Callable[[Rows], Rows], max_rows: int, test: Callable[[Batcher], Coroutine[Any, Any, None]]
) -> Batcher:
    batcher = Batcher(model, max_rows)
    try:
        asyncio.run(test(batcher))
    finally:
        batcher.close()
    return batcher


def test_what_queued_while_busy_is_the_next_batch_and_everyone_gets_its_own() -> None:
    gate = Gate()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher(rows(0)))
        await asyncio.to_thread(gate.entered.wait, 20)
        others = [asyncio.create_task(batcher(rows(i, count=i))) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        gate.go.set()
        for i, answer in enumerate(await asyncio.gather(first, *others)):
            np.testing.assert_array_equal(answer, 2 * rows(i, count=max(1, i)))

    assert list(with_batcher(gate, 8, test).batches) == [1, 6]


def test_batches_stay_within_the_limit() -> None:
    gate = Gate()

    async def test(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher(rows(i, count=2))) for i in range(5)]
        await asyncio.to_thread(gate.entered.wait, 20)
        gate.go.set()
        for i, answer in enumerate(await asyncio.gather(*waiting)):
            np.testing.assert_array_equal(answer, 2 * rows(i, count=2))

    assert list(with_batcher(gate, 4, test).batches) == [4, 4, 2]


def test_those_who_gave_up_are_left_out() -> None:
    gate = Gate()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher(rows(0)))
        await asyncio.to_thread(gate.entered.wait, 20)
        gone, stays = asyncio.create_task(batcher(rows(1, count=3))), asyncio.create_task(batcher(rows(2)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gate.go.set()
        await first
        np.testing.assert_array_equal(await stays, 2 * rows(2))

    assert list(with_batcher(gate, 8, test).batches) == [1, 1]


def test_a_failing_model_fails_its_batch_only_and_keeps_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    def model(given: Rows) -> Rows:
        if given.max() > 1:
            raise RuntimeError("secret path")
        return given

    async def test(batcher: Batcher) -> None:
        with pytest.raises(LinkError) as caught:
            await batcher(rows(2))
        assert "secret" not in str(caught.value)
        np.testing.assert_array_equal(await batcher(rows(1)), rows(1))

    with caplog.at_level(logging.ERROR):
        with_batcher(model, 8, test)
    assert "secret path" in caplog.text
