import pytest
import torch
from torch import nn

from splitveil.lab.attacks.parts.generator import Generator
from splitveil.lab.attacks.parts.latents import LatentSearch, LatentTarget
from splitveil.lab.attacks.parts.likelihood import Likelihood
from splitveil.lab.attacks.view import View

from .conftest import Make


def search(view: View) -> LatentSearch:
    torch.manual_seed(0)
    generator = Generator((3, 16, 16), torch.full((3, 16, 16), 0.5), width=8, blocks=1).requires_grad_(False)
    units = [torch.ones(generator.length), *(torch.tensor(0.1) for _ in generator.shifts)]
    return LatentSearch(Likelihood(view, 1), generator, units)


def target(found: LatentSearch, count: int = 3) -> LatentTarget:
    with torch.no_grad():
        z = found.net(torch.randn(count, found.net.length)).clamp(0, 1)
    return LatentTarget(z, torch.zeros(count, found.net.length), torch.zeros_like(z))


def test_descent_comes_nearer_in_features_and_keeps_its_best(make_view: Make) -> None:
    found = search(make_view(nn.Identity())[0])
    wanted = target(found)
    start = (torch.zeros_like(wanted.w),)
    point = found.descend(wanted, start, torch.zeros(3, 2), 40)
    before = found.likelihood.to(wanted.z)(found.image(wanted, start))
    assert (found.likelihood.to(wanted.z)(found.image(wanted, point)) < 0.3 * before).all()
    assert found.blind(wanted) == 0
    assert len(point) == 1


def test_freed_inputs_reach_images_that_no_latent_gives(make_view: Make) -> None:
    view, truth = make_view(nn.Identity())
    found = search(view)
    wanted = LatentTarget(view.z, torch.zeros(len(truth), found.net.length), torch.zeros_like(truth))
    start = (wanted.w, *(wanted.w.new_zeros(len(truth), *shape) for shape in found.net.shifts))
    bound = found.descend(wanted, start[:1], torch.zeros(len(truth), 2), 60)
    freed = found.descend(wanted, start, torch.zeros(len(truth), 2), 60)
    far = [float(found.likelihood.to(view.z)(found.image(wanted, p)).mean()) for p in (bound, freed)]
    assert far[1] < 0.5 * far[0]


def test_a_heavy_prior_stays_where_it_is_centred(make_view: Make) -> None:
    found = search(make_view(nn.Identity())[0])
    wanted = target(found)
    (u,) = found.descend(wanted, (torch.zeros_like(wanted.w),), torch.full((3, 2), 1e6), 20)
    assert u.abs().max() == 0


def test_images_do_not_depend_on_who_shares_their_batch(make_view: Make) -> None:
    found = search(make_view(nn.Identity())[0])
    wanted = target(found)
    (together,) = found.descend(wanted, (torch.zeros_like(wanted.w),), torch.zeros(3, 2), 5)
    one = wanted.part(slice(1, 2))
    (alone,) = found.descend(one, (torch.zeros_like(one.w),), torch.zeros(1, 2), 5)
    assert torch.allclose(together[1], alone[0], atol=0.02)
    assert [len(part.z) for part in wanted.split(2)] == [2, 1]
    assert len(wanted.repeat(3).z) == 9


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_distance_is_relative(scale: float, make_view: Make) -> None:
    plain, scaled = search(make_view(nn.Identity())[0]), search(make_view(nn.Identity(), scale=scale)[0])
    x, z = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert torch.allclose(plain.likelihood.to(z)(x), scaled.likelihood.to(z * scale)(x), rtol=1e-4)


def test_dead_gradients_are_counted(make_view: Make) -> None:
    class Step(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0.5).float() + 0 * x

    found = search(make_view(Step())[0])
    assert found.blind(target(found)) == 3
