"""Strangers in a process of their own, who take places and do nothing with them; those that must leave come back.

    python -m tests.faults.strangers calls PORT COUNT TOKEN METHOD ...
    python -m tests.faults.strangers lines PORT COUNT [TEXT]

They go on until standard input ends, and say one line when the first of them are there.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc.aio

from splitveil.server.descriptors import affordable
from tests.faults.process import ENVIRONMENT, ROOT

PER_CHANNEL = 256
AGAIN_SECONDS = 1.0
SERVICE = "/inference.GRPCInferenceService/"


async def hold_calls(port: int, count: int, token: str, methods: list[str], over: threading.Event) -> None:
    """Calls that never send their message, some hundred a connection."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    many = -(-count // PER_CHANNEL)
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(many)]
    shown = [("authorization", f"Bearer {token}")] if token else None
    calls: list[Any] = []
    while not over.is_set():
        calls = [call for call in calls if not call.done()]
        for i in range(len(calls), count):
            calls.append(channels[i % many].stream_unary(SERVICE + methods[i % len(methods)])(metadata=shown))
        print("there", flush=True)
        await asyncio.sleep(AGAIN_SECONDS)
    for call in calls:
        call.cancel()
    await asyncio.gather(*(channel.close() for channel in channels))


def hold_lines(port: int, count: int, sent: bytes, over: threading.Event) -> None:
    """Connections that send so much and then nothing."""
    affordable(count)
    lines: list[socket.socket] = []
    while not over.is_set():
        lines = [line for line in lines if not _closed(line)]
        while len(lines) < count and not over.is_set():
            try:
                line = socket.create_connection(("127.0.0.1", port), timeout=5)
                line.sendall(sent)
            except OSError:
                break
            lines.append(line)
        print("there", flush=True)
        time.sleep(AGAIN_SECONDS)


def _closed(line: socket.socket) -> bool:
    gone = False
    try:
        while not gone:
            gone = line.recv(65536, socket.MSG_DONTWAIT) == b""  # a greeting may lie before the end
    except BlockingIOError:
        return False
    except OSError:
        pass
    line.close()
    return True


@contextlib.contextmanager
def strangers(*words: str | int) -> Iterator[None]:
    """The same, from where they are there until the end."""
    command = [sys.executable, "-m", "tests.faults.strangers", *map(str, words)]
    them = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT
    )
    try:
        assert them.stdout is not None
        them.stdout.readline()
        reader = threading.Thread(target=them.stdout.read)
        reader.start()
        yield
    finally:
        them.kill()
        them.communicate()
        reader.join()


def main() -> None:
    """Go on until nobody writes any more."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    what, port, count, *words = sys.argv[1:]
    if what == "calls":
        asyncio.run(hold_calls(int(port), int(count), words[0], words[1:], over))
    else:
        hold_lines(int(port), int(count), words[0].encode().decode("unicode_escape").encode() if words else b"", over)


if __name__ == "__main__":
    main()
