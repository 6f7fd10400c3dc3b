"""PrivyNet: the channels that it drops, the choice that it makes, and who gets to know it."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from scipy import linalg
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Protected, Sample
from splitveil.lab.defenses.parts.channels import fisher_utility, reconstruction_privacy
from splitveil.lab.defenses.privynet import PrivyNet
from splitveil.lab.export import save
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import CLOUD, CLOUD_WEIGHTS, EDGE_WEIGHTS, Bundle

M = 256


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def known() -> tuple[Tensor, Tensor, Tensor]:
    """Channels 0 and 1 hold the image, 2 and 3 the class, 4 is dead, 5 to 7 are noise."""
    x, y = torch.rand(M, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(M) % 4
    told = (y.float()[:, None, None, None] + draws(M, 2, 8, 8)).expand(M, 2, 8, 8)
    z = torch.cat([3 * x, 1 - x, told, torch.zeros(M, 1, 8, 8), draws(M, 3, 8, 8, seed=2)], 1)
    return z, x, y


def settled(digits: Dataset, defense: PrivyNet, epochs: int = 0) -> Protected:
    torch.manual_seed(0)
    model = load_model("small", shape=digits.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *digits.shape)).split("relu2")
    return protect(split, defense, "raw", digits, epochs=epochs)[0]


def index(protected: Protected) -> list[int]:
    found: list[int] = protected.split.edge.get_submodule("1").get_buffer("index").tolist()
    return found


def test_utility_is_fishers_discriminant(known: tuple[Tensor, Tensor, Tensor]) -> None:
    z, _, y = known
    found = fisher_utility(z, y, grid=1)
    pooled = z[:, 2].mean((1, 2)).double()
    centres = torch.stack([pooled[y == k].mean() for k in range(4)])
    ratio = centres.var(correction=0) / (pooled - centres[y]).square().mean()
    assert found[2].item() == pytest.approx(ratio.item(), rel=1e-3)
    # The sum of the eigenvalues, by SciPy.
    fields = F.adaptive_avg_pool2d(z[:, :1] + z[:, 2:3], 2).flatten(1).double()
    inside = fields - torch.stack([fields[y == k].mean(0) for k in range(4)])[y]
    centred = fields - fields.mean(0)
    between = (centred.T @ centred - inside.T @ inside) / M
    wanted = float(linalg.eigvalsh(between.numpy(), (inside.T @ inside / M).numpy()).sum())
    assert fisher_utility(z[:, :1] + z[:, 2:3], y)[0].item() == pytest.approx(wanted, rel=1e-3)
    assert set(found.topk(2).indices.tolist()) == {2, 3}
    assert found[4] == 0
    assert torch.allclose(fisher_utility(100 * z, y), fisher_utility(z, y), rtol=1e-4)


def test_leaking_channels_are_found_by_reconstruction(known: tuple[Tensor, Tensor, Tensor]) -> None:
    z, x, _ = known
    found = reconstruction_privacy(z, x)
    nothing = -10 * math.log10(x.var(0).mean().item())
    assert found[:2].min() > 50
    assert (found[2:] - nothing).abs().max() < 0.5
    assert torch.allclose(reconstruction_privacy(100 * z, x), found, atol=1e-2)
    coarse = reconstruction_privacy(F.avg_pool2d(z, 2), x)
    assert coarse[0] < found[0] - 20
    assert coarse[0] > nothing + 1


def test_flat_features_are_channels_of_one_number() -> None:
    x, z = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), draws(64, 5)
    x = x * 0.1 + z[:, 2].sigmoid()[:, None, None, None] * 0.8
    assert reconstruction_privacy(z, x).argmax() == 2
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    defense = PrivyNet(keep=4)
    split = defense.install(trace(net.eval(), torch.zeros(2, 1, 8, 8)).split("2"))
    defense.study(split, Sample(x, torch.arange(64) % 3, 0))
    assert split.edge(x).shape == (64, 4)
    assert split(x).shape == (64, 3)


def test_useless_and_leaking_channels_never_cross(known: tuple[Tensor, Tensor, Tensor]) -> None:
    z, x, y = known
    seen = set()
    for key in range(20):
        sent = PrivyNet(keep=2, drop_useless=0.25, drop_leaky=0.25, key=key).chosen(z, x, y, 2).tolist()
        assert len(set(sent)) == 2
        assert not {0, 1, 4} & set(sent)
        seen.update(sent)
    assert {2, 3} < seen
    assert PrivyNet(choice="useful").chosen(z, x, y, 2).sort().values.tolist() == [2, 3]
    anything = {c for key in range(30) for c in PrivyNet(choice="random", key=key).chosen(z, x, y, 3).tolist()}
    assert anything == set(range(8))


def test_keys_tell_devices_apart_and_repeat_a_choice(digits: Dataset) -> None:
    one, same, other, fresh, again = (settled(digits, PrivyNet(key=key)) for key in ("a", "a", "b", None, None))
    assert len(index(one)) == 12
    assert index(one) == index(same)
    assert len({tuple(index(p)) for p in (one, other, fresh, again)}) == 4
    assert sorted(index(one)) != index(one)
    assert "key" not in repr(one.defense)


def test_what_crosses_are_the_frozen_edges_own_channels(digits: Dataset) -> None:
    protected = settled(digits, PrivyNet(keep=6), epochs=1)
    torch.manual_seed(0)
    before = load_model("small", shape=digits.shape, classes=10, weights=None).model
    plain = trace(before, torch.zeros(2, *digits.shape)).split("relu2")
    x = torch.rand(4, *digits.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(protected.split.edge(x), plain.edge(x)[:, index(protected)])
    assert protected.split.cut.shape == (6, 8, 8)


def test_the_cloud_gets_no_trace_of_the_choice(digits: Dataset, tmp_path: Path) -> None:
    protected = settled(digits, PrivyNet(keep=6, key="tell-nobody"))
    folder = tmp_path / "b"
    save(protected, folder, name="b", model_spec="small", image_shape=digits.shape, classes=digits.classes)
    bundle = Bundle.load(folder)
    chosen = torch.tensor(index(protected))
    assert any(torch.equal(v, chosen) for v in load(bundle.read(EDGE_WEIGHTS)).values())
    graph = onnx.load_from_string(bundle.read(CLOUD)).graph
    told = [onnx.numpy_helper.to_array(t) for t in graph.initializer]
    told += [v.numpy() for v in load(bundle.read(CLOUD_WEIGHTS)).values()]
    assert told
    assert not any(t.size == 6 and np.array_equal(t.ravel().astype(np.int64), chosen.numpy()) for t in told)
    assert not any(b"tell-nobody" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert index(restore(bundle)) == index(protected)


def test_bad_options_are_refused() -> None:
    for bad in ({"keep": -1}, {"drop_useless": 0.6, "drop_leaky": 0.5}):
        with pytest.raises(InputError, match="together below 1"):
            PrivyNet(**bad)
    with pytest.raises(InputError, match="supervised, random, useful"):
        PrivyNet(choice="best")
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    split = trace(net.eval(), torch.zeros(2, 1, 8, 8)).split("1")
    with pytest.raises(InputError, match="privynet:keep=4"):
        PrivyNet(keep=6).install(split)
