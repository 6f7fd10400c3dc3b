"""A server's life in a process of its own: signals, a watched folder, and the drain at the end."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from splitveil.server.deployment import CLOSE_SECONDS, give_back_memory
from splitveil.server.patience import WAITED_FOR
from splitveil.server.server import LOOPBACK, MAX_BATCH, PORT, Server
from splitveil.wire.bundle import Bundle
from splitveil.wire.engine import TESTING

TIDY_SECONDS = 60.0
"""Between two times that free memory goes back to the system."""
REMIND_SECONDS = 3600.0
"""Between two looks at the end of the certificates."""
LEFT_ALONE = (TESTING, WAITED_FOR)
"""Names of threads that nobody waits for any more."""
MOST_RELOADS = 2
"""At a time: one runs, and one waits."""
MOST_ENTRIES = 1000
"""Of a watched folder that are looked at."""
log = logging.getLogger(__name__)


def serve(
    bundle: Bundle,
    host: str = LOOPBACK,
    port: int = PORT,
    max_batch: int = MAX_BATCH,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve over gRPC until SIGTERM or SIGINT, then drain and return. `announce` gets one line once it is ready.

    Raises:
        BundleError, LinkError: as `Server` says.
    """
    run_until_told(Server(bundle, host, port, max_batch), lambda server: announce(f"serving {server.describe()}"))


def run_until_told(server: Server, ready: Callable[[Server], None], watch: float | None = None) -> None:
    """Run a server until SIGTERM or SIGINT, then drain and return; SIGHUP reloads.

    It ends in time whatever the model does: one that computes for ever, while the server starts, reloads or drains, is
    left alone, and the process ends with exit code 1.

    Args:
        server: to run.
        ready: called once it is; where it has nowhere to write, that is logged and no reason to end.
        watch: seconds between looks at the bundle's folder, whose changes reload too; None never looks.

    Raises:
        BundleError, LinkError: as `Server` says.
    """
    last = threading.Timer(server.stop_seconds, _end, ["not ended in time", 1])
    last.daemon = True
    try:
        asyncio.run(_run(server, ready, watch, last))
    finally:
        last.cancel()
    if server.left_alone:
        _end("the model still computes", 1)
    if any(thread.name in LEFT_ALONE for thread in threading.enumerate()):
        _end("a bundle that was given up is still loaded or tested", 0)


def _end(why: str, code: int) -> None:
    """End the process without waiting for its threads, which an engine's code may never leave."""
    log.error("%s; ending at once", why)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


async def _run(
    server: Server, ready: Callable[[Server], None], watch: float | None, last: threading.Timer
) -> None:  # fmt: skip
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    up = asyncio.Event()

    async def reload() -> None:
        await up.wait()
        await _reloaded(server)

    def told_to_reload() -> None:
        # One runs and one waits, which will see all that has changed by then.
        if len(reloads) < MOST_RELOADS:
            task = loop.create_task(reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    def told_to_stop() -> None:
        if not stop.is_set():
            last.start()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    loop.add_signal_handler(signal.SIGHUP, told_to_reload)
    if not await _started(server, stop):
        return
    watching = [loop.create_task(_tidy()), loop.create_task(_remind(server))]
    try:
        up.set()
        try:
            ready(server)
        except OSError as error:
            log.warning("cannot say that it is ready: %s", error.strerror or error)
        if watch is not None:
            watching.append(loop.create_task(_watch(server, watch)))
        await stop.wait()
        log.info("draining")
    finally:
        for task in watching:
            task.cancel()
        # What a reload brings now would serve nobody.
        server.deployments.give_up()
        if reloads:
            await asyncio.wait(reloads, timeout=CLOSE_SECONDS)
        for task in reloads:
            task.cancel()
        await server.__aexit__(None, None, None)


async def _started(server: Server, stop: asyncio.Event) -> bool:
    """Start it; False if it was told to stop first."""
    starting, stopped = asyncio.ensure_future(server.__aenter__()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            return True
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return False
    finally:
        stopped.cancel()


async def _reloaded(server: Server) -> None:
    """Whatever goes wrong in a reload is logged, and the next one is tried."""
    try:
        await server.reload()
    except Exception:
        log.exception("the reload failed; what was served is served on")


async def _tidy() -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await asyncio.to_thread(give_back_memory)


async def _remind(server: Server) -> None:
    """Of certificates that end soon; the server itself says it once a day at most."""
    while True:
        await asyncio.sleep(REMIND_SECONDS)
        server.remind()


async def _watch(server: Server, seconds: float) -> None:
    """Reload whenever a file comes, goes or changes."""
    seen = await asyncio.to_thread(_stamps, server.bundle.folder)
    while True:
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(_stamps, server.bundle.folder)
        if found != seen:
            seen = found
            await _reloaded(server)


def _stamps(folder: Path) -> list[tuple[str, int, int, int]]:
    """Of what lies there, links followed: a mounted folder changes by one of them."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_ENTRIES))
        stats = [(name, (folder / name).stat()) for name in names]
    except OSError:
        return []
    return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats]
