"""One half alone: what is in it, and that nothing of the other half's secrets is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from torch import nn

from splitveil.core.errors import BundleError, InputError
from splitveil.device.edge import Edge
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Defense, Protected, Sample
from splitveil.lab.defenses.ensembler import Ensembler
from splitveil.lab.defenses.privynet import PrivyNet
from splitveil.lab.export import save
from splitveil.lab.restoring import restore
from splitveil.server.server import Server
from splitveil.wire.bundle import (  # fmt: skip
    CARD,
    CLOUD,
    CLOUD_WEIGHTS,
    EDGE,
    EDGE_WEIGHTS,
    GOLDEN,
    MANIFEST,
    Bundle,
    with_card,
    write_half,
)
from splitveil.wire.codecs.uniform import Uniform
from splitveil.wire.engine import load_cloud, load_edge, self_test
from tests.serving.conftest import running
from tests.wire.bundle.test_folder import AUDITED

SHAPE = (1, 12, 12)


def make(folder: Path, defense: Defense) -> Bundle:
    torch.manual_seed(0)
    x, y = torch.rand(64, *SHAPE), torch.arange(64) % 3
    plain = halves(
        nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3)),
        x,
    )
    split = defense.install(plain)
    with torch.no_grad():
        defense.study(split, Sample(x, y, 0))
        defense.calibrate(split.edge(x))
        codec = Uniform(8).calibrate(defense(split.edge(x)))
    protected = Protected(split, defense, codec).eval()
    return save(protected, folder, name="tiny", model_spec="by hand", image_shape=SHAPE, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_card(make(tmp_path_factory.mktemp("b") / "whole", PrivyNet(keep=7, key="tell-nobody")), AUDITED)


@pytest.fixture(scope="module")
def edge(whole: Bundle) -> Bundle:
    return write_half(whole, "edge", whole.folder.with_name("edge"))


@pytest.fixture(scope="module")
def cloud(whole: Bundle) -> Bundle:
    return write_half(whole, "cloud", whole.folder.with_name("cloud"))


def holdings(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_half_holds_its_own_files_under_one_contract(whole: Bundle, edge: Bundle, cloud: Bundle) -> None:
    assert set(holdings(edge.folder)) == {MANIFEST, EDGE, EDGE_WEIGHTS, CARD}
    assert set(holdings(cloud.folder)) == {MANIFEST, CLOUD, CLOUD_WEIGHTS, GOLDEN, CARD}
    assert (edge.half, cloud.half, whole.half) == ("edge", "cloud", None)
    assert edge.manifest.contract == cloud.manifest.contract == whole.manifest.contract
    assert edge.read(EDGE) == whole.read(EDGE)
    assert cloud.read(CLOUD) == whole.read(CLOUD)
    assert edge.card == cloud.card == whole.own_card
    for half in (edge, cloud):
        assert Bundle.load(half.folder) == half


def test_the_halves_answer_as_the_whole_does(whole: Bundle, edge: Bundle, cloud: Bundle) -> None:
    x = np.random.default_rng(0).random((5, *SHAPE), dtype=np.float32)
    z = load_edge(edge).run({"x": x})
    np.testing.assert_array_equal(z, load_edge(whole).run({"x": x}))
    np.testing.assert_array_equal(load_cloud(cloud).run({"z": z}), load_cloud(whole).run({"z": z}))


def test_a_device_with_one_half_asks_a_server_with_the_other(whole: Bundle, edge: Bundle, cloud: Bundle) -> None:
    x = np.random.default_rng(1).random((3, *SHAPE), dtype=np.float32)
    with running(cloud) as server, Edge(edge, f"127.0.0.1:{server.port}") as device:
        answers = np.asarray(device.ask(x))
    expected = load_cloud(whole).run({"z": load_edge(whole).run({"x": x})})
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)


def test_a_missing_half_is_told_in_one_sentence(edge: Bundle, cloud: Bundle) -> None:
    edge.require_edge()
    cloud.require_cloud()
    on_the_device: list[Callable[[], object]] = [
        lambda: Server(edge, port=0), edge.require_cloud, lambda: edge.read(CLOUD_WEIGHTS)
    ]  # fmt: skip
    for lacks in on_the_device:
        with pytest.raises(BundleError, match="edge half of its bundle, expected the cloud half; use"):
            lacks()
    on_the_server: list[Callable[[], object]] = [
        lambda: Edge(cloud, "127.0.0.1:1"), cloud.require_edge, lambda: restore(cloud)
    ]  # fmt: skip
    for lacks in on_the_server:
        with pytest.raises(BundleError, match="cloud half of its bundle, expected the edge half; use"):
            lacks()
    with pytest.raises(BundleError, match="expected the cloud half"):
        write_half(edge, "cloud", edge.folder.with_name("again"))


def test_the_contract_covers_the_half_that_is_not_there(cloud: Bundle, tmp_path: Path) -> None:
    copy = write_half(cloud, "cloud", tmp_path / "copy")
    assert copy.manifest == cloud.manifest
    manifest = json.loads((copy.folder / MANIFEST).read_text())
    changes: list[dict[str, object]] = [
        {"elsewhere": {EDGE: "0" * 64}}, {"elsewhere": {}}, {"half": None}, {"half": "edge"}
    ]  # fmt: skip
    for change in changes:
        (copy.folder / MANIFEST).write_text(json.dumps(manifest | change))
        with pytest.raises(BundleError):
            Bundle.load(copy.folder)


def test_a_half_keeps_its_kind_under_a_new_card(cloud: Bundle, tmp_path: Path) -> None:
    copy = write_half(cloud, "cloud", tmp_path / "copy")
    again = with_card(copy, AUDITED.model_copy(update={"seed": 7}))
    assert (again.half, again.manifest.contract) == ("cloud", cloud.manifest.contract)
    assert again.card is not None
    assert again.card.seed == 7


def test_a_half_does_not_replace_its_bundle(whole: Bundle) -> None:
    with pytest.raises(InputError, match="is the bundle itself"):
        write_half(whole, "edge", whole.folder)
    assert Bundle.load(whole.folder) == whole


def traces(secret: NDArray[np.generic]) -> list[bytes]:
    """The secret as any file might hold it."""
    if secret.dtype.kind == "f":
        return [secret.tobytes(), secret.astype(np.float16).tobytes(), secret.astype(np.float64).tobytes()]
    forms = [secret.astype(kind).tobytes() for kind in ("<i8", "<i4", "<i2", "u1", "<f4")]
    return [*forms, ", ".join(map(str, secret)).encode(), ",".join(map(str, secret)).encode()]


def test_the_cloud_half_holds_no_trace_of_the_channels_choice(edge: Bundle, cloud: Bundle) -> None:
    [index] = [v for v in load(edge.read(EDGE_WEIGHTS)).values() if v.dtype == np.int64 and v.size == 7]
    assert sorted(index) != list(index)
    sought = [*traces(index), b"tell-nobody"]
    assert any(trace in edge.read(EDGE_WEIGHTS) for trace in sought)
    assert any(trace in edge.read(EDGE) for trace in sought)
    for name, content in holdings(cloud.folder).items():
        assert not any(trace in content for trace in sought), name
    weights = [v for v in load(edge.read(EDGE_WEIGHTS)).values() if v.size > 1]
    for name, content in holdings(cloud.folder).items():
        assert not any(v.tobytes() in content for v in weights), name


def test_golden_features_of_the_cloud_half_are_of_no_image(whole: Bundle, cloud: Bundle) -> None:
    """Whoever draws the exporter's images anew and has the pretrained net would read the choice off their features."""
    self_test(cloud, load_cloud(cloud))
    old, new = load(whole.read(GOLDEN)), load(cloud.read(GOLDEN))
    assert (new["z"].shape, new["z"].dtype) == (old["z"].shape, old["z"].dtype)
    assert new["z"].max() <= old["z"].max()
    assert abs(np.corrcoef(old["z"].ravel(), new["z"].ravel())[0, 1]) < 0.2
    assert new["z"].std() > 0


def test_the_fixed_noise_of_an_ensemble_stays_on_the_device(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", Ensembler(nets=3, chosen=2))
    edge, cloud = (write_half(whole, half, tmp_path / half) for half in ("edge", "cloud"))
    secret = load(edge.read(EDGE_WEIGHTS))["defense.secret"]
    assert secret.std() > 0
    # The graph holds it scaled.
    held = [onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(edge.read(EDGE)).graph.initializer]
    [scaled] = [h for h in held if h.size == secret.size and abs(np.corrcoef(h.ravel(), secret.ravel())[0, 1]) > 0.999]
    for name, content in holdings(cloud.folder).items():
        assert not any(trace in content for trace in (*traces(secret), *traces(scaled))), name
    # Who answers is the cloud's business in this protocol; see the defence's own words.
    assert load(cloud.read(CLOUD_WEIGHTS))["shares"].tolist().count(0) == 1
