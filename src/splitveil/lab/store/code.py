"""Which code decides a result: the sources of what makes it and of all that these import, as one hash.

Imports are read, not run: those inside functions too, not those for type checkers only. A name that a package only
passes on leads to where it is defined, so that the package's other parts are not among them; tables of names
(`Registry`) decide nothing by themselves and are left out. What a spec names must be given as an object.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType

import splitveil

OWN = "splitveil"
LIBRARIES = ("lightning_fabric", "numpy", "onnxruntime", "safetensors", "sklearn", "timm", "torch", "torchvision")
"""Told by their versions. Of other packages the modules that decide are told by their sources."""
STANDARD = sys.stdlib_module_names - {"__main__"}
TABLE = "Registry"


class Sources:
    """Modules by name, as they were when the first of them was asked for.

    Args:
        read: path -> content; a test pretends a change by it.
    """

    def __init__(self, read: Callable[[Path], bytes] = Path.read_bytes) -> None:
        root = Path(splitveil.__file__).parent
        self._read, self._paths = read, {_dotted(path, root.parent): path for path in root.rglob("*.py")}
        # All at once: a file that is changed while a long run goes on is not what runs.
        self._texts: dict[str, bytes] = {name: read(path) for name, path in self._paths.items()}
        self._trees: dict[str, ast.Module] = {}
        self._known: dict[frozenset[str], str] = {}
        self._hashed: dict[str, bytes] = {}
        self._next: dict[str, frozenset[str]] = {}

    def digest(self, modules: Iterable[str]) -> str:
        """Hash over these modules and over all that they import."""
        asked = frozenset(modules)
        if asked not in self._known:
            total = hashlib.blake2b(digest_size=10)
            for name in sorted(self.reached(asked)):
                if name not in self._hashed:
                    self._hashed[name] = hashlib.blake2b(self._told(name), digest_size=10).digest()
                total.update(f"\0{name}\0".encode() + self._hashed[name])
            self._known[asked] = total.hexdigest()
        return self._known[asked]

    def reached(self, modules: Iterable[str]) -> set[str]:
        """Names of these modules and of all that they import, as far as they can decide anything."""
        found, waiting = set[str](), [name for name in modules if self._counts(name)]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._imports(name)
        return found

    def has(self, module: str) -> bool:
        """Whether there is a text of this module."""
        if module not in self._texts and module.partition(".")[0] != OWN and (path := _file(module)) is not None:
            self._paths[module], self._texts[module] = path, self._read(path)
        return module in self._texts

    def _counts(self, name: str) -> bool:
        top = name.partition(".")[0]
        return name != OWN and top not in STANDARD and (top in LIBRARIES or self.has(name))

    def _told(self, name: str) -> bytes:
        top = name.partition(".")[0]
        if top in LIBRARIES:
            return _version(top).encode()
        lines = self._texts[name].splitlines()
        for node in self._tree(name).body:
            if _is_table(node):
                lines[node.lineno - 1 : node.end_lineno] = [b""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        return b"\n".join(lines)

    def _tree(self, name: str) -> ast.Module:
        if name not in self._trees:
            self._trees[name] = ast.parse(self._texts[name])
        return self._trees[name]

    def _imports(self, name: str) -> frozenset[str]:
        top = name.partition(".")[0]
        if top in LIBRARIES:
            return frozenset()
        if name not in self._next:
            self._next[name] = frozenset(m for m in self._named(name, (OWN, top)) if self._counts(m))
        return self._next[name]

    def _named(self, name: str, tops: tuple[str, str]) -> Iterator[str]:
        for node in _live(self._tree(name)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in tops)
            elif isinstance(node, ast.ImportFrom) and (base := self._base(name, node)).partition(".")[0] in tops:
                yield from (self._home(base, alias.name) for alias in node.names)

    def _base(self, name: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = name.split(".")
        parts = parts[: len(parts) - node.level + self._is_package(name)]
        return ".".join([*parts, *filter(None, [node.module])])

    def _is_package(self, name: str) -> bool:
        return self._paths[name].name == "__init__.py"

    def _home(self, module: str, name: str) -> str:
        """Where `name`, imported from `module`, is defined."""
        if self._counts(inner := f"{module}.{name}"):
            return inner
        if module.partition(".")[0] not in LIBRARIES and self._counts(module) and self._is_package(module):
            for node in self._tree(module).body:
                if isinstance(node, ast.ImportFrom) and name in {a.asname or a.name for a in node.names}:
                    real = next(a.name for a in node.names if (a.asname or a.name) == name)
                    return self._home(self._base(module, node), real)
        return module


@cache
def sources() -> Sources:
    """Those of this process."""
    return Sources()


def code_of(*kinds: object) -> str:
    """Hash of the code of classes, functions and modules (by name), with all that their modules import."""
    modules, alone = set[str](), set[str]()
    for kind in kinds:
        for one in kind.__mro__ if isinstance(kind, type) else (kind,):
            module = one if isinstance(one, str) else str(getattr(one, "__module__", ""))
            modules.add(module)
            if isinstance(one, type | FunctionType) and not sources().has(module):
                alone.add(_alone(one))
    told = "\0".join([sources().digest(modules), *sorted(alone)])
    return hashlib.blake2b(told.encode(), digest_size=10).hexdigest()


def _alone(kind: "type | FunctionType") -> str:
    """Of what was typed at a prompt the text; of what has none, such as a class written in C, the name."""
    if kind.__module__.partition(".")[0] in (*LIBRARIES, *STANDARD):
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _live(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those for type checkers only."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _is_table(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == TABLE


def _dotted(path: Path, above: Path) -> str:
    parts = path.relative_to(above).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _file(module: str) -> Path | None:
    """Source of a module of somebody else; nothing is imported to find it."""
    top, *parts = module.split(".")
    if (loaded := getattr(sys.modules.get(module), "__file__", None)) is not None:
        places = [Path(loaded)]
    else:
        folders = [Path(folder, *parts) for folder in getattr(sys.modules.get(top), "__path__", ())]
        places = [p for folder in folders for p in (folder / "__init__.py", folder.parent / f"{folder.name}.py")]
    return next((p for p in places if p.suffix == ".py" and p.is_file()), None)


@cache
def _version(package: str) -> str:
    try:
        return version(package.replace("_", "-").replace("sklearn", "scikit-learn"))
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", ""))
