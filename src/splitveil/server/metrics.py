"""What a server tells Prometheus. Names, counts and times; never a tensor, a token or an address."""

from collections.abc import Callable
from functools import partial
from typing import Any

from splitveil.core.errors import MissingExtraError
from splitveil.core.records import Manifest
from splitveil.server.security import is_home
from splitveil.server.visits import WELCOME

SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PATHS = ("/metrics", "/")
FORM = b"text/plain; version=0.0.4; charset=utf-8"


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
    """The same, counted in a registry of its own; as an ASGI application it answers ``/metrics``.

    Args:
        waiting: rows in the queues, asked at each scrape.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
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
        self._written = made.generate_latest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one scrape; only under a name of this machine, for any page in a browser here can ask too."""
        headers = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        status, content = 200, b""
        if not (len(hosts) == 1 and is_home(hosts[0])) or any(name == b"origin" for name, _ in headers):
            status, content = 403, b"expected one Host that names this machine and no Origin; ask 127.0.0.1.\n"
        elif scope["path"] not in PATHS or scope["method"] not in ("GET", "HEAD"):
            status, content = 404, b"there is nothing but /metrics.\n"
        else:
            scope["state"][WELCOME] = True
            content = self._written(self.registry)
        told = [(b"content-type", FORM), (b"content-length", str(len(content)).encode())]
        told += [(b"connection", b"close")] if status != 200 else []
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""})

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
