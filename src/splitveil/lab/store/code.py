"""Which code decides a result: the sources of what makes it and of all that these import, as one hash.

Imports are read, not run: those inside functions too, not those for type checkers only. A name that a package only
passes on leads to where it is defined, so that the package's other parts are not among them; tables of names
(`Registry`) decide nothing by themselves and are left out. What a spec names must be given as an object.

Of our own modules the libraries that compute are told by version, other packages (records, files, progress) decide
nothing. Of anybody else's file all imports count: its neighbours and its own package with their text, other installed
packages by version.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType

import splitveil

OWN = "splitveil"
LIBRARIES = (
    "PIL", "cv2", "lightning_fabric", "numpy", "onnxruntime", "optuna", "safetensors", "sklearn", "timm", "torch",
    "torch_pruning", "torchmetrics", "torchvision",
)  # fmt: skip
"""Told by their versions, whoever imports them."""
BY_VERSION = "="
"""Before the name of an installed package that is told by its version."""
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
        self._loaded: dict[str, object] = {}

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
        """Whether there is a text of this module, as it was when what runs of it was loaded."""
        if module.partition(".")[0] == OWN:
            return module in self._texts
        if (loaded := sys.modules.get(module)) is not self._loaded.get(module):
            self._forget(module)
            self._loaded[module] = loaded
        if module not in self._texts and (path := _file(module)) is not None:
            self._paths[module], self._texts[module] = path, self._read(path)
        return module in self._texts

    def _forget(self, module: str) -> None:
        """It was loaded again, perhaps with another text."""
        for told in (self._texts, self._trees, self._hashed, self._next, self._paths):
            told.pop(module, None)
        self._known.clear()

    def _counts(self, name: str) -> bool:
        top = name.partition(".")[0]
        return name != OWN and top not in STANDARD and (_versioned(name) or self.has(name))

    def _told(self, name: str) -> bytes:
        if _versioned(name):
            return _version(name.partition(".")[0].removeprefix(BY_VERSION)).encode()
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
        if _versioned(name):
            return frozenset()
        if name not in self._next:
            named = (self._as_counted(name, module) for module in self._named(name))
            self._next[name] = frozenset(m for m in named if m and self._counts(m))
        return self._next[name]

    def _named(self, name: str) -> Iterator[str]:
        for node in _live(self._tree(name)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(name, node)
                foreign = base.partition(".")[0] in (*LIBRARIES, *STANDARD)
                yield from (base,) if foreign else (self._home(base, alias.name) for alias in node.names)

    def _as_counted(self, name: str, module: str) -> str:
        """How `module`, which `name` imports, is told; empty where it decides nothing."""
        own, top = name.partition(".")[0], module.partition(".")[0]
        if top in LIBRARIES:
            return top
        if top in (OWN, own):
            return module
        if own == OWN or top in STANDARD:
            return ""
        packages = _packages(top)
        return f"{BY_VERSION}{top}" if packages and not packages & _packages(own) else module

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
        made = [f for f in vars(kind).values() if isinstance(f, FunctionType)] if isinstance(kind, type) else [kind]
        return f"{kind.__module__}.{kind.__qualname__} {' '.join(compiled(f) for f in made)}"


def compiled(function: FunctionType) -> str:
    """Hash of what a function does, where its name may be another's too: of those within others, and lambdas."""
    if "<" not in function.__qualname__ and sources().has(function.__module__):
        return ""
    total, waiting = hashlib.blake2b(digest_size=10), [function.__code__]
    while waiting:
        code = waiting.pop()
        inner = [c for c in code.co_consts if isinstance(c, CodeType)]
        plain = [c for c in code.co_consts if not isinstance(c, CodeType)]
        total.update(code.co_code + f"{code.co_names} {code.co_freevars} {plain!r}".encode())
        waiting += inner
    return total.hexdigest()


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


def _versioned(name: str) -> bool:
    return name.startswith(BY_VERSION) or name.partition(".")[0] in LIBRARIES


@cache
def _installed() -> Mapping[str, Sequence[str]]:
    return packages_distributions()


def _packages(top: str) -> set[str]:
    """Installed distributions that a module comes with; none for a file that lies anywhere else."""
    return set(_installed().get(top, ()))


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
def _version(top: str) -> str:
    try:
        return " ".join(f"{package} {version(package)}" for package in sorted(_packages(top))) or version(top)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", ""))
