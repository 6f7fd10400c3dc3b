"""Lost connections, busy and swapped servers: what the device does, and that it never shows a second draw of noise."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.core.errors import BundleError, ContractError, DataError, InputError, LinkError
from splitveil.device import Edge
from splitveil.device.breaker import Breaker
from splitveil.device.retry import Retry

from .conftest import Made, running, spawned
from .scripted import Scripted, scripted
from .test_edge import local
from .wiretap import Wiretap

Array = NDArray[Any]
QUICK = Retry(first=0.01, longest=0.02)


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


def wait_until_asked(edge: Edge, x: Array) -> None:
    """Until a server refuses, since the channel has found it."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            assert edge.answer(x).local
        except ContractError:
            return
    raise AssertionError("the server was not found")


def test_a_retry_resends_the_same_bytes_above_the_limit_of_grpc(noisy: Made, images: Array) -> None:
    """512 KiB; gRPC alone gives up above 256 KiB. Both connections that carried it are read, byte by byte."""
    x = np.concatenate([images] * 4)
    service = Scripted(noisy.bundle, max_batch=256)
    with scripted(service) as port, Wiretap(port, cuts=1) as tap, Edge(noisy.bundle, tap.target, retries=QUICK) as edge:
        answer = edge.answer(x)
    (first, asked), (second, _) = tap.messages()
    assert first == second
    assert len(asked.raw_input_contents[0]) == answer.sent == 2**19
    assert answer.attempts == 2
    assert len(service.asked) == 1


def test_a_busy_server_is_asked_again_and_a_failing_one_is_not(noisy: Made, images: Array) -> None:
    service = Scripted(noisy.bundle, ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
    with scripted(service) as port, Edge(noisy.bundle, address(port), retries=QUICK) as edge:
        assert edge.answer(images[:2]).attempts == 3
        assert len({r.raw_input_contents[0] for r in service.asked}) == 1
        for status, error, said in (
            ("INTERNAL", LinkError, "failed .INTERNAL: as the test says.; ask its operator"),
            ("INVALID_ARGUMENT", ContractError, "refuses: as the test says"),
            ("UNAUTHENTICATED", LinkError, "refuses this device"),
        ):
            service.failures, service.asked = [status], []
            with pytest.raises(error, match=said):
                edge.ask(images[:1])
            assert len(service.asked) == 1
        service.failures, service.asked = ["UNAVAILABLE"] * 9, []
        with pytest.raises(LinkError, match="after 5 attempts"):
            edge.ask(images[:1])
        assert len(service.asked) == 5


def test_a_budget_bounds_the_load_on_a_server_in_trouble(noisy: Made, images: Array) -> None:
    service = Scripted(noisy.bundle)
    rules = Retry(first=0.01, longest=0.02, reserve=6, ratio=0.25)
    patient = Breaker(failures=1000)
    with scripted(service) as port, Edge(noisy.bundle, address(port), retries=rules, breaker=patient) as edge:
        service.failures = ["RESOURCE_EXHAUSTED"] * 1000
        for _ in range(20):
            with pytest.raises(LinkError):
                edge.ask(images[:1])
    assert 20 + 6 <= len(service.asked) <= 20 + 6 + 20 * 0.25


def test_a_restarted_server_is_found_again(noisy: Made, images: Array) -> None:
    with (
        spawned(noisy.bundle) as server,
        ThreadPoolExecutor(1) as pool,
        Edge(noisy.bundle, address(server.port)) as edge,
    ):
        assert edge.ask(images[:1]).shape == (1, 5)
        server.end()
        asked = pool.submit(edge.answer, images)
        with spawned(noisy.bundle, server.port):
            assert asked.result(30).logits.shape == (64, 5)
            assert edge.answer(images).attempts == 1


def test_another_bundle_behind_the_same_address_is_one_clear_error(plain: Made, noisy: Made, images: Array) -> None:
    with scripted(Scripted(plain.bundle)) as port:
        edge = Edge(plain.bundle, address(port), retries=QUICK)
        assert edge.ask(images[:1]).shape == (1, 5)
    with edge:
        swapped = Scripted(plain.bundle)
        swapped.contract = "another"
        with scripted(swapped, port=port):
            for said in ("refuses: expected contract", "has contract another, this device"):
                with pytest.raises(ContractError, match=said):
                    edge.ask(images[:1])
            assert len(swapped.asked) == 1, "once refused, nothing more is sent"
        with scripted(Scripted(noisy.bundle), port=port), pytest.raises(ContractError, match="describes"):
            edge.ask(images[:1])
        with scripted(Scripted(plain.bundle), port=port):
            assert edge.ask(images[:1]).shape == (1, 5)


def test_a_swap_without_a_broken_connection_is_refused_by_the_server(plain: Made, images: Array) -> None:
    service = Scripted(plain.bundle)
    with scripted(service) as port, Edge(plain.bundle, address(port)) as edge:
        edge.ask(images[:1])
        service.contract = "another"
        with pytest.raises(ContractError, match="refuses: expected contract"):
            edge.ask(images[:1])


def test_several_servers_share_the_work_and_stand_in_for_each_other(plain: Made, images: Array) -> None:
    one, two = Scripted(plain.bundle), Scripted(plain.bundle)
    with scripted(one) as first:
        with scripted(two) as second, Edge(plain.bundle, [address(first), address(second)], retries=QUICK) as edge:
            until = time.monotonic() + 20
            while not (one.asked and two.asked) and time.monotonic() < until:
                edge.ask(images[:1])
            before = len(one.asked), len(two.asked)
            for _ in range(10):
                edge.ask(images[:1])
            assert (len(one.asked) - before[0], len(two.asked) - before[1]) == (5, 5)
            two.gate.clear()
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(edge.ask, images[:1]) for _ in range(4)]
                two.failures = ["UNAVAILABLE"] * 3
                two.gate.set()
                for answer in asked:
                    np.testing.assert_allclose(answer.result(20), local(plain, images[:1]), rtol=1e-4, atol=1e-4)
        with Edge(plain.bundle, [address(first), address(second)], retries=QUICK) as edge:
            answers = [edge.answer(images[:1]) for _ in range(4)]
    assert not any(a.local for a in answers), "one of two is enough"


def test_patience_gives_a_hanging_attempt_up(plain: Made, images: Array) -> None:
    service = Scripted(plain.bundle)
    with scripted(service) as port, Edge(plain.bundle, address(port), retries=Retry(patience=0.3)) as edge:
        service.gate.clear()
        threading.Timer(0.5, service.gate.set).start()
        assert edge.answer(images[:1]).attempts >= 2
        assert len({r.raw_input_contents[0] for r in service.asked}) == 1


def test_the_breaker_opens_probes_and_closes(plain: Made, images: Array) -> None:
    now = [0.0]
    service = Scripted(plain.bundle)
    breaker = Breaker(failures=2, rest=5, clock=lambda: now[0])
    with scripted(service) as port, Edge(plain.bundle, address(port), retries=Retry(1), breaker=breaker) as edge:
        service.failures = ["INTERNAL"] * 3
        for state in ("closed", "open"):
            with pytest.raises(LinkError, match="INTERNAL"):
                edge.ask(images[:1])
            assert str(edge.state) == state
        with pytest.raises(LinkError, match=r"circuit .* is open after 2 failures in a row; ask again in 5.0 s"):
            edge.ask(images[:1])
        assert len(service.asked) == 2, "an open circuit asks nobody"
        now[0] = 5
        assert str(edge.state) == "half-open"
        with pytest.raises(LinkError, match="INTERNAL"):
            edge.ask(images[:1])
        assert str(edge.state) == "open"
        now[0] = 10
        assert edge.ask(images[:1]).shape == (1, 5)
        assert str(edge.state) == "closed"


def test_a_hanging_connection_is_replaced_when_the_breaker_opens(plain: Made, images: Array) -> None:
    """No error tells the device that a network dropped its connection: gRPC would go on to use it for minutes."""
    with (
        scripted(Scripted(plain.bundle)) as port,
        Wiretap(port) as tap,
        Edge(plain.bundle, tap.target, timeout=0.5, breaker=Breaker(failures=2, rest=0.01)) as edge,
    ):
        edge.ask(images[:1])
        tap.freeze()
        for _ in range(2):
            with pytest.raises(LinkError, match="DEADLINE_EXCEEDED"):
                edge.ask(images[:1])
        time.sleep(0.02)
        assert edge.ask(images[:1]).shape == (1, 5)


def test_the_fallback_answers_what_no_server_does_and_says_so(
    plain: Made, images: Array, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted(Scripted(plain.bundle)) as port:
        edge = Edge(plain.bundle, address(port), retries=QUICK, fallback="cloud.onnx")
        remote = edge.answer(images)
    with edge:
        here = edge.answer(images)
        assert (remote.local, here.local, here.sent, here.attempts) == (False, True, 0, 0)
        np.testing.assert_allclose(here.logits, remote.logits, rtol=1e-5, atol=1e-5)
        assert "answered on the device" in caplog.text
        swapped = Scripted(plain.bundle)
        swapped.contract = "another"
        with scripted(swapped, port=port):
            wait_until_asked(edge, images[:1])
            with pytest.raises(ContractError, match="has contract another"):
                edge.ask(images[:1])
    with Edge(plain.bundle, address(port), retries=QUICK, fallback=lambda x: x.mean((2, 3)) @ np.ones((3, 5))) as edge:
        answer = edge.answer(images[:3])
        np.testing.assert_allclose(answer.logits, np.repeat(images[:3].mean((2, 3)).sum(1)[:, None], 5, 1), rtol=1e-5)
        assert answer.local
        assert asyncio.run(edge.answer_async(images[:3])).local
    odd = Edge(plain.bundle, address(port), retries=Retry(1), fallback=lambda x: x)
    with odd, pytest.raises(BundleError, match="logits of the fallback"):
        odd.ask(images[:1])
    with pytest.raises(InputError, match="or a function, got 'other"):
        Edge(plain.bundle, address(port), fallback="other.onnx")


def test_frames_are_answered_in_order_while_several_are_on_their_way(plain: Made, images: Array) -> None:
    service = Scripted(plain.bundle)
    drawn: list[int] = []

    def frames() -> Iterator[Array]:
        for i in range(20):
            drawn.append(i)
            yield images[i]

    with scripted(service) as port, Edge(plain.bundle, address(port)) as edge:
        service.gate.clear()
        opener = threading.Timer(0.5, service.gate.set)
        opener.start()
        answers = edge.stream(frames(), in_flight=3)
        assert drawn == []
        logits = [next(answers).logits]
        assert len(drawn) == 3, "as many as there is room for"
        logits += [a.logits for a in answers]
        np.testing.assert_allclose(np.concatenate(logits), local(plain, images[:20]), rtol=1e-4, atol=1e-4)
        assert 1 < service.most <= 3
        bad = edge.stream([images[0], images[0], 300 * images[1], images[0]], in_flight=1)
        assert next(bad).logits.shape == (1, 5)
        assert next(bad).logits.shape == (1, 5)
        with pytest.raises(DataError, match="divide"):
            next(bad)
        with pytest.raises(InputError, match="in_flight"):
            edge.stream([], in_flight=0)


def test_asynchronous_questions_share_one_loop(plain: Made, images: Array) -> None:
    async def main(port: int) -> list[Array]:
        async with Edge(plain.bundle, address(port), retries=QUICK) as edge:
            service.failures = ["UNAVAILABLE"] * 3
            found = await asyncio.gather(*(edge.ask_async(images[i : i + 1]) for i in range(12)))
            service.gate.clear()
            cancelled = asyncio.create_task(edge.ask_async(images[:1]))
            await asyncio.sleep(0.2)
            cancelled.cancel()
            service.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert str(edge.state) == "closed"
            service.failures = ["INVALID_ARGUMENT"]
            with pytest.raises(ContractError, match="as the test says"):
                await edge.ask_async(images[:1])
            return list(found)

    service = Scripted(plain.bundle)
    with scripted(service) as port:
        logits = np.concatenate(asyncio.run(main(port)))
    np.testing.assert_allclose(logits, local(plain, images[:12]), rtol=1e-4, atol=1e-4)


def test_compressed_features_cross_smaller_and_answer_the_same(plain: Made, images: Array) -> None:
    pytest.importorskip("zstandard")
    flat = np.full_like(images[:4], 0.5)
    with (
        running(plain.bundle) as server,
        Wiretap(server.port) as tap,
        Edge(plain.bundle, tap.target, compress="zstd") as edge,
    ):
        answer = edge.answer(flat)
    np.testing.assert_allclose(answer.logits, local(plain, flat), rtol=1e-5, atol=1e-5)
    (request,) = tap.requests()
    assert answer.sent == len(request.raw_input_contents[0]) < 4 * edge.bytes_per_image / 4
    assert request.parameters["content_encoding"].string_param == "zstd"
