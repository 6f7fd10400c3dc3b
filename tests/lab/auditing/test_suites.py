"""Suites are frozen: another list under an old version would make numbers compare that do not."""

import hashlib

import pytest

from splitveil.core.errors import UnknownNameError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Threat
from splitveil.lab.attacks.view import PRESETS, Knows
from splitveil.lab.auditing.suites import SUITES, Suite, custom_suite, find_suite

FROZEN = {"smoke-1": "10c0a377d7cd0731", "standard-1": "ac7df6d974b1ec5a", "strong-1": "ad2149e96c4c66a1"}
"""Hash of every attack with all its options, defaults included. A change needs a new version, never a new hash."""


def contents(suite: Suite) -> str:
    specs = [repr(ATTACKS.build(spec)) for group in (suite.attacks, suite.fallback, suite.stochastic) for spec in group]
    return hashlib.sha256(repr((suite.name, suite.version, suite.max_aux, specs)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_what_its_version_says(name: str) -> None:
    assert contents(SUITES[name]) == FROZEN[SUITES[name].label]


@pytest.mark.parametrize("suite", SUITES.values(), ids=str)
def test_every_adversary_has_an_attack_beyond_the_floors(suite: Suite) -> None:
    for knows in PRESETS.values():
        built = [ATTACKS.build(spec) for spec in suite.specs(knows, stochastic=False)]
        assert any(isinstance(a, Threat) and a.needs in knows for a in built[3:])


def test_shadows_stand_in_only_where_nothing_better_is_granted() -> None:
    standard = find_suite("standard")
    assert not any("learn=cloud" in s for s in standard.specs(PRESETS["white-box"], stochastic=False))
    assert any("learn=cloud" in s for s in standard.specs(PRESETS["query-free"], stochastic=False))
    assert not any(s.startswith("repeat") for s in standard.specs(Knows.AUX, stochastic=False))
    assert any(s.startswith("repeat") for s in standard.specs(Knows.AUX, stochastic=True))


def test_own_choices_are_custom_and_unknown_suites_are_named() -> None:
    assert custom_suite(["mean"]).label == "custom"
    with pytest.raises(UnknownNameError, match="Did you mean 'strong'"):
        find_suite("stron")
