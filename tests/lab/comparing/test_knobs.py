import inspect

import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.lab.comparing.candidate import Candidate, parse_all
from splitveil.lab.comparing.knobs import KNOBS, Knob
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.cut import trace
from splitveil.lab.defenses import DEFENSES
from splitveil.wire.codecs import CODECS

HERE = [name for name in KNOBS if name in (*DEFENSES.names(), *CODECS.names())]


@pytest.mark.parametrize("name", HERE)
def test_every_knob_is_an_option_and_both_ends_build(name: str) -> None:
    registry = DEFENSES if name in DEFENSES.names() else CODECS
    assert KNOBS[name].option in inspect.signature(registry.get(name)).parameters
    found = Candidate.parse(name, "raw")
    assert found.at(0.0, 32) != found.at(1.0, 32)


def test_steps_are_ratios_or_differences_and_end_at_the_cuts_channels() -> None:
    assert Knob("a", 0.01, 100).at(0.5, 1) == 1.0
    assert Knob("a", 0.2, 0.6, log=False).at(0.25, 1) == 0.3
    channels = Knob("a", 64, 1, whole=True, channels=True)
    assert [channels.at(s, 16) for s in (0.0, 0.5, 1.0)] == [16, 4, 1]


@pytest.mark.parametrize("channels", [8, 16, 31, 32])
def test_privynet_can_keep_as_many_as_its_knob_says(channels: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * channels, 2))
    split = trace(net, torch.zeros(2, 3, 8, 8)).split("1")
    weakest = Candidate.parse("privynet", "raw").at(0.0, channels)
    assert DEFENSES.build(weakest.defense).install(split).cut.shape[0] == channels // 2


def test_options_given_stay_fixed_and_a_knob_given_is_not_turned() -> None:
    tuned, fixed = Candidate.parse("noise:clip=2.0", "raw"), Candidate.parse("noise:sigma=0.7", "raw")
    assert tuned.at(1.0, 8) == Setting("noise:sigma=10.0,clip=2.0", "raw")
    assert fixed.knob is None
    assert fixed.at(1.0, 8) == fixed.at(0.0, 8) == Setting("noise:sigma=0.7,clip=1.0", "raw")


def test_a_codec_is_a_baseline_without_a_defence() -> None:
    found = Candidate.parse("uniform", "raw")
    assert found.at(1.0, 8) == Setting("none", "uniform:bits=2")
    assert not found.defends


@pytest.mark.parametrize(
    ("text", "defends"),
    [
        ("raw", False),
        ("half", False),
        ("top_k", False),
        ("distillation", False),
        ("chain:of=[distillation + top_k:keep=0.1]", False),
        ("chain:of=[none + chain:of=[distillation + top_k]]", False),
        ("chain:of=[distillation + noise:sigma=0.3]", True),
        ("veil", True),
        ("noise", True),
    ],
)
def test_only_what_has_a_defence_in_it_defends(text: str, defends: bool) -> None:
    assert Candidate.parse(text, "raw").defends == defends


def test_mistakes_name_their_remedy() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'noise'"):
        Candidate.parse("noize", "raw")
    with pytest.raises(InputError, match=r"no option 'sigmas'.*Did you mean 'sigma'"):
        Candidate.parse("noise:sigmas=1", "raw")
    with pytest.raises(InputError, match=r"got key of privynet; leave it out"):
        Candidate.parse("privynet:keep=2,key=7", "raw")
    with pytest.raises(InputError, match="twice"):
        parse_all(["noise", "noise"], "raw")
    with pytest.raises(InputError, match="begins with"):
        parse_all(["none"], "raw")
