"""What the operating system tells of this machine and this process."""

import os
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime

import splitveil

KIB = 1024
STATUS, CPUINFO, CGROUP = Path("/proc/self/status"), Path("/proc/cpuinfo"), Path("/sys/fs/cgroup/memory.max")


def hardware() -> str:
    """Processor and the cores that this process may use."""
    model = platform.processor() or platform.machine()
    if CPUINFO.exists():
        # x86 says "model name"; a Raspberry Pi says "Model" once, at the end.
        lines = [line.partition(":") for line in CPUINFO.read_text().splitlines()]
        names = [value.strip() for key, _, value in lines if key.strip() in ("model name", "Model")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def memory_bytes() -> int | None:
    """Memory of this machine, or of this container where that is less; None where nobody tells."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(found, int(CGROUP.read_text()))
    except (OSError, ValueError):
        return found


def storage_bytes() -> int:
    """Free bytes where the current folder lies."""
    return shutil.disk_usage(Path.cwd()).free


def peak_rss_bytes() -> int | None:
    """Most memory that this process has held so far; None where nobody tells (Windows)."""
    try:
        # getrusage would tell that of the process which started this one, where that was larger.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * KIB
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


def versions() -> dict[str, str]:
    """Of what times."""
    return {
        "splitveil": splitveil.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def today() -> str:
    """The date in UTC, for the source of a measurement."""
    return datetime.now(UTC).date().isoformat()
