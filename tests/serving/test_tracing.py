from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from splitveil.server import tracing
from splitveil.server.server import Server

from .conftest import Made, ask_with_triton, started
from .test_web import GOOD, INFER, call

PARENT = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_requests_are_spans_of_their_caller_and_hold_nothing_of_the_request(
    plain: Made, spans: InMemorySpanExporter
) -> None:
    with started(lambda: Server(plain.bundle, port=0, http_port=0)) as server:
        ask_with_triton(server.port, np.zeros((1, 8, 16, 16), np.float32))
        header = {"traceparent": f"00-{PARENT}-b7ad6b7169203331-01"}
        assert call(server, "POST", INFER, GOOD, header)[0] == 200
        assert call(server, "POST", INFER, b"{")[0] == 400
    grpc, http, bad = spans.get_finished_spans()
    assert [dict(s.attributes or {}) for s in (grpc, http, bad)] == [
        {"splitveil.protocol": s} for s in ("grpc", "http", "http")
    ]
    assert http.context is not None
    assert f"{http.context.trace_id:032x}" == PARENT
    assert grpc.parent is None
    assert bad.events == ()


def test_without_a_provider_there_is_no_span() -> None:
    assert tracing.span("grpc", {}) is tracing.OFF
