"""A network of its own for the benchmark: nobody else reaches the servers, and loopback counts their bytes alone.

KServe's and Ray's servers listen on all interfaces and cannot be told otherwise.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

INSIDE = "SPLITVEIL_BENCH_ISOLATED"
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1


def enter() -> bool:
    """Start this program anew in a network namespace with loopback only. Returns False where there can be none."""
    if INSIDE in os.environ:
        return os.environ[INSIDE] == "1"
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode == 0
    if unshare and allowed:
        os.execve(unshare, [unshare, "-rn", sys.executable, *sys.orig_argv[1:]], {**os.environ, INSIDE: "1"})
    return False


def raise_loopback() -> None:
    """Bring ``lo`` up, which a new namespace leaves down."""
    with socket.socket() as any_socket:
        name = b"lo"
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, GET_FLAGS, struct.pack("16sh14x", name, 0)))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", name, flags | UP))


def loopback_bytes() -> int:
    """All that loopback has carried in this namespace, TCP and IP headers included."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise OSError("no loopback in /proc/net/dev")


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
