from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.metrics import METRICS
from splitveil.lab.metrics.perceptual import ALEX_WIDTHS, LPIPS, FeatureMaps, deep_distance, deep_embedding, lpips
from splitveil.lab.vision import torchvision

DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(4, 3, 16, 16, generator=DRAWS)
Y = torch.rand(4, 3, 16, 16, generator=DRAWS)


class Net(nn.Module):
    """Normalisation, two stages and a head; its maps have sizes 16, 8 and 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normalize = nn.Identity()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.stage2(self.stage1(self.normalize(x)))).flatten(1))
        return out


def files(folder: Path, suffix: str = ".safetensors") -> tuple[Path, Path]:
    """AlexNet with random weights, and random heads."""
    draws = torch.Generator().manual_seed(1)
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    trunk = {"classifier.6.bias": torch.zeros(3)}
    for k, (out, inputs, side) in shapes.items():
        weight = torch.randn(out, inputs, side, side, generator=draws) * (2 / (inputs * side**2)) ** 0.5
        trunk |= {f"features.{k}.weight": weight, f"features.{k}.bias": 0.1 * torch.randn(out, generator=draws)}
    heads = {f"alex.lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=draws) for i, w in enumerate(ALEX_WIDTHS)}
    places = folder / f"trunk{suffix}", folder / f"heads{suffix}"
    for tensors, place in zip((trunk, heads), places, strict=True):
        save_file(tensors, place) if suffix == ".safetensors" else torch.save(tensors, place)
    return places


def test_depths_are_the_ends_of_the_stages() -> None:
    net = Net()
    assert FeatureMaps(net).chosen(X[:1]) == ("stage1", "stage2", "pool")
    assert FeatureMaps(net, depths=1).chosen(X[:1]) == ("pool",)
    assert [tuple(z.shape) for z in FeatureMaps(net, at=["stage2"])(X)] == [(4, 12, 8, 8)]


def test_deep_distance_by_hand() -> None:
    net = Net().eval()
    found = deep_distance(net, "net", at=["stage1", "stage2"])(X, Y)
    expected = torch.zeros(4)
    with torch.no_grad():
        for a, b in ((net.stage1(X), net.stage1(Y)), (net.stage2(net.stage1(X)), net.stage2(net.stage1(Y)))):
            one = nn.functional.cosine_similarity(a, b, dim=1)
            dead = (a.square().sum(1) == 0).float() + (b.square().sum(1) == 0).float()
            expected += (2 - 2 * one - dead).mean((1, 2)) / 2
    assert torch.allclose(found, expected, atol=1e-5)


def test_deep_distance_is_zero_for_equal_images_and_does_not_know_the_batch() -> None:
    metric = deep_distance(Net(), "net")
    assert metric.name == "deep@net"
    assert metric(X, X).tolist() == [0.0] * 4
    whole = metric(X, Y)
    assert (whole > 0).all()
    assert torch.allclose(whole, torch.cat([metric(X[i : i + 1], Y[i : i + 1]) for i in range(4)]), atol=1e-6)


def test_the_embedding_has_the_distance_of_the_deepest_map() -> None:
    net = Net()
    apart = (deep_embedding(net, X) - deep_embedding(net, Y)).square().sum(1)
    assert torch.allclose(apart, deep_distance(net, "net", at=["pool"])(X, Y), atol=1e-5)


def test_networks_that_cannot_be_looked_into() -> None:
    with pytest.raises(InputError, match="got stage9; choose"):
        deep_distance(Net(), "net", at=["stage9"])
    with pytest.raises(InputError, match="without any map"):
        deep_distance(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "flat")(X, Y)
    with pytest.raises(InputError, match="got none from head"):
        deep_distance(Net(), "net", at=["head"])(X, Y)


def test_lpips_by_hand(tmp_path: Path) -> None:
    """sum_l mean_hw sum_c w_lc (a_c - b_c)^2 of unit vectors, images in [-1, 1] brought to ImageNet's statistics."""
    trunk, heads = files(tmp_path)
    metric = METRICS.build(f"lpips:backbone_weights={trunk},lin_weights={heads}")
    x, y = (torch.rand(2, 3, 40, 36, generator=DRAWS) for _ in range(2))
    from safetensors.torch import load_file

    w, h = load_file(trunk), load_file(heads)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def maps(t: Tensor) -> list[Tensor]:
        z = (2 * t - 1 - shift[:, None, None]) / scale[:, None, None]
        found = []
        for place, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if place in (3, 6):
                z = nn.functional.max_pool2d(z, 3, 2)
            z = nn.functional.conv2d(z, w[f"features.{place}.weight"], w[f"features.{place}.bias"], stride, padding)
            z = z.relu()
            found.append(z)
        return found

    expected = torch.zeros(2)
    for i, (a, b) in enumerate(zip(maps(x), maps(y), strict=True)):
        a, b = nn.functional.normalize(a, dim=1), nn.functional.normalize(b, dim=1)
        for n in range(2):
            weighted = (h[f"alex.lin{i}.model.1.weight"][0] * (a[n] - b[n]).square()).sum(0)
            expected[n] += weighted.mean()
    assert torch.allclose(metric(x, y), expected, rtol=1e-4)
    assert metric(x, x).tolist() == [0.0] * 2


def test_lpips_equals_torchmetrics(tmp_path: Path) -> None:
    torchvision()
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        reference = _LPIPS(net="alex", pnet_rand=True)
    slices = [getattr(reference.net, f"slice{i}") for i in range(1, 6)]
    trunk = {f"features.{k}": v for part in slices for k, v in part.state_dict().items()}
    heads = {f"lin{i}.model.1.weight": next(layer.parameters()) for i, layer in enumerate(reference.lins)}
    x, y = (torch.rand(3, 3, 64, 64, generator=DRAWS) for _ in range(2))
    expected = reference(x, y, normalize=True).flatten()
    assert torch.allclose(LPIPS(trunk, heads)(x, y), expected, rtol=1e-2)


def test_grey_images_are_three_equal_channels(tmp_path: Path) -> None:
    metric = lpips(*files(tmp_path, ".pth"))
    x, y = (torch.rand(2, 1, 32, 32, generator=DRAWS) for _ in range(2))
    assert torch.allclose(metric(x, y), metric(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match=r"at least 31 .*\?size="):
        metric(X, Y)


def test_files_decide_the_state_and_bad_ones_are_refused(tmp_path: Path) -> None:
    trunk, heads = files(tmp_path)
    metric = lpips(trunk, heads)
    assert metric.state == lpips(trunk, heads).state != ""
    with pytest.raises(InputError, match=r"cannot read .*missing.pth.*; give"):
        lpips(tmp_path / "missing.pth", heads)
    with pytest.raises(InputError, match=r"expected lin0.model.1.weight \(1, 64, 1, 1\), got none"):
        lpips(trunk, trunk)
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not a file of tensors")
        with pytest.raises(InputError, match=name):
            lpips(trunk, tmp_path / name)
    torch.save({"net": Net()}, tmp_path / "pickle.pth")
    with pytest.raises(InputError, match=r"Python objects"):
        lpips(tmp_path / "pickle.pth", heads)
