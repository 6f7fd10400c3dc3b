"""The server under test, in a process of its own; it imports no torch. One JSON line when ready, one when drained.

    python -m tests.faults.victim BUNDLE [--grpc-port N] [--http-port N] [--token-file FILE] [--gated]

``--gated``: the model waits for a line on stdin before each batch, and each request that passed the rules says ``got``.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from splitveil.server import lifecycle
from splitveil.server.limits import Limits
from splitveil.server.metrics import Prometheus
from splitveil.server.security import Tokens
from splitveil.server.server import Server
from splitveil.wire.bundle import Bundle
from splitveil.wire.contract import RequestRules
from splitveil.wire.engine import LoadedHalf


def say(**what: object) -> None:
    """One line to whoever started this."""
    print(json.dumps(what), flush=True)


def hold_the_model() -> None:
    """From now on each batch waits for a line."""
    run, check = LoadedHalf.run, RequestRules.check

    def gated(self: LoadedHalf, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        sys.stdin.readline()
        return run(self, inputs)

    def told(self: RequestRules, *given: Any) -> None:
        check(self, *given)
        say(got=1)

    LoadedHalf.run, RequestRules.check = gated, told  # type: ignore[method-assign, assignment]


def main() -> None:
    """Serve until SIGTERM."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("bundle", type=Path)
    asked.add_argument("--grpc-port", type=int, default=0)
    asked.add_argument("--http-port", type=int, default=0)
    asked.add_argument("--token-file", type=Path)
    asked.add_argument("--read-seconds", type=float, default=20.0)
    asked.add_argument("--idle-seconds", type=float, default=60.0)
    asked.add_argument("--test-seconds", type=float, default=60.0)
    asked.add_argument("--max-batch", type=int, default=64)
    asked.add_argument("--tidy-seconds", type=float, default=lifecycle.TIDY_SECONDS)
    asked.add_argument("--gated", action="store_true")
    given = asked.parse_args()
    server = Server(
        Bundle.load(given.bundle), port=given.grpc_port, http_port=given.http_port, metrics_port=0,
        max_batch=given.max_batch, tokens=Tokens(given.token_file) if given.token_file else None,
        limits=Limits(
            read_seconds=given.read_seconds, idle_seconds=given.idle_seconds, test_seconds=given.test_seconds
        ),
    )  # fmt: skip

    def ready(server: Server) -> None:
        if given.gated:
            hold_the_model()
        say(grpc=server.port, http=server.http_port, metrics=server.metrics_port)

    lifecycle.TIDY_SECONDS = given.tidy_seconds
    lifecycle.run_until_told(server, ready)
    assert isinstance(server.metrics, Prometheus)
    counted = {
        protocol: int(
            server.metrics.registry.get_sample_value("splitveil_requests_total", {"protocol": protocol, "status": "ok"})
            or 0
        )
        for protocol in ("grpc", "http")
    }
    say(drained=True, **counted)


if __name__ == "__main__":
    main()
