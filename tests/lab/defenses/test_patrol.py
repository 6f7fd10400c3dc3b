"""PATROL: its masks' own step, its terms, budgets met, and the pruned edge brought back."""

import inspect
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.cut.costs import module_macs
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch, Guess, Protected
from splitveil.lab.defenses.parts.lipschitz import local_constants
from splitveil.lab.defenses.parts.pruning import shrunk
from splitveil.lab.defenses.patrol import Patrol
from splitveil.lab.export import save
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.lab.tensors import ssim
from splitveil.wire.bundle import EDGE, Bundle
from splitveil.wire.codecs import CODECS


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(192)), data.test.take(np.arange(64)), data.classes)


def split_of(model: str = "small", at: str = "relu2") -> Split:
    torch.manual_seed(0)
    net = load_model(model, shape=(1, 8, 8), classes=10, weights=None).model
    return trace(net, torch.zeros(2, 1, 8, 8)).split(at)


def images(n: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 10


def entered(defense: Patrol) -> Protected:
    split = defense.enter(defense.install(split_of()), defense.stages()[0])
    return Protected(split, defense, CODECS.build("raw")).train()


def test_masks_take_a_gradient_step_and_a_proximal_one_and_the_optimiser_passes_them_over() -> None:
    defense = Patrol(step=0.5, sparsity=0.1, lipschitz=0.0, adversarial=0.0)
    protected = entered(defense)
    (mask,) = defense.masks
    with torch.no_grad():
        mask.copy_(torch.linspace(-0.02, 1, len(mask)))
    before = mask.detach().clone()
    (slope,) = torch.autograd.grad(protected.loss(*images()), mask)
    protected.loss(*images()).backward()
    assert torch.allclose(mask, shrunk(before - 0.5 * slope, 0.05), atol=1e-7)
    assert (mask == 0).any()
    assert mask.grad is None
    assert all(p.grad is not None for p in protected.split.parameters())


def test_the_pull_rests_while_zeros_meet_the_budget() -> None:
    defense = Patrol(step=1.0, sparsity=1.0, budget=0.5, lipschitz=0.0, adversarial=0.0)
    protected = entered(defense)
    (mask,) = defense.masks
    with torch.no_grad():
        mask[:16] = 0.0
        mask[16:] = 0.5
    protected.loss(*images()).backward()
    assert mask[16:].min() > 0.3
    with torch.no_grad():
        mask[:2] = 0.5
    protected.loss(*images()).backward()
    assert mask.abs().max() == 0


def test_the_terms_by_hand() -> None:
    x, y = images()
    z = torch.zeros(8, 4, 2, 2)
    near = (0.9 * x).clone()
    batch = Batch(x, y, z, z, torch.zeros(8, 10), nn.Identity(), lambda _: Guess(near))
    pull = Patrol(lipschitz=0.0, adversarial=3.0, term="mse", aim=0.5).penalty(batch)
    assert pull.item() == pytest.approx(3 * (0.5 - (x - near).square().mean().item()), rel=1e-5)
    pull = Patrol(lipschitz=0.0, adversarial=2.0, aim=0.1).penalty(batch)
    assert pull.item() == pytest.approx(2 * (ssim(x, near).mean().item() - 0.1), rel=1e-5)
    assert Patrol(lipschitz=0.0).penalty(batch._replace(guess=None)).item() == 0
    assert Patrol(adversarial=0.0).adversary((4, 2, 2), (1, 8, 8), 10) is None


def test_the_triplet_loss_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, -1.0], [-1.0, 3.0, -2.0], [-1.0, 5.0, 2.0], [0.0, 1.0, 2.0]])
    y = torch.tensor([0, 0, 1, 1])
    unit = [(row - row.mean()) / (row - row.mean()).norm() for row in logits]
    apart = [[(a - b).norm().item() for b in unit] for a in unit]
    wanted = sum(
        max(0.0, 0.3 + apart[a][p] - min(apart[a][n] for n in others))
        for a, p, others in ((0, 1, (2, 3)), (1, 0, (2, 3)), (2, 3, (0, 1)), (3, 2, (0, 1)))
    )  # fmt: skip
    assert wanted > 0.1
    plain = nn.functional.cross_entropy(logits, y).item()
    assert Patrol().task_loss(logits, y).item() == plain
    assert Patrol(triplet=2.0).task_loss(logits, y).item() == pytest.approx(plain + 2 * wanted / 4, rel=1e-5)
    scaled = Patrol(triplet=2.0).task_loss(9 * logits + 5, y) - Patrol().task_loss(9 * logits + 5, y)
    assert scaled.item() == pytest.approx(2 * wanted / 4, rel=1e-4), "scale and shift of the logits buy nothing"
    with torch.autocast("cpu", torch.bfloat16):
        assert Patrol(triplet=2.0).task_loss(logits, y).item() == pytest.approx(plain + 2 * wanted / 4, rel=1e-5)


def test_the_lipschitz_term_ignores_the_scale_of_the_features() -> None:
    found = []
    for scale in (1.0, 10.0):
        defense = Patrol(lipschitz=1.0, adversarial=0.0)
        split = defense.enter(defense.install(split_of()), defense.stages()[0])
        with torch.no_grad():
            for name, value in split.edge.named_parameters():
                if "conv2" in name:
                    value.mul_(scale)
        x, y = images()
        z = split.edge(x)
        torch.manual_seed(0)
        found.append(defense.penalty(Batch(x, y, z, z, torch.zeros(8, 10), split.edge)))
    assert found[0].item() > 0.1
    assert found[1].item() == pytest.approx(found[0].item(), rel=1e-3)
    found[0].backward()


def test_training_meets_the_budget_and_leaves_plain_weights(digits: Dataset) -> None:
    split = split_of()
    wide = {k: v.shape for k, v in split.edge.state_dict().items()}
    protected, history = protect(split, "patrol:budget=0.4,parameters=0.5", "raw", digits, epochs=4)
    edge, cut = protected.split.edge, protected.split.cut
    assert len(history.losses) == 4
    assert list(edge.state_dict()) == list(wide)
    assert edge.get_parameter("conv1.weight").shape[0] < wide["conv1.weight"][0]
    assert edge.get_parameter("conv2.weight").shape[0] == wide["conv2.weight"][0]
    assert protected.defense.state_dict() == {}
    whole = split_of().cut
    assert 0.3 < cut.edge_macs / whole.edge_macs <= 0.4
    assert cut.edge_params / whole.edge_params <= 0.5
    assert cut.edge_macs == module_macs(edge, (1, 8, 8), torch.zeros(1, 1, 8, 8))
    assert cut.edge_params == sum(p.numel() for p in edge.parameters())
    assert cut.edge_peak_bytes <= whole.edge_peak_bytes
    assert cut.shape == whole.shape


def test_a_residual_net_meets_the_budget_without_training(digits: Dataset) -> None:
    whole = split_of("resnet20", "layer2").cut
    protected, _ = protect(split_of("resnet20", "layer2"), "patrol:budget=0.6", "raw", digits)
    assert 0.55 < protected.split.cut.edge_macs / whole.edge_macs <= 0.6
    again = Patrol(budget=0.6).restored(split_of("resnet20", "layer2"), protected.split.edge.state_dict())
    again.edge.load_state_dict(protected.split.edge.state_dict())
    assert torch.equal(again.edge(images()[0]), protected.split.edge(images()[0]))
    assert again.cut == protected.split.cut


def test_a_pruned_residual_net_is_exported_and_brought_back(digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(
        "from splitveil.lab.models.resnet import CifarResNet\n\n\n"
        "def tiny(shape=(1, 8, 8), classes=10):\n"
        "    return CifarResNet((1, 1), (8, 16), shape[0], classes, padded=False)\n"
    )
    protected, _ = protect(split_of(f"{file}:tiny", "layer2"), "patrol:budget=0.6", "raw", digits)
    save(protected, tmp_path / "b", name="b", model_spec=f"{file}:tiny", image_shape=(1, 8, 8), classes=digits.classes)
    bundle = Bundle.load(tmp_path / "b")
    again, (x, _) = restore(bundle, model=f"{file}:tiny"), images()
    with torch.no_grad():
        sent = protected.split.edge(x)
        assert torch.equal(again.split.edge(x), sent)
    assert again.split.cut == protected.split.cut
    (found,) = onnxruntime.InferenceSession(bundle.read(EDGE)).run(None, {"x": x.numpy()})
    assert np.allclose(found, sent.numpy(), atol=1e-4)


def test_training_with_the_lipschitz_term_lowers_the_constants(digits: Dataset) -> None:
    left = []
    for weight in (0.0, 2.0):
        spec = f"patrol:lipschitz={weight},adversarial=0.0,blocks=1"
        edge = protect(split_of(), spec, "raw", digits, epochs=6)[0].split.edge
        torch.manual_seed(0)
        left.append(local_constants([lambda a, edge=edge: edge(a)], images(32)[0]).item())  # type: ignore[misc]
    assert left[1] < 0.9 * left[0]


def test_a_run_that_is_resumed_ends_the_same(digits: Dataset, tmp_path: Path) -> None:
    file, spec = tmp_path / "c.safetensors", "patrol:lipschitz=0.0,adversarial=0.0"
    one, _ = protect(split_of(), spec, "raw", digits, epochs=2, checkpoint=file)
    two, _ = protect(split_of(), spec, "raw", digits, epochs=2, checkpoint=file, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_what_cannot_be_pruned_is_refused_before_training() -> None:
    with pytest.raises(InputError, match=r"use patrol:budget=0\.\d\d"):
        Patrol(budget=0.01).install(split_of())
    with pytest.raises(InputError, match="cut deeper"):
        Patrol().install(split_of(at="relu1"))
    split = split_of()
    with pytest.raises(InputError, match="shape of its images"):
        Patrol().install(Split(split.edge, split.cloud, split.cut))


@pytest.mark.parametrize(
    "option",
    ["budget=0", "parameters=1.5", "tune=1", "least=0", "sparsity=-1", "triplet=-1", "probe=1", "mode=worst",
     "term=lpips"],
)  # fmt: skip
def test_bad_options_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=r"expected .*; use patrol:"):
        DEFENSES.build(f"patrol:{option}")


def test_its_spec_rebuilds_it() -> None:
    defense = Patrol(budget=0.3, mode="power", term="mse", triplet=0.5)
    assert repr(DEFENSES.build(repr(defense))) == repr(defense)
    assert list(defense.options()) == list(inspect.signature(Patrol).parameters)
