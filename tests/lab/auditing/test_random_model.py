"""A model that is random in eval mode: audited as stochastic, refused where it would train, be planned for or ship."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records import Budget, Card
from splitveil.lab.attacks.view import PRESETS, Aux
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.auditing.views import Wire
from splitveil.lab.cut import Split, halves, trace
from splitveil.lab.data import load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import export_halves
from splitveil.lab.planning import plan
from splitveil.lab.protection import protect
from splitveil.wire.codecs import CODECS


class Forgotten(nn.Module):
    """Dropout that is active in eval mode, behind the first or the second convolution."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.c1, self.c2, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        z = self.c1(x).relu()
        z = self.c2(z if self.late else F.dropout(z, 0.3))
        out: Tensor = self.fc((F.dropout(z, 0.3) if self.late else z).mean((2, 3)))
        return out


EXAMPLE = torch.zeros(1, 1, 8, 8)


def test_only_a_random_edge_makes_a_configuration_stochastic() -> None:
    for late, expected in ((False, [False, True]), (True, [False, False])):
        subject = Subject.of_model(trace(Forgotten(late), EXAMPLE), ["c1", "c2"], model="m", weights="w")
        assert subject.random
        assert [c.stochastic for c in subject.configurations] == expected
        assert "random in eval mode, first at 'dropout'" in subject.notes[0]


def test_every_crossing_and_every_look_at_own_images_draws_afresh() -> None:
    subject = Subject.of_model(trace(Forgotten(), EXAMPLE), ["c2"], model="m", weights="w")
    x = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    c = subject.configurations[0]
    z = c.split.edge(x.float() / 255).detach()
    wire = Wire(c, z, z, Aux(x, torch.zeros(6, dtype=torch.long)), PRESETS["white-box"], 0, None, x)
    assert torch.equal(wire.crossing(1), wire.crossing(1))
    assert not torch.equal(wire.crossing(0), wire.crossing(1))
    view = wire.view(0, 2, None)
    assert view.stochastic
    assert not torch.equal(view.observe(torch.arange(3)), view.observe(torch.arange(3)))


def test_audit_is_the_same_again_and_averages_repeated_requests() -> None:
    data = load_data("digits?n=200")

    def once(model: nn.Module) -> list[tuple[str, float, int]]:
        subject = Subject.of_model(trace(model, EXAMPLE), ["c2"], model="m", weights="w")
        suite = custom_suite(["linear", "repeat:attack=linear,k=8"])
        card = audit(subject, data, suite=suite, n=20, aux_n=100, samples=0).card
        assert any("random in eval mode" in note for note in card.notes)
        return [(r.attack, r.psnr, len(r.unreliable)) for r in card.rows]

    torch.manual_seed(0)
    weights = Forgotten()
    first = once(weights)
    torch.rand(3)
    assert once(weights) == first
    rate = {name: psnr for name, psnr, _ in first}
    assert rate["repeat"] > rate["linear"]


def test_it_is_refused_where_it_would_be_trained_planned_for_or_shipped(tmp_path: Path) -> None:
    data, traced = load_data("digits?n=200"), trace(Forgotten(), EXAMPLE)
    for at in ("c1", "c2"):
        split = traced.split(at)
        with pytest.raises(
            InputError, match="cannot protect this split: it is random in eval mode, first at 'dropout'"
        ):
            protect(split, "none", "raw", data)
        with pytest.raises(BundleError, match="half cannot ship: it is random in eval mode, first at 'dropout'"):
            export_halves(Protected(split, Undefended(), CODECS.build("raw")), (1, 8, 8))
    with pytest.raises(InputError, match="cannot plan for a model that is random in eval mode"):
        plan(traced, data, model="m", weights="w", budget=Budget(), out=tmp_path)


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.fc((z - z.mean(0)).flatten(1))
        return out


def test_halves_that_mix_a_batch_do_not_ship() -> None:
    split = halves(nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), EXAMPLE)
    split.cloud = Joined()
    with pytest.raises(BundleError, match=r"the cloud half cannot ship: .*other images of the batch, first at 'mean'"):
        export_halves(Protected(split, Undefended(), CODECS.build("raw")), (1, 8, 8))
    with pytest.raises(InputError, match=r"cannot protect this split: .*other images of the batch"):
        protect(split, "none", "raw", load_data("digits?n=200"))
    split.cloud = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    split.cloud.get_parameter("1.weight").data.fill_(torch.nan)
    with pytest.raises(BundleError, match=r"the cloud half cannot ship: its answer is not finite, for its weights"):
        export_halves(Protected(split, Undefended(), CODECS.build("raw")), (1, 8, 8))


def test_arguments_of_another_kind_get_a_sentence() -> None:
    data = load_data("digits?n=200")
    with pytest.raises(InputError, match=r"audit\(\) expected subject as Subject, got str 'm'; Subject.of_model"):
        audit("m", data)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"of_model\(\) expected traced as Traced, got Forgotten; trace\(model"):
        Subject.of_model(Forgotten(), ["c1"], model="m", weights="w")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"of_model\(\) expected at as Sequence\[str\], got str 'c1'"):
        Subject.of_model(trace(Forgotten(True), EXAMPLE), "c1", model="m", weights="w")
    with pytest.raises(InputError, match=r"protect\(\) expected data as Dataset, got str 'digits'; load_data"):
        protect(trace(Forgotten(True), EXAMPLE).split("c1"), "none", "raw", "digits")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"load_data\(\) expected spec as str, got None"):
        load_data(None)  # type: ignore[arg-type]


class Drawing(nn.Module):
    """Multiplies by random numbers, from a generator of its own where there is one."""

    def __init__(self, own: torch.Generator | None = None) -> None:
        super().__init__()
        self.own, self.conv = own, nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(x)
        return z * torch.rand(z.shape, generator=self.own)


class Sly(Undefended):
    """A defence that draws inside and says nothing of it."""

    name = "sly"

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        return z + torch.randn_like(z)


def by_hand(edge: nn.Module, defense: Defense | None = None) -> Subject:
    """Halves that nobody looked at, put together without the shape of an image."""
    cloud = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    known = halves(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), cloud, EXAMPLE)
    split = Split(edge.eval(), known.cloud, known.cut)
    protected = Protected(split, defense or Undefended(), CODECS.build("raw"))
    return Subject.of_split(protected, model="m", weights="w")


def test_what_was_built_by_hand_is_run_again_before_it_is_believed() -> None:
    data = load_data("digits?n=200")

    def attacked(subject: Subject) -> Card:
        return audit(subject, data, suite=custom_suite(["linear"]), n=20, aux_n=60, samples=0).card

    torch.manual_seed(0)
    steady, drawing = by_hand(nn.Conv2d(1, 4, 3, padding=1)), by_hand(Drawing())
    x = torch.rand(4, 1, 8, 8)
    assert steady.tried(x) is steady
    assert not any(c.stochastic for c in drawing.configurations), "nobody said so"
    assert all(c.stochastic for c in drawing.tried(x).configurations)
    card = attacked(drawing)
    assert any("random without saying so" in note for note in card.notes)
    assert not any("random" in note for note in attacked(steady).notes)
    sly = by_hand(nn.Conv2d(1, 4, 3, padding=1), Sly()).tried(x)
    assert [c.random for c in sly.configurations] == [c.defense == "sly" for c in sly.configurations]
    noisy = by_hand(Drawing(), DEFENSES.build("noise")).tried(x)
    assert all(c.random for c in noisy.configurations), "behind noise that was told, too"


def test_randomness_that_cannot_be_had_again_is_refused() -> None:
    with pytest.raises(InputError, match="a generator of its own"):
        by_hand(Drawing(torch.Generator())).tried(torch.rand(4, 1, 8, 8))
