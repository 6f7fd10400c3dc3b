import urllib.request
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from splitveil.core.errors import LinkError
from splitveil.server.server import Server

from .conftest import Made, ask_with_triton, started
from .test_server import features
from .test_web import GOOD, INFER, call


def scraped(server: Server) -> dict[tuple[str, frozenset[str]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (s.name, frozenset(s.labels.values())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_requests_refusals_batches_and_the_model_are_counted(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:3])
    with started(lambda: Server(plain.bundle, port=0, http_port=0, metrics_port=0)) as server:
        for _ in range(3):
            ask_with_triton(server.port, z)
        assert call(server, "POST", INFER, GOOD)[0] == 200
        assert call(server, "POST", INFER, b"{")[0] == 400
        with suppress(InferenceServerException):
            ask_with_triton(server.port, z * np.nan)
        found = scraped(server)
    m = plain.bundle.manifest
    for (name, labels), expected in {
        ("splitveil_requests_total", ("grpc", "ok")): 3,
        ("splitveil_requests_total", ("http", "ok")): 1,
        ("splitveil_requests_total", ("grpc", "contract")): 1,
        ("splitveil_requests_total", ("http", "contract")): 1,
        ("splitveil_refusals_total", ("contract: values",)): 1,
        ("splitveil_refusals_total", ("contract: message",)): 1,
        ("splitveil_request_seconds_count", ("grpc",)): 4,
        ("splitveil_request_seconds_bucket", ("grpc", "+Inf")): 4,
        ("splitveil_batch_rows_sum", ()): 10,
        ("splitveil_batch_rows_count", ()): 4,
        ("splitveil_queue_rows", ()): 0,
        ("splitveil_model", (m.name, m.contract, "custom", "none", "raw")): 1,
    }.items():
        assert found[name, frozenset(labels)] == expected, name
    assert 0 < found["splitveil_request_seconds_sum", frozenset({"grpc"})] < 60


def test_the_port_closes_with_the_server_and_a_taken_one_is_an_error(plain: Made) -> None:
    with started(lambda: Server(plain.bundle, port=0, metrics_port=0)) as server:
        port = server.metrics_port
        with (
            pytest.raises(LinkError, match="--metrics-port"),
            started(lambda: Server(plain.bundle, port=0, metrics_port=port)),
        ):
            pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20)
