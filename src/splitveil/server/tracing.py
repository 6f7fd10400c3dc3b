"""OpenTelemetry spans, where its API is installed and the operator has set up a tracer provider."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    from opentelemetry import propagate, trace
except ModuleNotFoundError:
    trace = None  # type: ignore[assignment, unused-ignore]

OFF: AbstractContextManager[Any] = nullcontext()


def span(protocol: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """A server span ``infer`` around one request, child of the caller's if `headers` carry ``traceparent``.

    It holds the protocol and nothing of the request. Costs nothing but a look where no provider is set up.
    """
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return OFF
    tracer = trace.get_tracer("splitveil")
    made: AbstractContextManager[Any] = tracer.start_as_current_span(
        "infer",
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={"splitveil.protocol": protocol},
        record_exception=False,
    )
    return made
