"""The search's objective against random defences: exact where the noise is known, averaged where it is not."""

import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.likelihood import Likelihood, laws
from splitveil.lab.attacks.repeat import Averaged
from splitveil.lab.attacks.view import Knows, View


class Loud(nn.Module):
    """Adds noise whose size differs between features, and can tell."""

    def __init__(self, *, tells: bool) -> None:
        super().__init__()
        self.sizes = torch.tensor([0.1, 1.0, 10.0])
        self.tells = tells

    def expected(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        return (2 * z, self.sizes) if self.tells else None

    def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(2 * z, self.sizes)] if self.tells else []

    def forward(self, z: Tensor) -> Tensor:
        return 2 * z + self.sizes * torch.randn_like(z)


class Edge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def view_of(defense: nn.Module) -> View:
    grants = Knows.WEIGHTS | Knows.DEFENSE
    return View(torch.zeros(4, 3), (1, 1, 3), knows=grants, edge=Edge(), defense=defense, stochastic=True)


def test_known_noise_needs_no_draws_and_loud_features_count_less() -> None:
    likelihood = Likelihood(view_of(Loud(tells=True)), draws=4)
    x = torch.tensor([[0.3, 0.5, 0.9]]).reshape(1, 1, 1, 3)
    assert torch.equal(likelihood.features(x)[0][0], 2 * x.flatten(1))
    z = torch.tensor([[1.0, 0.0, -1.0]])
    distance = likelihood.to(z)
    # An error where noise is slight counts nearly a hundred times one where it is louder by ten.
    base = distance(z.reshape(1, 1, 1, 3) / 2)
    moved = [distance((z + 0.1 * torch.eye(3)[k]).reshape(1, 1, 1, 3) / 2) - base for k in range(3)]
    assert base.item() == 0
    variance, middle = torch.tensor([0.01, 1.0, 100.0]), 101.01 / 3
    wanted = middle / (variance + 0.01 * middle)
    assert torch.allclose(torch.stack(moved).flatten() / moved[0], wanted / wanted[0], rtol=1e-3)


def test_noise_that_depends_on_the_input_is_taken_at_the_guess_and_draws_no_guess_to_itself() -> None:
    class Relative(nn.Module):
        def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
            return [(z, z.abs())]

        def forward(self, z: Tensor) -> Tensor:
            return z + z.abs() * torch.randn_like(z)

    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3).requires_grad_(True)
    z = torch.tensor([[1.5, 2.5, 2.0]])
    found = Likelihood(view_of(Relative()), draws=4).to(z)(x)
    variance, middle = torch.tensor([1.0, 4.0, 9.0]), 14 / 3
    weight = middle / (variance + 0.01 * middle)
    error, power = torch.tensor([-0.5, -0.5, 1.0]), torch.tensor([-0.5, 0.5, 0.0])
    assert torch.allclose(found, (weight * error**2).sum() / (weight * power**2).sum())
    slope = torch.autograd.grad(found.sum(), x)[0].flatten()
    assert torch.allclose(slope, 2 * weight * error / (weight * power**2).sum())


def test_unknown_noise_is_averaged_over_draws() -> None:
    likelihood = Likelihood(view_of(Loud(tells=False)), draws=4)
    assert likelihood.averaged == 4
    x = torch.zeros(1, 1, 1, 3)
    many = torch.stack([likelihood.features(x)[0][0] for _ in range(400)])
    assert torch.allclose(many.std(0)[0], torch.tensor([0.05, 0.5, 5.0]), rtol=0.2)


def test_a_mean_of_crossings_is_less_noisy() -> None:
    ((mean, deviation),) = laws(Averaged(Loud(tells=True), 4), torch.ones(2, 3))
    assert torch.allclose(mean, torch.full((2, 3), 2.0))
    assert torch.allclose(deviation, torch.tensor([0.05, 0.5, 5.0]))
    assert not laws(Averaged(Loud(tells=False), 4), torch.ones(2, 3))


def test_of_several_laws_the_nearest_counts() -> None:
    class Either(nn.Module):
        def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
            return [(z, torch.ones(3)), (z + 5, torch.ones(3))]

        def forward(self, z: Tensor) -> Tensor:
            return z

    x = torch.tensor([0.1, 0.4, 0.8])
    likelihood = Likelihood(view_of(Either()), draws=4)
    for shift in (0.0, 5.0):
        assert likelihood.to((x + shift)[None])(x.reshape(1, 1, 1, 3)).item() < 1e-9
