import pytest
import torch

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.registry import Spec
from splitveil.lab.defenses import DEFENSES

Z = torch.randn(256, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def test_noise_is_as_strong_as_it_says() -> None:
    """Nothing is clipped at a thousand median norms, so what is added is sigma times the clip's root mean square."""
    defense = DEFENSES.build("noise:sigma=0.5,clip=1000.0")
    defense.calibrate(Z)
    rms = 1000 * Z.flatten(1).norm(dim=1).median().item() / 128**0.5
    assert (defense(Z) - Z).std().item() == pytest.approx(0.5 * rms, rel=0.02)


def test_norms_are_clipped_at_the_median() -> None:
    defense = DEFENSES.build("noise:sigma=0.0,clip=1.0")
    defense.calibrate(Z)
    norms, before = defense(Z).flatten(1).norm(dim=1), Z.flatten(1).norm(dim=1)
    assert norms.max().item() == pytest.approx(before.median().item(), rel=1e-5)
    short = before <= before.median()
    assert torch.equal(defense(Z)[short], Z[short])


def test_noise_is_fresh_for_every_request_and_an_input_of_the_graph() -> None:
    defense = DEFENSES.build("noise")
    defense.calibrate(Z)
    assert not torch.equal(defense(Z), defense(Z))
    noise = torch.randn_like(Z)
    assert torch.equal(defense(Z, noise), defense(Z, noise))
    assert (defense(Z[:1].expand(4, -1, -1, -1)).std(0) > 0).all()


def test_scaling_the_features_buys_nothing() -> None:
    one, ten = DEFENSES.build("noise:sigma=0.7"), DEFENSES.build("noise:sigma=0.7")
    one.calibrate(Z)
    ten.calibrate(10 * Z)
    noise = torch.randn_like(Z)
    assert torch.allclose(ten(10 * Z, noise) / 10, one(Z, noise), atol=1e-5)


@pytest.mark.parametrize("name", DEFENSES.names())
def test_repr_rebuilds_every_defense(name: str) -> None:
    defense = DEFENSES.build(name)
    again = DEFENSES.build(Spec.parse(repr(defense)))
    assert repr(again) == repr(defense)
    assert type(again) is type(defense)


def test_bad_options() -> None:
    with pytest.raises(InputError, match="expected sigma >= 0"):
        DEFENSES.build("noise:sigma=-1")
    with pytest.raises(InputError, match=r"no option 'sigm'. Did you mean 'sigma'"):
        DEFENSES.build("noise:sigm=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'noise'"):
        DEFENSES.build("noize")
