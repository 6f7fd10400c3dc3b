"""A server's life in a process of its own: signals, a watched folder, and the drain at the end."""

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from splitveil.server.deployment import give_back_memory
from splitveil.server.server import LOOPBACK, MAX_BATCH, PORT, Server
from splitveil.wire.bundle import Bundle

TIDY_SECONDS = 60.0
"""Between two times that free memory goes back to the system."""
REMIND_SECONDS = 3600.0
"""Between two looks at the end of the certificates."""
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

    Args:
        server: to run.
        ready: called once it is.
        watch: seconds between looks at the bundle's folder, whose changes reload too; None never looks.

    Raises:
        BundleError, LinkError: as `Server` says.
    """
    asyncio.run(_run(server, ready, watch))


async def _run(server: Server, ready: Callable[[Server], None], watch: float | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[bool]] = set()

    def reload() -> None:
        task = loop.create_task(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    async with server:
        ready(server)
        watching = [loop.create_task(_tidy()), loop.create_task(_remind(server))]
        if watch is not None:
            watching.append(loop.create_task(_watch(server, watch)))
        await stop.wait()
        log.info("draining")
        for task in watching:
            task.cancel()
        await asyncio.gather(*reloads)


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
            await server.reload()


def _stamps(folder: Path) -> list[tuple[str, int, int, int]]:
    try:
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return []
    return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats]
