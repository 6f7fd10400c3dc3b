import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError, ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.completion import DIFFUSION, ModelCompletion, neighbours, solve, spread
from splitveil.lab.attacks.view import Knows

from .conftest import Make, labels


class OneHot(nn.Module):
    """The label and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(labels(x * 255), 2).float()


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 8, 4, 4) + 0 * x.mean()


class Blurred(nn.Module):
    """The label among as much that has nothing to do with it."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 12 * (x[:, :1].mean((1, 2, 3)) - 0.5)
        return torch.stack([bright, x[:, 1].mean((1, 2)), x[:, 2].mean((1, 2))], 1)


def clouds(n: int, apart: float) -> tuple[Tensor, Tensor]:
    """Two clouds of points: (n, 6), and which each is of."""
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    return torch.randn(n, 6, generator=draws) + apart * (2 * y[:, None] - 1), y


def scores(make_view: Make, edge: nn.Module, scale: float = 1.0, sigma: float = 0.0) -> tuple[Tensor, Tensor]:
    view, truth = make_view(edge, scale=scale, sigma=sigma)
    return ModelCompletion()(view, view.aux.y, 2).scores, labels(truth * 255)


def test_a_label_that_crosses_is_stolen_with_few(make_view: Make) -> None:
    found, truth = scores(make_view, OneHot())
    assert (found.argmax(1) == truth).all()


def test_a_constant_gives_chance(make_view: Make) -> None:
    found, truth = scores(make_view, Constant())
    hits = (found.argmax(1) == truth).float().mean().item()
    commonest = truth.bincount().max().item() / len(truth)
    assert hits <= max(commonest, 0.75)
    assert found.max().item() < 0.75


def test_scaling_the_features_changes_nothing(make_view: Make) -> None:
    (one, truth), (ten, _) = scores(make_view, Blurred()), scores(make_view, Blurred(), scale=10.0)
    assert (one.argmax(1) == truth).float().mean() > 0.7
    assert torch.allclose(one, ten, atol=1e-3)


def test_runs_repeat_and_read_a_random_defence_several_times(make_view: Make) -> None:
    first, _ = scores(make_view, Blurred(), sigma=0.1)
    torch.rand(7)
    view, _ = make_view(Blurred(), sigma=0.1)
    assert torch.equal(first, ModelCompletion()(view, view.aux.y, 2).scores)
    assert view.observed >= 2 * len(view.aux)


def test_it_uses_no_label_beyond_the_few(make_view: Make) -> None:
    view, _ = make_view(Blurred())
    attack = ModelCompletion(per_class=3)
    few, others = attack._chosen(view.aux.y, torch.Generator().manual_seed(0))
    assert view.aux.y[few].bincount().tolist() == [3, 3]
    assert not set(few.tolist()) & set(others.tolist())
    assert len(few) + len(others) == len(view.aux)


def test_without_two_labelled_classes_the_scores_are_their_shares(make_view: Make) -> None:
    view, _ = make_view(OneHot())
    for known, expected in ((torch.full_like(view.aux.y, -1), [0.0, 0.0]), (torch.ones_like(view.aux.y), [0.0, 1.0])):
        assert ModelCompletion()(view, known, 2).scores[3].tolist() == expected


def test_neighbours_are_the_nearest_by_cosine_and_never_oneself() -> None:
    points, _ = clouds(40, 1.0)
    index, similarity = neighbours(points, 5)
    cosines = nn.functional.cosine_similarity(points[:, None], points[None], dim=2).fill_diagonal_(-2)
    assert torch.allclose(similarity, cosines.sort(1, descending=True).values[:, :5], atol=1e-5)
    assert torch.allclose(cosines.gather(1, index), similarity, atol=1e-5)


def test_conjugate_gradients_solve_the_diffusion() -> None:
    raw = torch.rand(30, 30, generator=torch.Generator().manual_seed(0))
    raw = (raw + raw.T).fill_diagonal_(0)
    scale = raw.sum(1).rsqrt()
    graph, start = scale[:, None] * raw * scale, torch.eye(30, 3)
    exact = torch.linalg.solve(torch.eye(30) - DIFFUSION * graph, start)
    assert torch.allclose(solve(graph.to_sparse(), start), exact, atol=1e-3)


def test_labels_spread_within_clouds_and_doubt_grows_as_they_meet() -> None:
    doubts = []
    for apart in (2.0, 0.5, 0.0):
        points, y = clouds(200, apart)
        found = spread(*neighbours(points, 10), y[:8], 2)
        assert torch.allclose(found.shares.sum(1), torch.ones(200), atol=1e-4)
        if apart == 2.0:
            assert (found.shares.argmax(1) == y).all()
        doubts.append(found.doubt)
    assert doubts[0] < doubts[1] < doubts[2]


def test_needs_and_options(make_view: Make) -> None:
    view, _ = make_view(OneHot(), knows=Knows.QUERIES)
    with pytest.raises(ThreatModelError, match="AUX"):
        ModelCompletion()(view, torch.zeros(3, dtype=torch.long), 2)
    with pytest.raises(InputError, match="use completion:per_class=4"):
        ATTACKS.build("completion:per_class=0")
