"""Shredder: what is drawn, from which member, and what training does to each."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.defenses.base import Batch, Sample
from splitveil.lab.defenses.shredder import Shredder, laplace


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split_of() -> Split:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return trace(net, torch.zeros(2, 3, 8, 8)).split("1")


def installed(**options: float | int) -> Shredder:
    defense = Shredder(**options)  # type: ignore[arg-type]
    defense.install(split_of())
    return defense


def batch(z: Tensor) -> Batch:
    return Batch(torch.rand(len(z), 3, 8, 8), torch.zeros(len(z)), z, z, draws(len(z), 5), nn.Identity())


def test_normal_numbers_become_laplace_numbers_in_the_same_order() -> None:
    noise = draws(20_000)
    drawn = laplace(noise)
    assert stats.kstest(drawn.double().numpy(), "laplace").pvalue > 1e-3
    assert drawn[noise.argsort()].diff().min() > -1e-5
    assert laplace(torch.tensor([9.0])).isfinite().all()


def test_a_draw_has_the_values_of_a_fresh_sample_in_the_order_of_a_member() -> None:
    defense, noise = installed(collection=3), draws(8, 4, 4, 4)
    placed = defense.placed(noise).flatten(1)
    member = noise.flatten(1).argmax(1) * 3 // 64
    for got, own, k in zip(placed, noise.flatten(1), member.tolist(), strict=True):
        fresh = defense.location[k] + defense.width[k] * laplace(own)
        assert torch.allclose(got.sort().values, fresh.sort().values, atol=1e-6)
        assert torch.equal(got.argsort(), defense.own(k).argsort())


def test_every_member_is_used_alike_and_its_law_is_the_fit() -> None:
    defense = installed(collection=4)
    with torch.no_grad():
        for k in range(4):
            defense.own(k).copy_(10 * k + (k + 1) * laplace(draws(64, seed=k)))
    defense.finish(split_of())
    for k in range(4):
        location, width = stats.laplace.fit(defense.own(k).detach().double().numpy())
        assert defense.location[k].item() == pytest.approx(location, abs=0.2)
        assert defense.width[k].item() == pytest.approx(width, rel=0.02)
    centre = defense.placed(draws(4000, 4, 4, 4)).flatten(1).median(1).values
    used = torch.bincount((centre / 10).round().long(), minlength=4)
    assert stats.chisquare(used.numpy()).pvalue > 1e-3


def test_most_of_the_noise_is_the_member_and_not_the_draw() -> None:
    """The trap: order statistics of many numbers hardly vary, so that a known member is nearly a constant."""
    defense = installed(collection=1)
    with torch.no_grad():
        many = defense.placed(draws(500, 4, 4, 4))
    assert many.std(0).mean() < 0.35 * many.std()
    assert many.std(0).min() > 0.02


def test_an_adversary_knows_what_each_member_adds() -> None:
    defense, z = installed(collection=2), draws(1, 4, 4, 4)
    defense.calibrate(draws(16, 4, 4, 4))
    noise = draws(20_000, 4, 4, 4, seed=3)
    with torch.no_grad():
        sent = defense.apply_noise(z.expand(len(noise), -1, -1, -1), noise)
        laws = defense.laws(z)
    member = noise.flatten(1).argmax(1) * 2 // 64
    for k, (mean, deviation) in enumerate(laws):
        own = sent[member == k]
        assert ((own.mean(0) - mean[0]).abs() / deviation).max() < 5 / len(own) ** 0.5 + 0.02
        assert torch.allclose(own.std(0), deviation, rtol=0.1)


def test_scale_buys_nothing() -> None:
    one, ten = installed(), installed()
    z, noise = draws(16, 4, 4, 4), draws(16, 4, 4, 4, seed=5)
    one.calibrate(z)
    ten.calibrate(10 * z)
    assert torch.allclose(ten.apply_noise(10 * z, noise) / 10, one.apply_noise(z, noise), atol=1e-5)
    size = (one.apply_noise(z, noise) - z).square().mean().sqrt() / z.square().mean().sqrt()
    assert size.item() == pytest.approx(one.start, rel=0.25)


def test_calibration_and_study_leave_alone_what_they_must() -> None:
    defense, split = installed(), split_of()
    defense.study(split, Sample(torch.rand(4, 3, 8, 8), torch.zeros(4), 7))
    first = defense.own(0).detach().clone()
    defense.study(split, Sample(torch.rand(4, 3, 8, 8), torch.zeros(4), 8))
    assert not torch.equal(defense.own(0), first)
    defense.study(split, Sample(torch.rand(4, 3, 8, 8), torch.zeros(4), 7))
    assert torch.equal(defense.own(0), first)
    before = {k: v.clone() for k, v in defense.state_dict().items() if k != "scale"}
    defense.calibrate(5 * draws(16, 4, 4, 4))
    after = defense.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert after["scale"] > 4


def test_the_price_by_hand_and_its_decay_once_the_target_is_reached() -> None:
    defense, split, z = installed(weight=2.0, target=1.5), split_of(), draws(8, 4, 4, 4)
    assert defense.penalty(batch(z)).item() == 0
    defense.enter(split, defense.stages()[1])
    with torch.no_grad():
        defense.own(1).fill_(-1.0)
    assert defense.penalty(batch(z)).item() == pytest.approx(-2.0)
    assert defense.penalty(batch(z)).item() == pytest.approx(-2.0)
    with torch.no_grad():
        defense.own(1).fill_(-1.6)
    paid = [defense.penalty(batch(z)).item() for _ in range(3)]
    assert paid == pytest.approx([-2 * 1.6 * 0.98**k for k in (1, 2, 3)])
    defense.enter(split, defense.stages()[2])
    assert defense.left == 1


def test_a_member_trains_alone_grows_and_learns_where_noise_does_no_harm() -> None:
    defense, split = installed(collection=2, weight=2.0, start=1.0, target=1.4), split_of()
    z = split.edge(draws(256, 3, 8, 8)).detach()
    split.cloud.get_parameter("3.weight").data.mul_(20)
    y = split.cloud(z).argmax(1)
    defense.calibrate(z)
    defense.enter(split, defense.stages()[0])
    defense.train()
    other, begun = defense.own(1).detach().clone(), defense.own(0).detach().square().mean().sqrt()
    optimizer = torch.optim.Adam(defense.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        sent = defense(z)
        (F.cross_entropy(split.cloud(sent), y) + defense.penalty(batch(z))).backward()
        optimizer.step()
    defense.eval()
    defense.finish(split)
    learned = defense.own(0).detach()
    assert torch.equal(defense.own(1), other)
    assert learned.square().mean().sqrt() > 1.3 * begun
    with torch.no_grad():
        # The same law in the learned order and in any other.
        fresh = defense.width[0] * laplace(draws(64, seed=9)).sort().values + defense.location[0]
        harm = [
            F.cross_entropy(split.cloud(z + defense.scale * fresh[order].reshape(4, 4, 4)), y).item()
            for order in [defense.ranks[0].long(), *(draws(64, seed=s).argsort() for s in range(10, 20))]
        ]
    assert harm[0] < 0.2 * sum(harm[1:]) / 10


def test_the_noiseless_mean_and_bad_options() -> None:
    defense, z = installed(), draws(4, 4, 4, 4)
    assert torch.allclose(defense.mean(z) - z, defense.location.mean().expand_as(z), atol=1e-6)
    assert defense.spread(z) is None
    assert math.isclose(sum(s.share for s in defense.stages()), 1)
    for options in ({"collection": 0}, {"start": 0.0}, {"weight": -1.0}, {"target": 0.0}):
        with pytest.raises(InputError, match="expected"):
            Shredder(**options)
