from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch
from splitveil.lab.defenses.siftfunnel import channel_correlation
from splitveil.lab.export import save
from splitveil.lab.metrics.dependence import distance_correlation
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle


def split_at(channels: int, side: int, at: str = "1") -> Split:
    net = nn.Sequential(
        nn.Conv2d(3, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, 8, 3, 2, 1), nn.Flatten(),
        nn.Linear(8 * ((side + 1) // 2) ** 2, 10),
    )  # fmt: skip
    return trace(net, torch.zeros(2, 3, side, side)).split(at)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("spec", "channels", "side", "sent"),
    [
        ("siftfunnel:channels=12,pool=2", 64, 32, (12, 16, 16)),
        ("siftfunnel", 128, 32, (6, 32, 32)),
        ("siftfunnel:channels=4", 128, 16, (4, 16, 16)),
        ("siftfunnel", 16, 8, (4, 8, 8)),
    ],
)
def test_the_published_shapes_and_costs(spec: str, channels: int, side: int, sent: tuple[int, ...]) -> None:
    before = split_at(channels, side)
    split = DEFENSES.build(spec).install(before)
    x = torch.rand(2, 3, side, side)
    z = split.edge.eval()(x)
    assert z.shape[1:] == sent == split.cut.shape
    assert split.cloud.eval()(z).shape == (2, 10)
    assert split.cut.bytes_fp32 == 4 * z[0].numel() < before.cut.bytes_fp32
    assert split.cut.edge_params == sum(p.numel() for p in split.edge.parameters())
    assert split.cut.cloud_params == sum(p.numel() for p in split.cloud.parameters())
    assert split.cut.edge_macs > before.cut.edge_macs
    assert 0 < split.cut.edge_share < 1


def test_the_linear_limit_by_hand() -> None:
    z = draws(5, 3, 4, 4)
    wanted = torch.stack([torch.corrcoef(s.flatten(1)).square() for s in z])
    assert channel_correlation(z).item() == pytest.approx(wanted.mean().item(), rel=1e-5)
    pairs = ~torch.eye(3, dtype=torch.bool)
    without = channel_correlation(z, exclude_diagonal=True)
    assert without.item() == pytest.approx(wanted[:, pairs].mean().item(), rel=1e-5)
    assert channel_correlation(10 * z).item() == pytest.approx(channel_correlation(z).item(), rel=1e-5)


def test_dead_channels_are_rewarded_only_with_the_diagonal() -> None:
    """The loophole of the released code, and the option that closes it."""
    z = torch.cat([draws(5, 2, 4, 4), draws(5, 2, 4, 4).roll(1, 0)], 1)
    dead = z.clone()
    dead[:, 2:] = 0.7
    assert channel_correlation(dead) < 0.7 * channel_correlation(z)
    lone = draws(5, 1, 4, 4)
    alone, padded = lone, torch.cat([lone, torch.ones(5, 3, 4, 4)], 1)
    assert channel_correlation(padded).item() == pytest.approx(channel_correlation(alone).item() / 16)
    assert channel_correlation(padded, exclude_diagonal=True).item() == 0
    same = torch.cat([lone, lone], 1).requires_grad_(True)
    value = channel_correlation(same, exclude_diagonal=True)
    assert value.item() == pytest.approx(1)
    assert torch.autograd.grad(value, same)[0].isfinite().all()


def test_the_whole_loss_by_hand() -> None:
    defense, z = DEFENSES.build("siftfunnel"), draws(8, 4, 4, 4).relu()
    x, y, logits = draws(8, 3, 8, 8).sigmoid(), torch.arange(8) % 5, draws(8, 5)
    penalty = defense.penalty(Batch(x, y, z, z, logits, nn.Identity()))
    wanted = 0.03 * z.abs().mean() + 2 * distance_correlation(x, z) + 2 * channel_correlation(z)
    assert penalty.item() == pytest.approx(wanted.item(), rel=1e-5)
    target = torch.full((8, 5), 0.25 / 4)
    target[torch.arange(8), y] = 0.75
    divergence = 5 * F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
    entropy = -5 * (target[0] * target[0].log()).sum()
    assert defense.task_loss(logits, y).item() == pytest.approx((divergence + entropy).item(), rel=1e-5)


def test_the_second_stage_moves_the_cloud_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)
    seen: list[bool] = []
    model = load_model("small", shape=few.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *few.shape)).split("relu2")
    defense = DEFENSES.build("siftfunnel:refit=0.5")
    plain = defense.penalty

    def noted(batch: Batch) -> Tensor:
        seen.append(batch.z.requires_grad)
        return plain(batch)

    monkeypatch.setattr(defense, "penalty", noted)
    protected, history = protect(split, defense, "raw", few, epochs=2)
    assert len(history.losses) == 2
    per_epoch = -(-(256 - 25) // 32)
    assert seen == [True] * per_epoch, "the first epoch has penalties, the second none"
    assert protected.stage is None


def test_a_flat_cut_is_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 10))
    with pytest.raises(InputError, match="cut at a convolution"):
        DEFENSES.build("siftfunnel").install(trace(flat, torch.zeros(2, 3, 8, 8)).split("2"))
    with pytest.raises(InputError, match="pool of 1 or 2"):
        DEFENSES.build("siftfunnel:pool=3")


def cnn() -> nn.Module:
    """The published ``Classifier_4``: convolution, BatchNorm, pooling, ReLU, four times."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 64, 128, 256, 512)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 16, 10))


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
        for first in (inputs, outputs):
            layers += [nn.Conv2d(first, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 64, 10))


def published(net: str) -> Split:
    at = {"cnn": "7", "vgg": "13", "resnet18": "layer2"}[net]
    makers: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "vgg": vgg}
    model = makers[net]() if net in makers else load_model(net, shape=(3, 64, 64), classes=10, weights=None).model
    return trace(model, torch.zeros(2, 3, 64, 64)).split(at)


@pytest.mark.parametrize(
    ("net", "spec", "sent", "parameters", "before"),
    [
        ("cnn", "siftfunnel:channels=12", (12, 16, 16), 10_354, 76_032),
        ("resnet18", "siftfunnel", (6, 32, 32), 5_340, 675_392),
        ("vgg", "siftfunnel:channels=4,replace=0", (4, 16, 16), 267_410, 260_928),
        ("vgg", "siftfunnel:channels=4", (4, 16, 16), 41_506, 260_928),
    ],
)
def test_the_funnel_takes_the_place_of_the_last_stage(
    net: str, spec: str, sent: tuple[int, ...], parameters: int, before: int
) -> None:
    """The published shapes at 64x64; for the CNN the published edge half to the weight."""
    plain = published(net)
    split = DEFENSES.build(spec).install(plain)
    x = draws(2, 3, 64, 64)
    with torch.no_grad():
        z = split.edge(x)
        assert split.cloud(z).shape == (2, 10)
    assert tuple(z.shape[1:]) == sent == split.cut.shape
    assert (plain.cut.edge_params, split.cut.edge_params) == (before, parameters)
    assert sum(p.numel() for p in split.edge.parameters()) == parameters
    assert split.cut.cloud_params == sum(p.numel() for p in split.cloud.parameters())
    assert (split.cut.edge_macs < plain.cut.edge_macs) == ("replace=0" not in spec)
    assert split.cut.edge_peak_bytes <= plain.cut.edge_peak_bytes or "replace=0" in spec


def test_what_the_published_funnel_costs() -> None:
    """9.8 M multiply-accumulates in convolutions outside the attention, instead of 82.6 M."""
    plain = published("cnn")
    split = DEFENSES.build("siftfunnel:channels=12").install(plain)
    stem = 64 * 64 * 64 * 27
    down = 32 * 32 * 64 * 16 + 16 * 16 * 12 * (16 + 12 * (9 + 1 + 9 + 25))
    assert (stem + down) / 1e6 == pytest.approx(9.8, abs=0.05)
    assert plain.cut.edge_macs / 1e6 == pytest.approx(82.6, abs=0.05)
    gates = 98 * (32 * 32 + 2 * 64 * 32 + 16 * 16) + 4 * 64 + 2 * 36 + 4 * 24
    assert split.cut.edge_macs == stem + down + gates


def test_weights_before_the_funnel_are_the_models_own() -> None:
    plain = published("cnn")
    kept = plain.edge.state_dict()["0.weight"].clone()
    split = DEFENSES.build("siftfunnel").install(plain)
    own = split.edge.state_dict()
    assert torch.equal(next(v for k, v in own.items() if k.endswith("0.0.weight")), kept)
    assert not any(v.shape == (128, 64, 3, 3) for v in own.values()), "the second block is gone"


def test_a_bundle_brings_the_shorter_edge_back(tmp_path: Path) -> None:
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(128)), data.test.take(np.arange(64)), data.classes)
    split = trace(load_model("small", shape=few.shape, classes=10, weights=None).model, torch.zeros(2, *few.shape))
    protected, _ = protect(split.split("pool1"), "siftfunnel", "raw", few, epochs=1)
    assert not any(k.endswith("conv2.weight") for k in protected.split.edge.state_dict())
    save(protected, tmp_path / "b", name="b", model_spec="small", image_shape=few.shape, classes=few.classes)
    again = restore(Bundle.load(tmp_path / "b"))
    x = torch.rand(2, *few.shape)
    with torch.no_grad():
        assert torch.allclose(again(x), protected(x), atol=1e-6)
    assert again.split.cut == protected.split.cut


def test_replacing_needs_a_stage_to_replace() -> None:
    with pytest.raises(InputError, match="replace=0"):
        DEFENSES.build("siftfunnel:replace=1").install(split_at(8, 8))
    unknown = published("cnn")
    unknown.image = ()
    assert DEFENSES.build("siftfunnel").install(unknown).cut.edge_params > 76_032
