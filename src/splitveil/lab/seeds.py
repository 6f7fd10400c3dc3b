"""Seeding, and the fingerprint of code, environment and machine that every result carries."""

import hashlib
import json
import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import splitveil
from splitveil.lab.accelerator import Accelerator


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed for one named piece of work, so that its result does not depend on what ran before it."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *parts: object) -> torch.Generator:
    """A CPU generator for one named piece of work."""
    return torch.Generator().manual_seed(derive(seed, *parts))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (weight initialisation draws from torch's)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back as they were."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            seed_everything(seed)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def named(label: str, facts: object = None) -> str:
    """A readable file name for `label` that differs wherever it or `facts`, anything JSON holds, do."""
    words = "".join(c if c.isalnum() else "-" for c in label).strip("-")
    text = json.dumps([label, facts], sort_keys=True)
    return f"{words[:60]}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def hardware() -> str:
    """One line: processor, usable cores, the accelerator in use and whether that multiplies bf16."""
    used = Accelerator.chosen()
    return f"{_processor()}{', bf16' if used.bf16 else ''}{f', {used.words}' if used.words else ''}"


@cache
def _processor() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def fingerprint() -> dict[str, str]:
    """Versions of what computes, a hash over SplitVeil's own sources, and torch's threads as they are now."""
    return {**_versions(), "threads": str(torch.get_num_threads())}


@cache
def _versions() -> dict[str, str]:
    digest = hashlib.sha256()
    root = Path(splitveil.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {
        "splitveil": splitveil.__version__,
        "code": digest.hexdigest()[:16],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def digest(*arrays: "np.ndarray[Any, Any]") -> str:
    """Fingerprint of data: 16 hex characters over shapes, types and contents."""
    total = hashlib.blake2b(digest_size=8)
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
