"""``docs/devices.md`` says what the code does."""

import subprocess
import sys
from pathlib import Path

from splitveil.device.profiling.devices import DEVICES, TYPICAL
from splitveil.device.profiling.links import LINKS, SEGMENT
from splitveil.device.profiling.reference import MACS

PAGE = (Path(__file__).parents[3] / "docs" / "devices.md").read_text()


def size(number: int | None) -> str:
    assert number is not None
    return f"{number // 10**9} GB" if number >= 10**9 else f"{number // 10**6} MB"


def test_every_preset_stands_there_as_it_is() -> None:
    rows = [
        f"| `{d.name}` | {d.macs_per_second:.0e} | {size(d.memory_bytes)} | {size(d.storage_bytes)} | "
        f"{d.source.removeprefix(TYPICAL + '; ')} |"
        for d in DEVICES.values()
    ]
    assert "\n".join(rows) in PAGE


def test_every_link_stands_there_as_it_is() -> None:
    rows = [
        f"| `{link.name}` | {link.bandwidth_bits / 1e6:g} M | {1e3 * link.rtt_seconds:g} ms | {100 * link.loss:g} % |"
        for link in LINKS.values()
    ]
    assert "\n".join(rows) in PAGE
    assert f"{SEGMENT:,} bytes a packet" in PAGE
    assert f"{MACS / 1e6:.1f} M multiply-accumulates" in PAGE


def test_the_command_has_these_options() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "splitveil", "profile", "--help"], capture_output=True, text=True, check=True,
        env={"COLUMNS": "200", "PATH": ""},
    ).stdout  # fmt: skip
    line = next(line for line in PAGE.splitlines() if line.startswith("    splitveil profile"))
    for option in ("--threads", "--runs", "--batch", "--name", "--out", "--nodes", "--json"):
        assert option in line
        assert option in shown
