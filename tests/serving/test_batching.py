import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.server.batching import Batcher
from splitveil.server.refusal import Reason, RefusedError

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
        with pytest.raises(RefusedError) as caught:
            await batcher(rows(2))
        assert "secret" not in str(caught.value)
        np.testing.assert_array_equal(await batcher(rows(1)), rows(1))

    with caplog.at_level(logging.ERROR):
        with_batcher(model, 8, test)
    assert "secret path" in caplog.text


def test_a_full_queue_refuses_and_recovers() -> None:
    gate = Gate()

    async def test(batcher: Batcher) -> None:
        busy = asyncio.create_task(batcher(rows(0)))
        await asyncio.to_thread(gate.entered.wait, 20)
        waiting = [asyncio.create_task(batcher(rows(i, count=2))) for i in (1, 2)]
        await asyncio.sleep(0)
        assert batcher.waiting == 4
        with pytest.raises(RefusedError) as caught:
            await batcher(rows(3))
        assert caught.value.reason is Reason.QUEUE
        gate.go.set()
        for i, answer in enumerate(await asyncio.gather(busy, *waiting)):
            assert (answer == 2 * i).all()
        assert batcher.waiting == 0
        assert (await batcher(rows(4, count=4)) == 8).all()

    batcher = Batcher(gate, 8, 4)
    asyncio.run(test(batcher))
    batcher.close()


def test_an_expired_request_leaves_the_queue_and_the_model_never_sees_it() -> None:
    gate = Gate()

    async def test(batcher: Batcher) -> None:
        now = asyncio.get_running_loop().time
        busy = asyncio.create_task(batcher(rows(0)))
        await asyncio.to_thread(gate.entered.wait, 20)
        stays = asyncio.create_task(batcher(rows(2), now() + 60))
        with pytest.raises(RefusedError) as caught:
            await batcher(rows(1, count=3), now() + 0.02)
        assert caught.value.reason is Reason.DEADLINE
        assert batcher.waiting == 1
        gate.go.set()
        await busy
        assert (await stays == 4).all()

    assert list(with_batcher(gate, 8, test).batches) == [1, 1]


def test_a_model_that_loses_rows_fails_its_batch() -> None:
    async def test(batcher: Batcher) -> None:
        with pytest.raises(RefusedError, match="failed"):
            await batcher(rows(0, count=2))

    with_batcher(lambda given: given[:1], 8, test)
