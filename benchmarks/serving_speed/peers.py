"""Other servers, each in an environment of its own: they need other versions of the same libraries than we do."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from splitveil.core.errors import InputError


@dataclass(frozen=True)
class Peer:
    """A pinned distribution and what it needs beside it."""

    version: str
    requirements: tuple[str, ...]


ENGINE = "onnxruntime==1.31.1"
PEERS = {
    "litserve": Peer("0.2.19", ("litserve==0.2.19", ENGINE)),
    "kserve": Peer("0.21.0", ("kserve==0.21.0", ENGINE)),
    "triton": Peer("0.7.0", ("nvidia-pytriton==0.7.0", ENGINE, "numpy<2")),
    "ray": Peer("2.60.0", ("ray[serve]==2.60.0", ENGINE)),
}
"""In the order in which they are measured."""


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of one peer's environment."""
    return folder / name / "bin" / "python"


def installed(folder: Path, name: str) -> bool:
    """Whether its environment is there and complete."""
    return (folder / name / ".ready").is_file()


def install(folder: Path, names: list[str]) -> dict[str, str]:
    """Make the environments that are missing; what went wrong, by name.

    Raises:
        InputError: a name that is none of the peers.
    """
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"expected peers out of {', '.join(PEERS)}, got {', '.join(unknown)}; name those.")
    wrong = {}
    for name in names:
        if installed(folder, name):
            continue
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        command = [str(python_of(folder, name)), "-m", "pip", "install", "--quiet", *PEERS[name].requirements]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            wrong[name] = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            continue
        (folder / name / ".ready").touch()
    return wrong
