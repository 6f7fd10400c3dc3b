"""What a server tells Prometheus. Names, counts and times; never a tensor, a token or an address."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from splitveil.core.errors import LinkError, MissingExtraError
from splitveil.core.records import Manifest

SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LOOPBACK = "127.0.0.1"


def _one_of(found: Callable[[], dict[str, float]], name: str) -> float:
    return found()[name]


class Metrics:
    """What a server counts. This one counts nothing."""

    def request(self, protocol: str, status: str, seconds: float) -> None:
        """A request for logits was answered or refused. status: ``ok`` or a reason."""

    def refusal(self, reason: str) -> None:
        """A request was refused for this reason, down to the rule that it broke."""

    def batch(self, rows: int) -> None:
        """The model is given a batch."""

    def serves(self, manifest: Manifest) -> None:
        """What is served from now on."""

    def reloaded(self, changed: bool) -> None:
        """A reload was asked for."""

    def secured(self, left: Callable[[], dict[str, float]]) -> None:
        """TLS is on; `left` says when asked how many seconds which certificates still hold."""


class Prometheus(Metrics):
    """The same, counted in a registry of its own and offered on ``http://127.0.0.1:PORT/metrics``.

    Args:
        port: 0 for a free one; `port` then says which.
        waiting: rows in the queues, asked at each scrape.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, port: int, waiting: Callable[[], float]) -> None:
        try:
            import prometheus_client as made
        except ModuleNotFoundError:
            raise MissingExtraError("metrics need prometheus-client; pip install 'splitveil[serve]'.") from None
        self.registry = registry = made.CollectorRegistry()
        self._requests = made.Counter(
            "splitveil_requests", "Requests for logits.", ["protocol", "status"], registry=registry
        )
        self._seconds = made.Histogram(
            "splitveil_request_seconds", "From arrival to answer.", ["protocol"], buckets=SECONDS, registry=registry
        )
        self._refusals = made.Counter(
            "splitveil_refusals", "Refused requests by the rule they broke.", ["reason"], registry=registry
        )
        self._batches = made.Histogram("splitveil_batch_rows", "Rows of one run.", buckets=ROWS, registry=registry)
        self._model = made.Gauge(
            "splitveil_model", "What is served.", ["model", "contract", "cut", "defense", "codec"], registry=registry
        )
        self._reloads = made.Counter("splitveil_reloads", "Reloads asked for.", ["changed"], registry=registry)
        made.Gauge("splitveil_queue_rows", "Rows that wait.", registry=registry).set_function(waiting)
        self._expiry = made.Gauge(
            "splitveil_certificate_expiry_seconds", "Until the first one ends; negative after.", ["certificate"],
            registry=registry,
        )  # fmt: skip
        self._port, self._start = port, made.start_http_server
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            LinkError: the port is taken.
        """
        try:
            self._server, self._thread = self._start(self._port, LOOPBACK, self.registry)
        except OSError:
            raise LinkError(
                f"cannot listen on {LOOPBACK}:{self._port}; choose another --metrics-port, or 0 for a free one."
            ) from None

    def stop(self) -> None:
        """Close the port, if it is open."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port if self._server is None else int(self._server.server_port)

    def request(self, protocol: str, status: str, seconds: float) -> None:
        self._requests.labels(protocol, status).inc()
        self._seconds.labels(protocol).observe(seconds)

    def refusal(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def batch(self, rows: int) -> None:
        self._batches.observe(rows)

    def serves(self, manifest: Manifest) -> None:
        self._model.clear()
        self._model.labels(manifest.name, manifest.contract, manifest.cut.name, manifest.defense, manifest.codec).set(1)

    def reloaded(self, changed: bool) -> None:
        self._reloads.labels(str(changed).lower()).inc()

    def secured(self, left: Callable[[], dict[str, float]]) -> None:
        for name in left():
            self._expiry.labels(name).set_function(partial(_one_of, left, name))
