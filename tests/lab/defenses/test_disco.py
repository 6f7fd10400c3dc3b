import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch, Guess, Protected
from splitveil.lab.defenses.disco import DISCO, TEMPERATURE
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.wire.codecs import CODECS


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split_of(channels: int = 10) -> Split:
    net = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 16, 5))
    return trace(net, torch.zeros(2, 3, 8, 8)).split("1")


def installed(defense: DISCO, split: Split | None = None) -> DISCO:
    torch.manual_seed(0)
    defense.install(split or split_of())
    return defense


def test_it_drops_the_share_it_says_and_leaves_the_rest_alone() -> None:
    defense, z = installed(DISCO(ratio=0.6)), draws(32, 10, 4, 4) + 2
    sent = defense(z)
    gone = (sent == 0).flatten(2).all(2)
    assert (gone.sum(1) == 6).all()
    assert torch.allclose(sent[~gone], z[~gone], atol=1e-5)
    assert len({tuple(row.tolist()) for row in gone}) > 1, "the choice depends on the image"


def test_the_published_gate_by_hand_and_what_it_leaves_behind() -> None:
    soft, hard = installed(DISCO(ratio=0.5, hard=False)), installed(DISCO(ratio=0.5))
    z = draws(4, 10, 4, 4) + 2
    assert soft.pruner is not None
    scores = soft.pruner(z)
    threshold = scores.sort(1, descending=True).values[:, 4:5]
    assert torch.allclose(soft.gate(z), torch.sigmoid((scores - threshold) / TEMPERATURE), atol=1e-6)
    dropped = hard.gate(z) == 0
    left = (soft(z) / z)[dropped]
    assert (left > 0).all(), "a soft gate only makes them smaller"
    assert (hard(z)[dropped] == 0).all()


def test_scaling_the_features_buys_nothing() -> None:
    one, ten, z = installed(DISCO()), installed(DISCO()), draws(16, 10, 4, 4)
    one.calibrate(z)
    ten.calibrate(10 * z)
    assert torch.allclose(ten(10 * z) / 10, one(z), atol=1e-5)


def test_the_reward_ends_at_the_mean_image() -> None:
    defense, h = installed(DISCO(alpha=0.5, aim=1.0)), draws(8, 10, 4, 4)
    x, y = draws(8, 3, 8, 8, seed=3).sigmoid(), torch.zeros(8, dtype=torch.long)

    def paid(guess: Tensor | None) -> float:
        told = None if guess is None else lambda _: Guess(guess)
        return defense.penalty(Batch(x, y, h, h, draws(8, 5), nn.Identity(), told)).item()

    mean = x.mean(0).expand_as(x)
    assert paid(x) == pytest.approx(1)
    assert paid((x + mean) / 2) == pytest.approx(0.75, rel=1e-4)
    assert paid(mean) == pytest.approx(0, abs=1e-5)
    assert paid(1 - x) == paid(5 + x) == paid(None) == 0


def test_the_edge_learns_from_the_task_alone_and_the_pruner_from_both() -> None:
    split = split_of()
    defense = installed(DISCO(alpha=0.5, aim=100.0), split)
    protected = Protected(split, defense, CODECS.build("raw"))
    x, y = draws(6, 3, 8, 8, seed=3).sigmoid(), torch.arange(6) % 5

    def slopes() -> dict[str, Tensor]:
        protected.zero_grad()
        protected.loss(x, y).backward()
        named = {k: v for k, v in protected.named_parameters() if not k.startswith("rival")}
        return {k: v.grad.clone() for k, v in named.items() if v.grad is not None}

    alone = slopes()
    protected.rival = defense.adversary(split.cut.shape, (3, 8, 8), 5)
    beside = slopes()
    for name, slope in alone.items():
        same = torch.allclose(slope, beside[name], atol=1e-7)
        assert same == (not name.startswith("defense.pruner")), name


def test_it_drops_what_the_task_does_not_need() -> None:
    """The task asks for the values of half of the channels: the pruner learns to keep those."""
    defense = installed(DISCO(ratio=0.5, alpha=0.0))
    optimizer = torch.optim.Adam(defense.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        z = torch.randn(64, 10, 4, 4, generator=generator)
        optimizer.zero_grad()
        F.mse_loss(defense(z)[:, :5], z[:, :5]).backward()
        optimizer.step()
    assert (defense.gate(z)[:, :5] > 0.5).float().mean() > 0.9


@pytest.mark.parametrize("cut", [(7, 5, 5), (9, 6), (12,)])
def test_any_cut_has_channels(cut: tuple[int, ...]) -> None:
    split = split_of()
    split.cut = split.cut.model_copy(update={"shape": cut})
    defense = installed(DISCO(ratio=0.5), split)
    z = draws(3, *cut) + 3
    channels = cut[1] if len(cut) == 2 else cut[0]
    assert (defense.gate(z) > 0.5).sum(1).tolist() == [channels - round(channels / 2)] * 3
    assert defense(z).shape == z.shape


def test_it_trains_on_digits() -> None:
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(512)), data.test.take(np.arange(64)), data.classes)
    model = load_model("small", shape=few.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *few.shape)).split("relu2")
    before = DISCO(ratio=0.75)
    protected, history = protect(split, before, "raw", few, epochs=4)
    assert history.scores[-1] > 0.5
    assert protected.defense.spread(torch.zeros(1, 48, 8, 8)) is not None


def test_bad_options_and_no_weights_are_refused() -> None:
    for spec in ("ratio=1", "alpha=1", "aim=-1"):
        with pytest.raises(InputError, match="use disco"):
            DEFENSES.build(f"disco:{spec}")
    with pytest.raises(InputError, match="install it"):
        DISCO()(draws(2, 4, 4, 4))
