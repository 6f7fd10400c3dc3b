import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.cut import Split, trace
from splitveil.data import Dataset, load_data
from splitveil.defenses import DEFENSES
from splitveil.defenses.base import Batch
from splitveil.defenses.siftfunnel import channel_correlation
from splitveil.errors import InputError
from splitveil.metrics.dependence import distance_correlation
from splitveil.models.loader import load_model
from splitveil.protection import protect


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
