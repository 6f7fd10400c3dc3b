"""Real data and weights for the tests that want them; without them these tests are skipped, never failed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared: how long a draw takes says nothing of the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# The nets here are so small that a second thread costs more than it gains, and xdist already uses every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

UNPACK = Path(__file__).resolve().parents[2] / "shared" / "data" / "unpack.py"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """File name -> path, from $SPLITVEIL_DATA or unpacked from ``shared/data`` beside the repository."""
    folder = os.environ.get("SPLITVEIL_DATA")
    unpacked = tmp_path_factory.mktemp("real_data")

    def find(name: str) -> Path:
        if folder:
            path = Path(folder) / name
        else:
            path = unpacked / name
            if UNPACK.exists() and not path.exists():
                subprocess.run([sys.executable, UNPACK, unpacked, path.stem], check=True, capture_output=True)
        if not path.exists():
            pytest.skip(f"{name} is not here; set SPLITVEIL_DATA to a folder that has it")
        return path

    return find
