"""Which code counts: what is imported by what runs, and nothing else."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import splitveil
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.criterion.measure import Estimated
from splitveil.lab.auditing.facts import MACHINERY, Answered, Attacked
from splitveil.lab.comparing.facts import Carded, Defended, Looked, Trained
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.planning.untrained import Counted, Proxied
from splitveil.lab.source_files import imported, searching
from splitveil.lab.store import Facts, code_of
from splitveil.lab.store.code import Sources, sources

ROOT = Path(splitveil.__file__).parent
ALL = (*MACHINERY, "splitveil.lab.comparing.training", "splitveil.lab.auditing.run", "splitveil.lab.planning.proxies")


@dataclass(frozen=True)
class Run(Facts):
    made_by: ClassVar = MACHINERY
    attack: object


def changed(*names: str) -> Sources:
    """Sources in which these files have another line."""
    paths = {ROOT / name for name in names}
    assert all(p.exists() for p in paths)
    return Sources(lambda path: path.read_bytes() + (b"\n# another line\n" if path in paths else b""))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def change(*names: str) -> None:
        made = changed(*names)
        monkeypatch.setattr("splitveil.lab.store.code.sources", lambda: made)

    return change


@pytest.mark.parametrize("root", ALL)
def test_no_result_hangs_on_pages_commands_and_servers(root: str) -> None:
    reached = sources().reached([root])
    assert root in reached
    rooms = {name.split(".")[1] for name in reached if name.startswith("splitveil.")}
    assert not rooms & {"report", "cli", "server", "device"}, reached
    assert not any(name.startswith("splitveil.lab.planning") for name in reached) or "planning" in root


def test_what_scores_hangs_on_no_attack_no_check_and_no_bundle() -> None:
    reached = sources().reached(MACHINERY)
    papers = {a.split(":")[0] for a in ATTACKS._table.values()} | {d.split(":")[0] for d in DEFENSES._table.values()}
    assert not reached & (papers - {"splitveil.lab.defenses.none"})
    for part in ("lab.auditing.checks", "lab.auditing.run", "lab.auditing.suites", "wire.bundle", "lab.models"):
        assert not any(name.startswith(f"splitveil.{part}") for name in reached), part


SPECS = (
    "mean", "linear", "decoder", "mle:start=linear", "mle:start=[decoder:epochs=2]", "repeat:attack=linear",
    "repeat:attack=[mle:start=[decoder:epochs=2]]", "glass:decoder=[decoder:epochs=2]", "flow", "positions",
    "deep_prior:start=mean", "attribute",
)  # fmt: skip
HANG = {
    "lab/attacks/mle.py": {"mle:start=linear", "mle:start=[decoder:epochs=2]",
                           "repeat:attack=[mle:start=[decoder:epochs=2]]"},
    "lab/attacks/repeat.py": {"repeat:attack=linear", "repeat:attack=[mle:start=[decoder:epochs=2]]"},
    "lab/attacks/flow.py": {"flow"},
    "lab/attacks/floors.py": {"mean", "deep_prior:start=mean"},
    "lab/attacks/decoder.py": {"decoder", "mle:start=[decoder:epochs=2]", "positions", "flow",
                               "repeat:attack=[mle:start=[decoder:epochs=2]]", "glass:decoder=[decoder:epochs=2]"},
    "report/page.py": set(),
    "cli/audit.py": set(),
    "lab/planning/planner.py": set(),
    "lab/auditing/checks.py": set(),
    "lab/defenses/noise.py": set(),
}  # fmt: skip


@pytest.mark.parametrize("name", HANG)
def test_a_line_of_one_attack_counts_for_it_and_for_what_is_built_on_it(
    name: str, pretend: Callable[..., None]
) -> None:
    def codes() -> dict[str, str]:
        return {spec: Run(ATTACKS.build(spec)).digest for spec in SPECS}

    before = codes()
    pretend(name)
    assert {spec for spec, code in codes().items() if code != before[spec]} == HANG[name]


@pytest.mark.parametrize(
    ("name", "hang"),
    [
        ("lab/defenses/noise.py", {"noise", "chain:of=[siftfunnel + noise]"}),
        ("lab/defenses/siftfunnel.py", {"chain:of=[siftfunnel + noise]"}),
        ("lab/defenses/cloak.py", set()),
    ],
)
def test_a_chain_hangs_on_its_parts(name: str, hang: set[str], pretend: Callable[..., None]) -> None:
    specs = ("noise", "dropout", "chain:of=[siftfunnel + noise]")
    before = {spec: Defended.of(spec).digest for spec in specs}
    pretend(name)
    assert {spec for spec in specs if Defended.of(spec).digest != before[spec]} == hang


def test_a_plug_in_counts_with_its_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("from mine.other import Unused\nfrom mine.attack import Own\n")
    (package / "attack.py").write_text("from splitveil.lab.attacks.linear import Linear\nfrom .parts import HALF\n"
                                       "class Own(Linear):\n    name = 'own'\n")  # fmt: skip
    (package / "parts.py").write_text("HALF = 0.5\n")
    (package / "other.py").write_text("class Unused: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        import mine  # type: ignore[import-not-found]

        own = Sources()
        reached = own.reached(["mine.attack"])
        assert {"mine.attack", "mine.parts", "splitveil.lab.attacks.linear"} <= reached
        assert "mine.other" not in reached
        before = own.digest(["mine.attack"])
        (package / "other.py").write_text("class Unused:\n    x = 1\n")
        assert Sources().digest(["mine.attack"]) == before
        (package / "parts.py").write_text("HALF = 0.25\n")
        assert Sources().digest(["mine.attack"]) != before
        assert code_of(mine.Own) != code_of(mine.Own.__mro__[1])
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "mine"]:
            del sys.modules[name]


def test_a_file_of_the_users_own_counts_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text("LEVEL = 0.0\n")
    (tmp_path / "theirs.py").write_text(
        "import yaml\nfrom near import LEVEL\nfrom splitveil.lab.attacks.linear import Linear\n"
        "class A(Linear):\n    name = 'a'\n    level = LEVEL\n"
    )

    def loaded() -> str:
        with searching(tmp_path):
            module = imported(tmp_path / "theirs.py")
        assert "=yaml" in sources().reached([module.__name__]), "another package is told by its version"
        return code_of(module.A)

    try:
        before = loaded()
        assert loaded() == before
        (tmp_path / "near.py").write_text("LEVEL = 0.5\n")
        assert loaded() == before, "what runs is the neighbour as it was loaded"
        del sys.modules["near"]
        assert loaded() != before
        before = loaded()
        (tmp_path / "theirs.py").write_text((tmp_path / "theirs.py").read_text() + "    more = 1\n")
        assert loaded() != before, "loaded again, it is another one"
    finally:
        sys.modules.pop("near", None)


def test_libraries_that_compute_are_told_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lightning_fabric" in sources().reached(["splitveil.lab.comparing.training"])
    assert "torch_pruning" in sources().reached([type(DEFENSES.build("patrol")).__module__])
    assert not {"pydantic", "filelock", "fsspec"} & sources().reached(["splitveil.lab.comparing.training"])
    before = Sources().digest(["splitveil.lab.comparing.training"])
    monkeypatch.setattr("splitveil.lab.store.code._version", lambda top: "another")
    assert Sources().digest(["splitveil.lab.comparing.training"]) != before


@pytest.mark.parametrize(
    ("facts", "maker"),
    [
        (Counted, "planning.untrained"), (Proxied, "planning.untrained"), (Estimated, "auditing.criterion.measure"),
        (Trained, "comparing.trials"), (Carded, "comparing.cards"), (Carded, "planning.coding"),
        (Looked, "comparing.looking"), (Attacked, "auditing.scoring"), (Answered, "auditing.features"),
    ],
)  # fmt: skip
def test_what_makes_a_result_is_in_its_own_facts(facts: type[Facts], maker: str) -> None:
    assert f"splitveil.lab.{maker}" in sources().reached(facts.made_by)


def test_functions_without_a_name_or_text_are_told_by_what_they_do() -> None:
    one, other = (lambda x: x + 1), (lambda x: x + 2)
    assert Run(one).digest != Run(other).digest
    texts = [f"class A:\n    def run(self):\n        return {k}\n" for k in (1, 1, 2)]
    scopes: list[dict[str, object]] = [{"__name__": "typed"} for _ in texts]
    for text, scope in zip(texts, scopes, strict=True):
        exec(text, scope)
    a, again, b = (code_of(scope["A"]) for scope in scopes)
    assert a == again != b


def test_imports_for_type_checkers_and_tables_of_names_do_not_count(tmp_path: Path) -> None:
    assert "splitveil.lab.auditing.subject" not in sources().reached(["splitveil.lab.auditing.features"])
    assert code_of(Knows) == code_of(Knows)
    assert changed("lab/attacks/__init__.py").digest(["splitveil.lab.attacks"]) != sources().digest(
        ["splitveil.lab.attacks"]
    ), "whatever else stands there does"

    def longer(path: Path) -> bytes:
        text = path.read_bytes()
        if path == ROOT / "lab" / "attacks" / "__init__.py":
            return text.replace(b'"mean":', b'"new": "somebody.else:New", "mean":')
        return text

    assert Sources(longer).digest(["splitveil.lab.attacks"]) == sources().digest(["splitveil.lab.attacks"])
