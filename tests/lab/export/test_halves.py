import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from splitveil.core.errors import BundleError
from splitveil.lab.cut import Split, split
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import Halves, export_halves, save
from splitveil.wire.bundle import CLOUD, CLOUD_WEIGHTS, EDGE, EDGE_WEIGHTS, GOLDEN, Bundle
from splitveil.wire.codecs import Codec
from splitveil.wire.codecs.raw import Raw
from splitveil.wire.codecs.uniform import Uniform

SHAPE = (3, 16, 16)


class Net(nn.Module):
    """A residual net with a weight that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.unused = nn.Linear(300, 300)

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn(self.stem(x)).relu()
        z = (self.block(z) + z).relu()
        out: Tensor = self.head(z.mean((2, 3)))
        return out


class Tokens(nn.Module):
    """Patches, attention, mean: features are (N, L, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(self.patch(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head(tokens.mean(1))
        return out


def protect(net: nn.Module, at: str, defense: Defense, codec: Codec) -> Protected:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    x = torch.rand(16, *SHAPE)
    halved = split(net.eval(), at, x)
    with torch.no_grad():
        z = halved.edge(x)
        defense.calibrate(z)
        return Protected(halved, defense, codec.calibrate(defense(z))).eval()


def run(graph: bytes, **inputs: Tensor) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(inputs)
    out: NDArray[Any] = session.run(None, {k: v.numpy() for k, v in inputs.items()})[0]
    return out


@pytest.fixture(scope="module")
def noisy() -> tuple[Protected, Halves]:
    protected = protect(Net(), "bn+relu", GaussianNoise(sigma=0.5), Uniform(6))
    return protected, export_halves(protected, SHAPE)


def test_the_edge_graph_gives_the_codes_of_the_defended_features(noisy: tuple[Protected, Halves]) -> None:
    protected, exported = noisy
    for batch in (1, 5):
        source = torch.Generator().manual_seed(batch)
        x, noise = torch.rand(batch, *SHAPE, generator=source), torch.randn(batch, 8, 16, 16, generator=source)
        codes = run(exported.files[EDGE], x=x, noise=noise)
        with torch.no_grad():
            z = protected.defense.apply_noise(protected.split.edge(x), noise)
            expected = protected.codec.encode(z).numpy()
            unpacked = protected.codec.unpack(torch.from_numpy(codes), (8, 16, 16))
            logits = protected.split.cloud(protected.codec.decode(unpacked)).numpy()
        assert codes.dtype == np.uint8
        assert codes.shape == (batch, 8 * 16 * 16 * 6 // 8)
        steps = np.abs(unpacked.numpy() - expected)
        assert steps.max() <= 1
        assert (steps > 0).mean() < 1e-3
        np.testing.assert_allclose(run(exported.files[CLOUD], z=torch.from_numpy(codes)), logits, rtol=1e-4, atol=1e-4)


def test_halves_hold_their_own_weights_only(noisy: tuple[Protected, Halves]) -> None:
    protected, exported = noisy
    edge, cloud = (
        {
            t.name.rpartition(".")[0].rpartition(".")[2]
            for t in onnx.load_from_string(exported.files[n]).graph.initializer
        }
        for n in (EDGE, CLOUD)
    )
    assert "stem" in edge
    assert {"block", "head"} <= cloud
    assert not {"block", "head", "unused"} & edge
    assert not {"stem", "unused"} & cloud
    assert len(exported.files[EDGE]) + len(exported.files[CLOUD]) < 300 * 300
    edge_weights, cloud_weights = load(exported.files[EDGE_WEIGHTS]), load(exported.files[CLOUD_WEIGHTS])
    assert torch.equal(edge_weights["stem.weight"], protected.split.edge.state_dict()["stem.weight"])
    assert torch.equal(edge_weights["defense.radius"], protected.defense.state_dict()["radius"])
    assert torch.equal(cloud_weights["head.weight"], protected.split.cloud.state_dict()["head.weight"])
    assert not set(edge_weights) & set(cloud_weights)


def test_golden_features_are_of_random_images_and_fit_the_cloud(noisy: tuple[Protected, Halves]) -> None:
    golden = load(noisy[1].files[GOLDEN])
    assert set(golden) == {"z", "logits"}
    got = run(noisy[1].files[CLOUD], z=golden["z"])
    np.testing.assert_allclose(got, golden["logits"].numpy(), rtol=1e-4, atol=1e-4)


def test_exports_are_silent_repeatable_and_tell_nothing_of_this_machine(
    noisy: tuple[Protected, Halves], capfd: pytest.CaptureFixture[str]
) -> None:
    protected, exported = noisy
    before = copy.deepcopy(protected.state_dict())
    protected.train()
    again = export_halves(protected, SHAPE)
    assert protected.training
    protected.eval()
    assert dict(again.files) == dict(exported.files)
    assert all(torch.equal(value, before[key]) for key, value in protected.state_dict().items())
    assert capfd.readouterr() == ("", "")
    here = str(Path(__file__).resolve().parents[2]).encode()
    assert not any(here in content or b"site-packages" in content for content in again.files.values())


def test_tokens_cross_too() -> None:
    protected = protect(Tokens(), "first", Undefended(), Uniform(8))
    exported = export_halves(protected, SHAPE)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(4))
    codes = run(exported.files[EDGE], x=x)
    assert exported.features == codes.shape[1:] == (16, 16)
    with torch.no_grad():
        np.testing.assert_allclose(
            run(exported.files[CLOUD], z=torch.from_numpy(codes)), protected(x).numpy(), rtol=1e-3, atol=1e-3
        )


def test_the_bundle_says_what_was_exported(
    noisy: tuple[Protected, Halves], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected, exported = noisy
    monkeypatch.setattr("splitveil.lab.export.halves.export_halves", lambda *_: exported)
    bundle = save(
        protected, tmp_path / "b", name="tiny", model_spec="net", image_shape=SHAPE, classes=list("abcde"),
        task_accuracy=0.75,
    )  # fmt: skip
    m = Bundle.load(tmp_path / "b").manifest
    assert m == bundle.manifest
    assert (m.cut, m.defense, m.codec) == (protected.split.cut, "noise:sigma=0.5,clip=1.0", "uniform:bits=6")
    assert (m.input.shape, m.features.shape, m.output.shape) == ((-1, 3, 16, 16), (-1, 8 * 16 * 16 * 6 // 8), (-1, 5))
    assert (m.features.datatype, m.noise and m.noise.shape, m.task_accuracy) == ("UINT8", (-1, 8, 16, 16), 0.75)
    assert bundle.read(EDGE) == exported.files[EDGE]
    with pytest.raises(BundleError, match="expected 5 class names, got 2"):
        save(protected, tmp_path / "c", name="tiny", model_spec="net", image_shape=SHAPE, classes=["a", "b"])


class Drifting(nn.Module):
    """Computes something else when it is exported, as a faulty exporter would."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, z: Tensor) -> Tensor:
        return z + self.by if torch.compiler.is_compiling() else z


@pytest.mark.parametrize(
    ("half", "codec", "by"), [("edge", Raw(), 1e-2), ("edge", Uniform(8), 1e-1), ("cloud", Raw(), 1e-2)]
)
def test_a_half_that_differs_from_torch_is_named(half: str, codec: Codec, by: float) -> None:
    good = protect(Net(), "bn+relu", Undefended(), codec)
    edge, cloud = good.split.edge, good.split.cloud
    if half == "edge":
        edge = nn.Sequential(edge, Drifting(by))
    else:
        cloud = nn.Sequential(cloud, Drifting(by))
    with pytest.raises(BundleError, match=f"exported {half} half differs"):
        export_halves(Protected(Split(edge, cloud, good.split.cut), Undefended(), good.codec), SHAPE)


def test_what_cannot_be_exported_is_named() -> None:
    class Stubborn(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z if float(z.sum()) > 0 else -z

    good = protect(Net(), "bn+relu", Undefended(), Raw())
    cloud = nn.Sequential(Stubborn(), good.split.cloud)
    with pytest.raises(BundleError, match="the cloud half cannot be exported"):
        export_halves(Protected(Split(good.split.edge, cloud, good.split.cut), Undefended(), Raw()), SHAPE)


def test_a_weight_in_both_halves_is_refused() -> None:
    conv, good = nn.Conv2d(3, 3, 3, padding=1), protect(Net(), "bn+relu", Undefended(), Raw())
    cloud = nn.Sequential(conv, nn.Flatten(), nn.Linear(768, 5))
    for edge in (conv, copy.deepcopy(conv)):
        with pytest.raises(BundleError, match=r"'0.weight' is in"):
            export_halves(Protected(Split(edge, cloud, good.split.cut), Undefended(), Raw()), SHAPE)
