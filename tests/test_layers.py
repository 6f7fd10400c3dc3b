"""The architecture of docs/design.md, read from the imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "splitveil"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("proportions",),
    ("arguments", "registry", "records", "progress", "seeds", "tensors", "vision", "silence", "wrappers"),
    ("training", "profiling", "pictures", "probing"),
    ("cut", "codecs", "metrics", "models", "data"),
    ("defenses", "attacks", "bundle"),
    ("export", "protection", "restoring"),
    ("auditing", "serving"),
    ("sweeps",),
    ("planning",),
    ("report",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A part imports from lower layers and from itself, never from a sibling."""

ON_DEVICE = (
    "arguments", "serving", "pictures", "profiling", "bundle", "codecs", "records", "errors", "proportions", "registry",
    "progress",
)  # fmt: skip
NOT_ON_DEVICE = ("torch", "torchvision", "timm", "sklearn", "lightning_fabric", "matplotlib", "jinja2")
NOT_FOR_DEVICE = ("attacks", "metrics", "data", "training", "cut", "models", "defenses", "auditing", "export", "report")


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
            if node.module == "splitveil":
                yield from (f"splitveil.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


FILES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


def test_every_part_has_a_layer() -> None:
    assert {part(p) for p in FILES} == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = part(path)
    for module in imports(path):
        root, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if root != "splitveil" or target in ("", own) or target.startswith("__"):
            continue
        assert level[target] < level[own], f"{own} imports {target}, which is not below it"


@pytest.mark.parametrize("path", [p for p in FILES if part(p) in ON_DEVICE], ids=lambda p: str(p.relative_to(SOURCE)))
def test_device_parts_need_neither_torch_nor_the_lab(path: Path) -> None:
    for module in imports(path):
        root, _, rest = module.partition(".")
        assert root not in NOT_ON_DEVICE, f"{path.name} imports {root}"
        if root == "splitveil":
            assert rest.partition(".")[0] not in NOT_FOR_DEVICE, f"{path.name} imports {module}"


def test_no_function_is_named_as_its_module() -> None:
    clashes = [
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem
    ]
    assert clashes == []
