"""Who serves: SplitVeil, and the peers that are installed in a folder of environments."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving_speed.isolation import free_port
from benchmarks.serving_speed.peers import PEERS, python_of
from benchmarks.serving_speed.wire import Array, Request, base64_json, plain_bytes, v2_grpc, v2_http
from splitveil.wire.bundle import CLOUD, Bundle

APPS = Path(__file__).with_name("apps")
SPLITVEIL = "SplitVeil"


@dataclass(frozen=True)
class Contestant:
    """How to start one server, and how to ask it.

    Args:
        name: for the table.
        version: of its distribution.
        argv: what to run.
        environment: beside our own.
        asks: port and request by protocol; the first one tells when it is ready.
        alone: measured apart from the others, since its processes are busy even when nobody asks.
        exposed: listens on all interfaces, so runs only in a network of its own.
    """

    name: str
    version: str
    argv: list[str]
    asks: Mapping[str, tuple[int, Request]]
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    exposed: bool = False


def splitveil_server(bundle: Bundle, z: Array, work: Path, peers: Path | None = None) -> Contestant:
    """Ours, as its command line starts it, on both protocols. z: (1, *cut)."""
    import splitveil

    grpc_port, http_port = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("splitveil")), "serve", str(bundle.folder),
        "--grpc-port", str(grpc_port), "--http-port", str(http_port),
    ]  # fmt: skip
    asks = {"HTTP": (http_port, v2_http(bundle.manifest, z)), "gRPC": (grpc_port, v2_grpc(bundle.manifest, z))}
    return Contestant(SPLITVEIL, splitveil.__version__, command, asks)


def _litserve(bundle: Bundle, z: Array, work: Path, peers: Path) -> Contestant:
    port = free_port()
    command = [*_app(peers, "litserve"), str(bundle.folder / CLOUD), str(port)]
    return Contestant("LitServe", PEERS["litserve"].version, command, {"HTTP": (port, base64_json("/predict", z))})


def _kserve(bundle: Bundle, z: Array, work: Path, peers: Path) -> Contestant:
    http_port, grpc_port = free_port(), free_port()
    command = [
        *_app(peers, "kserve"), str(bundle.folder / CLOUD), bundle.manifest.name,
        "--http_port", str(http_port), "--grpc_port", str(grpc_port),
    ]  # fmt: skip
    asks = {"HTTP": (http_port, v2_http(bundle.manifest, z)), "gRPC": (grpc_port, v2_grpc(bundle.manifest, z))}
    return Contestant("KServe", PEERS["kserve"].version, command, asks, exposed=True)


def _ray(bundle: Bundle, z: Array, work: Path, peers: Path) -> Contestant:
    port = free_port()
    command = [*_app(peers, "ray"), str(bundle.folder / CLOUD), str(port)]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_TELEMETRY": "0"}
    asks = {"HTTP": (port, plain_bytes("/", z))}
    return Contestant("Ray Serve", PEERS["ray"].version, command, asks, quiet, alone=True, exposed=True)


def _triton(bundle: Bundle, z: Array, work: Path, peers: Path) -> Contestant:
    """The server out of nvidia-pytriton's wheel, on the repository that ``splitveil bundle export`` writes.

    Its tree is copied, with the stub for this Python: run in place from site-packages it answered with empty tensors.
    """
    from splitveil.lab.export.triton import write_repository

    python = python_of(peers, "triton")
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    tree = peers / "triton-tree"
    if not tree.exists():
        shutil.copytree(site / "pytriton" / "tritonserver", tree)
        stubs = site / "pytriton" / "tritonserver" / "python_backend_stubs" / "{}.{}".format(*sys.version_info)
        shutil.copy2(stubs / "triton_python_backend_stub", tree / "backends" / "python")
    repository = work / f"triton-{bundle.manifest.name}"
    model = write_repository(bundle, repository, backend="python") / "1" / "model.py"
    # The stub hears PYTHONHOME and ignores PYTHONPATH.
    model.write_text(f"import sys\nsys.path.insert(0, {str(site)!r})\n{model.read_text()}")
    http_port, grpc_port = free_port(), free_port()
    command = [
        str(tree / "bin" / "tritonserver"), "--model-repository", str(repository),
        "--backend-directory", str(tree / "backends"), "--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1",
        "--http-port", str(http_port), "--grpc-port", str(grpc_port), "--allow-metrics", "false",
    ]  # fmt: skip
    libraries = [Path(sys.base_prefix) / "lib", site / "nvidia_pytriton.libs", tree / "external_libs"]
    environment = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)), "PYTHONHOME": sys.base_prefix}
    asks = {"HTTP": (http_port, v2_http(bundle.manifest, z)), "gRPC": (grpc_port, v2_grpc(bundle.manifest, z))}
    return Contestant("Triton", PEERS["triton"].version, command, asks, environment)


BUILDERS: dict[str, Callable[[Bundle, Array, Path, Path], Contestant]] = {
    "litserve": _litserve, "kserve": _kserve, "triton": _triton, "ray": _ray,
}  # fmt: skip


def _app(peers: Path, name: str) -> list[str]:
    return [str(python_of(peers, name)), str(APPS / f"{name}_app.py")]
