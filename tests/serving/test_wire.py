"""What really crosses, read between device and server, against what an audit gives its adversaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from splitveil.device import Edge
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.wire.codecs import CODECS
from splitveil.wire.codecs.raw import Raw

from .conftest import Made, make, running
from .wiretap import Wiretap

Array = NDArray[Any]
COPIES = 64


@pytest.fixture(scope="module")
def bare_noise(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Noise as 32-bit floats: on the wire it is what it is."""
    return make(tmp_path_factory.mktemp("bundles") / "bare", GaussianNoise(sigma=0.5), Raw())


def crossed(made: Made, *batches: Array) -> tuple[list[Array], bytes]:
    """Features of each request as they crossed, and all that was sent."""
    with running(made.bundle) as server, Wiretap(server.port) as tap, Edge(made.bundle, tap.target) as edge:
        for x in batches:
            edge.ask(x)
    dtype = {"UINT8": "u1", "FP16": "<f2", "FP32": "<f4"}[made.bundle.manifest.features.datatype]
    requests = [(r.raw_input_contents[0], tuple(r.inputs[0].shape)) for r in tap.requests()]
    return [np.frombuffer(content, dtype).reshape(shape) for content, shape in requests], tap.all_bytes


def test_noise_on_the_wire_is_that_of_the_audit(bare_noise: Made, images: Array) -> None:
    """One image many times: around the mean that the audit computes, with its spread, and normal."""
    x = np.repeat(images[:1], COPIES, axis=0)
    (z,), sent = crossed(bare_noise, x)
    defense = bare_noise.protected.defense
    with torch.no_grad():
        features = bare_noise.protected.split.edge(torch.from_numpy(x))
        mean, spread = defense.mean(features), defense.spread(features)
        audit = defense.apply_noise(features, torch.randn(features.shape, generator=torch.Generator().manual_seed(0)))
    assert spread is not None
    crossing = torch.from_numpy(z.copy())
    seen, view = (((v - mean) / spread).flatten().double().numpy() for v in (crossing, audit))
    assert abs(seen.mean()) < 5 / np.sqrt(seen.size)
    assert abs(seen.std() - 1) < 5 / np.sqrt(2 * seen.size)
    assert stats.kstest(seen, "norm").pvalue > 1e-5
    assert stats.ks_2samp(seen, view).pvalue > 1e-5
    per_copy = seen.reshape(COPIES, -1)
    assert np.abs(np.corrcoef(per_copy)[np.triu_indices(COPIES, 1)]).max() < 6 / np.sqrt(per_copy.shape[1])
    for raw in (features[0], mean[0]):
        distance = (crossing - raw).flatten(1).norm(dim=1) / spread.norm()
        assert distance.min() > 0.9, "features crossed without their noise"
    assert x[0].tobytes()[:32] not in sent


def test_every_request_draws_fresh_noise_and_without_a_defence_there_is_none(
    noisy: Made, plain: Made, images: Array
) -> None:
    batches = images[:1], images[:1], np.repeat(images[:1], 2, axis=0)
    rows = np.concatenate(crossed(noisy, *batches)[0])
    assert len({row.tobytes() for row in rows}) == 4
    rows = np.concatenate(crossed(plain, *batches)[0])
    np.testing.assert_allclose(rows, np.repeat(rows[:1], 4, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", ["half", "uniform:bits=6,clip=0.999"])
def test_packed_features_are_all_that_crosses(spec: str, images: Array, tmp_path: Path) -> None:
    """The bytes are those that the codec promises, and the answer is the local model's."""
    made = make(tmp_path / "b", GaussianNoise(sigma=0.1), CODECS.build(spec))
    codec, shape = made.protected.codec, (8, 16, 16)
    with running(made.bundle) as server, Wiretap(server.port) as tap, Edge(made.bundle, tap.target) as edge:
        answer = edge.answer(images[:6])
        assert edge.bytes_per_image == codec.payload_bytes(8 * 16 * 16)
    (request,) = tap.requests()
    content = request.raw_input_contents[0]
    assert answer.sent == len(content) == 6 * codec.payload_bytes(8 * 16 * 16)
    z = np.frombuffer(content, "u1" if codec.wire_dtype == "UINT8" else "<f2").reshape(6, *codec.wire_shape(shape))
    with torch.no_grad():
        decoded = codec.decode(codec.unpack(torch.from_numpy(z.copy()), shape))
        expected = made.protected.split.cloud(decoded).numpy()
        features = made.protected.split.edge(torch.from_numpy(images[:6]))
    np.testing.assert_allclose(answer.logits, expected, rtol=1e-4, atol=1e-4)
    assert 0.9 < np.corrcoef(decoded.flatten(), features.flatten())[0, 1] < 0.9999
