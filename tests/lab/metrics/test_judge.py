import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.metrics.judge import Judge, adapt, agreement, confidence, correct

DRAWS = torch.Generator().manual_seed(0)


class Bright(nn.Module):
    """Two classes by the mean grey, with BatchNorm to see whether its statistics stay."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-20.0], [20.0]]))
            self.head.bias.copy_(torch.tensor([10.0, -10.0]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(x).mean((2, 3)))
        return out


def images(dark: float, bright: float, n: int = 60) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 2
    x = torch.where(y == 1, bright, dark)[:, None, None, None] + 0.05 * torch.rand(n, 1, 4, 4, generator=DRAWS)
    return x, y


def test_what_a_judge_says() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
    q = torch.tensor([[0.4, 0.5, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]])
    y = torch.tensor([0, 2, 2])
    assert correct(p, y).tolist() == [1, 0, 1]
    assert confidence(p, y).tolist() == pytest.approx([0.7, 0.4, 0.4])
    assert agreement(p, q).tolist() == [0, 1, 1]


def test_probabilities_do_not_depend_on_the_batch() -> None:
    judge, (x, y) = Judge(Bright().train(), "bright"), images(0.2, 0.8, 300)
    whole = judge.probabilities(x)
    assert whole.dtype == torch.float64
    assert torch.allclose(whole.sum(1), torch.ones(300, dtype=torch.float64))
    assert torch.allclose(whole[7:9], judge.probabilities(x[7:9]), atol=1e-6)
    assert correct(whole, y).mean() == 1


def test_an_adapted_judge_reads_what_the_first_one_could_not() -> None:
    """Reconstructions that are all dark: the judge of clean images sees one class, an adapted one both."""
    judge = Judge(Bright(), "bright", "by hand")
    x, y = images(0.1, 0.3)
    before = {k: v.clone() for k, v in judge.net.state_dict().items()}
    assert correct(judge.probabilities(x), y).mean() == 0.5
    first, second = (adapt(judge, x, y, epochs=60, lr=0.2, seed=3) for _ in range(2))
    other_x, other_y = images(0.1, 0.3)
    assert correct(first.probabilities(other_x), other_y).mean() > 0.9
    assert all(torch.equal(v, before[k]) for k, v in judge.net.state_dict().items()), "the judge itself is left alone"
    assert torch.equal(first.net.norm.running_mean, before["norm.running_mean"])  # type: ignore[arg-type, union-attr]
    assert torch.equal(first.probabilities(x), second.probabilities(x)), "the seed decides"
    assert first.name == "adapted bright"


def test_bad_input() -> None:
    p, x = torch.full((2, 3), 1 / 3), torch.rand(2, 1, 4, 4)
    with pytest.raises(InputError, match="labels from 0 to 2, got 0 to 3"):
        correct(p, torch.tensor([0, 3]))
    with pytest.raises(InputError, match="one label an image"):
        confidence(p, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="as many guesses as inputs"):
        agreement(p, p[:1])
    with pytest.raises(InputError, match="from the judge flat"):
        Judge(nn.Identity(), "flat").probabilities(x)
    with pytest.raises(InputError, match="one label an image"):
        adapt(Judge(Bright(), "bright"), x, torch.zeros(3, dtype=torch.int64))
