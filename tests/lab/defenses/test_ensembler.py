import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch, Sample
from splitveil.lab.defenses.ensembler import Apart, Ensemble, Ensembler, likeness
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(512)), data.test.take(np.arange(64)), data.classes)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh() -> Split:
    torch.manual_seed(0)
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    return trace(model, torch.zeros(2, 1, 8, 8)).split("relu2")


def studied(defense: Ensembler, seed: int = 0) -> Split:
    split = defense.install(fresh())
    x = draws(16, 1, 8, 8).sigmoid()
    defense.study(split, Sample(x, torch.zeros(16, dtype=torch.long), seed))
    with torch.no_grad():
        defense.calibrate(split.edge(x))
    return split


def ensemble(split: Split) -> Ensemble:
    assert isinstance(split.cloud, Ensemble)
    return split.cloud


def test_the_answer_is_the_mean_of_the_chosen_and_costs_what_all_cost() -> None:
    plain, split = fresh(), studied(Ensembler(nets=4, chosen=2))
    cloud, z = ensemble(split), draws(5, 48, 8, 8)
    with torch.no_grad():
        for body in cloud.bodies:
            for weight in body.parameters():
                weight.add_(0.1 * torch.randn(weight.shape))
        chosen = cloud.shares.nonzero()[:, 0].tolist()
        wanted = (cloud.bodies[chosen[0]](z) + cloud.bodies[chosen[1]](z)) / 2
        assert torch.allclose(cloud(z), wanted, atol=1e-5)
        cloud.only = tuple(chosen)
        assert torch.allclose(cloud(z), wanted, atol=1e-5)
    assert len(chosen) == 2
    assert split.cut.cloud_params == sum(p.numel() for p in cloud.parameters()) == 4 * plain.cut.cloud_params
    assert split.cut.cloud_macs == 4 * plain.cut.cloud_macs
    assert split.cut.edge_params == plain.cut.edge_params
    assert split.cut.edge_share < plain.cut.edge_share


def test_the_choice_and_the_fixed_noise_are_the_seeds() -> None:
    made = [Ensembler(nets=6, chosen=3) for _ in range(3)]
    shares = [ensemble(studied(defense, seed)).shares for defense, seed in zip(made, (0, 0, 1), strict=True)]
    assert torch.equal(shares[0], shares[1])
    assert not torch.equal(shares[0], shares[2])
    assert torch.equal(made[0].secret, made[1].secret)
    assert not torch.equal(made[0].secret, made[2].secret)


def test_single_nets_learn_each_from_its_part_with_its_own_noise() -> None:
    defense = Ensembler(nets=4, chosen=2, fixed=0.5)
    split = studied(defense)
    apart = defense.enter(split, defense.stages()[0])
    assert isinstance(apart.edge, Apart)
    x = draws(10, 1, 8, 8).sigmoid()
    with torch.no_grad():
        shift = apart.edge(x) - split.edge(x)
        assert apart.cloud(apart.edge(x)).shape == (10, 10)
        assert apart.edge(x[:3]).shape[0] == 3, "fewer images than nets"
        size = 0.5 * split.edge(draws(16, 1, 8, 8).sigmoid()).flatten(1).norm(dim=1).median() / shift[0].numel() ** 0.5
    assert torch.allclose(shift[0], shift[2], atol=1e-5)
    assert not torch.allclose(shift[2], shift[3], atol=1e-2), "the second net begins after three images of ten"
    assert shift[0].std().item() == pytest.approx(size.item(), rel=0.05)
    assert (defense.secret == 0).all(), "the device's own noise comes with the device's own edge"


def test_likeness_by_hand_and_whatever_the_scale() -> None:
    h, same = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    square = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert likeness(h, [square]).item() == pytest.approx(0.5**0.5 / 2)
    assert likeness(h, [square, same]).item() == pytest.approx(1)
    assert likeness(100 * h, [square]).item() == pytest.approx(0.5**0.5 / 2)
    assert likeness(h, [-h]).item() == 0, "no reward beyond being another"


def test_the_edge_that_ships_differs_from_those_of_the_single_nets(digits: Dataset) -> None:
    x = torch.from_numpy(digits.train.x[:64]).float() / 255
    left = []
    for weight in (0.0, 0.3):
        singles: list[nn.Module] = []
        defense = Ensembler(nets=2, chosen=2, weight=weight, fixed=0.1)
        split = fresh()

        def finish(split: Split, defense: Ensembler = defense, kept: list[nn.Module] = singles) -> Split:
            kept.extend(defense._others)
            return Ensembler.finish(defense, split)

        defense.finish = finish  # type: ignore[method-assign]
        protected, history = protect(split, defense, "raw", digits, epochs=12)
        with torch.no_grad():
            left.append(likeness(protected.split.edge(x), [edge(x) for edge in singles]).item())
        assert len(history.losses) == 12
        assert history.scores[-1] > 0.3
    assert left[1] < left[0] - 0.08, left


def test_nothing_of_the_single_nets_ships(digits: Dataset) -> None:
    defense = Ensembler(nets=3, chosen=1)
    protected, _ = protect(fresh(), defense, "raw", digits)
    assert set(defense.state_dict()) == {"radius", "secret"}
    assert protected.split.edge.state_dict().keys() == fresh().edge.state_dict().keys()
    assert not any("nets" in key for key in protected.state_dict())


def test_the_penalty_moves_the_edge_alone() -> None:
    defense = Ensembler(nets=2, chosen=1, weight=2.0)
    split = studied(defense)
    nets, joint = defense.stages()
    ready = defense.enter(defense.enter(split, nets), joint)
    assert ready is split
    x = draws(6, 1, 8, 8).sigmoid()
    h = split.edge(x)
    penalty = defense.penalty(Batch(x, torch.zeros(6).long(), h, h, draws(6, 10), split.edge))
    assert penalty.item() == pytest.approx(2, rel=1e-4), "the new edge begins as the single one did"
    assert joint.trains == {"edge", "defense"}
    defense.finish(split)
    assert defense.penalty(Batch(x, torch.zeros(6).long(), h, h, draws(6, 10), split.edge)).item() == 0


def test_bad_options_and_other_splits_are_refused() -> None:
    for spec in ("nets=2,chosen=3", "nets=0,chosen=0", "fixed=-1"):
        with pytest.raises(InputError, match="use ensembler"):
            DEFENSES.build(f"ensembler:{spec}")
    with pytest.raises(InputError, match="install"):
        Ensembler().study(fresh(), Sample(draws(2, 1, 8, 8), torch.zeros(2).long(), 0))
