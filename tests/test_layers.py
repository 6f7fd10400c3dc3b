"""The architecture of docs/design.md, read from the folders and their imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "splitveil"

HOUSE: tuple[tuple[str, ...], ...] = (
    ("core",), ("wire",), ("device", "server"), ("lab",), ("report",), ("cli",), ("__main__",),
)  # fmt: skip
"""What stands at the top of the package, lowest first."""

WITHIN: dict[str, tuple[tuple[str, ...], ...]] = {
    "core": (("errors", "printing"), ("arguments", "proportions"), ("registry", "records", "progress")),
    "wire": (
        ("arrays", "datatypes", "pictures", "codecs", "credentials"),
        ("bundle",),
        ("compression", "engine", "numbers"),
        ("contract",),
    ),
    "lab": (
        ("accelerator",),
        ("seeds", "optimizers", "tensors", "images", "vision", "silence", "wrappers", "source_files", "law"),
        ("recipe", "training", "probing", "store"),
        ("jobs",),
        ("cut", "metrics", "models", "data"),
        ("defenses", "attacks"),
        ("export", "protection", "restoring"),
        ("auditing",),
        ("comparing",),
        ("planning",),
    ),
}
"""Floors of the large parts. A room imports from lower floors and from itself, never from a sibling."""

WITHOUT_TORCH = ("core", "wire", "device", "server")
"""What a device and a server install: neither torch nor anything that trains or attacks."""
LAB_ONLY = ("torch", "torchvision", "timm", "sklearn", "lightning_fabric", "matplotlib", "jinja2")
SERVER_ONLY = ("starlette", "uvicorn", "httptools", "prometheus_client", "ray")


def imports(path: Path) -> Iterator[str]:
    """Every imported module, inside functions too, but not those for type checkers only."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            own = node.module == "splitveil" or node.module.startswith("splitveil.")
            inner = [f"{node.module}.{a.name}" for a in node.names if own and is_module(f"{node.module}.{a.name}")]
            yield from inner
            if len(inner) < len(node.names) or not own:
                yield node.module


def is_module(name: str) -> bool:
    place = SOURCE.parent / Path(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def rooms(path: Path) -> tuple[str, ...]:
    """The parts that a file lies in, outermost first: ``("lab", "cut", "flow")``."""
    return path.relative_to(SOURCE).with_suffix("").parts


FILES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


def names(folder: Path) -> set[str]:
    return {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))} - {
        "__init__"
    }


def test_every_part_has_a_floor() -> None:
    assert names(SOURCE) == {name for floor in HOUSE for name in floor}
    for part, floors in WITHIN.items():
        assert names(SOURCE / part) == {name for floor in floors for name in floor}, part


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    own = rooms(path)
    for module in imports(path):
        root, *target = module.split(".")
        if root != "splitveil" or not target or target[0].startswith("__"):
            continue
        if target[0] != own[0]:
            level = {name: i for i, floor in enumerate(HOUSE) for name in floor}
            assert level[target[0]] < level[own[0]], f"{'.'.join(own)} imports {module}, which is not below it"
        elif own[0] in WITHIN and len(target) > 1 and len(own) > 1 and target[1] != own[1]:
            level = {name: i for i, floor in enumerate(WITHIN[own[0]]) for name in floor}
            if own[1] in level and target[1] in level:
                assert level[target[1]] < level[own[1]], f"{'.'.join(own)} imports {module}, which is not below it"


@pytest.mark.parametrize(
    "path", [p for p in FILES if rooms(p)[0] in WITHOUT_TORCH], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_what_ships_needs_neither_torch_nor_the_lab(path: Path) -> None:
    for module in imports(path):
        assert module.partition(".")[0] not in LAB_ONLY, f"{path.name} imports {module}"
        if rooms(path)[0] != "server":
            assert module.partition(".")[0] not in SERVER_ONLY, f"{path.name} imports {module}"


def test_no_two_modules_need_each_other() -> None:
    """Not even for type checkers."""
    modules = {".".join(("splitveil", *rooms(p))).removesuffix(".__init__"): p for p in FILES}
    needs = {name: {m for m in every_import(path) if m in modules and m != name} for name, path in modules.items()}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, f"in circles, or above one: {', '.join(sorted(needs))}"


def every_import(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("splitveil"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def test_no_function_is_named_as_its_module() -> None:
    clashes = [
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem
    ]
    assert clashes == []
