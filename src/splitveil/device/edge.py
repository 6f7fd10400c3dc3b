"""The device's end: the edge half here, the cloud half over the wire."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from splitveil.core.arguments import checked
from splitveil.core.errors import BundleError, DataError, InputError
from splitveil.device.answer import Answer, joined
from splitveil.device.breaker import Breaker, State
from splitveil.device.client_tls import ClientTls
from splitveil.device.encoding import Encoder
from splitveil.device.exchange import Exchange, OutageError, Talk, largest_answer
from splitveil.device.fallback import Fallback, Local
from splitveil.device.inputs import picture_of
from splitveil.device.retry import Retry
from splitveil.device.stream import in_order
from splitveil.device.transport import AsyncTransport, Transport
from splitveil.wire import compression
from splitveil.wire.bundle import Bundle, verify_signature
from splitveil.wire.pictures import read_picture

Array = NDArray[Any]
CONNECT_SECONDS = 5.0
log = logging.getLogger(__name__)


class Edge:
    """The edge half of a bundle, tied to servers: ``with Edge(bundle, "host:8001") as edge: logits = edge.ask(x)``.

    Every request draws fresh noise for a stochastic defence. A retry resends the same bytes, so it shows no second draw
    for an adversary to average. Thread-safe. In an event loop: ``async with``, `ask_async`, `answer_async`.

    Args:
        bundle: the bundle whose cloud half the servers run.
        target: ``host:port``, or several, which are asked in turn and each stand in for the others.
        timeout: seconds that one request may take, retries and a restart of the server included.
        retries: how often and how long apart, see `Retry`.
        token: a bearer token, only sent over TLS or to this machine.
        tls: for an encrypted connection, see `ClientTls`.
        threads: of the edge half.
        compress: ``"zstd"`` for contents that servers of SplitVeil unpack. The length of a message then tells something
            of the picture (see `compression`), so it is off by default.
        fallback: ``"cloud.onnx"`` or a function of images, asked when no server answers; `Answer.local` says so. With
            it a request fails over as soon as retries end, without waiting for a server to come back.
        breaker: when to stop asking, see `Breaker`.
        insecure: allow a token in plain text to another machine.
        signed_by: public key whose owner must have signed the bundle.

    Raises:
        LinkError: nothing answers there, and there is no fallback.
        ContractError: another model or another bundle is served there.
        BundleError: a half cannot be loaded, or the signature does not hold.
        InputError: arguments that do not fit together.
        MissingExtraError: compression without its library.
    """

    @checked
    def __init__(
        self,
        bundle: Bundle,
        target: str | Sequence[str],
        *,
        timeout: float = 30.0,
        retries: Retry | None = None,
        token: str | None = None,
        tls: ClientTls | None = None,
        threads: int = 1,
        compress: str | None = None,
        fallback: Fallback | None = None,
        breaker: Breaker | None = None,
        insecure: bool = False,
        signed_by: Path | None = None,
    ) -> None:
        if timeout <= 0:
            raise InputError(f"expected a timeout above 0, got {timeout}; give seconds.")
        if compress is not None:
            compression.check_encoding(compress)
        if signed_by is not None and verify_signature(bundle.folder, signed_by) != bundle.manifest:
            raise BundleError(f"{bundle.folder} changed while it was read; load it again.")
        targets = [target] if isinstance(target, str) else list(target)
        self.manifest, self.target, self.timeout = bundle.manifest, ",".join(targets), timeout
        self._encoder = Encoder(bundle, threads)
        self._local = None if fallback is None else Local(bundle, fallback, threads)
        self._breaker = breaker or Breaker()
        self._exchange = Exchange(
            self.manifest, self.target, timeout, retries or Retry(), self._breaker, compress, waits=fallback is None
        )
        self._transport = Transport(targets, token, tls, insecure, largest_answer(self.manifest))
        self._looped: tuple[asyncio.AbstractEventLoop, AsyncTransport] | None = None
        self._exchange.renew = self._renew
        try:
            self._transport.hold(self._meet())
        except OutageError as outage:
            if self._local is None:
                self._transport.close()
                raise
            log.warning("%s the fallback answers until then", outage)
        except BaseException:
            self._transport.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._looped is not None:
            await self._looped[1].close()
            self._looped = None
        self.close()

    def close(self) -> None:
        """Close the connections of this thread's kind; ``async with`` also closes those of the event loop."""
        self._transport.close()

    @property
    def bytes_per_image(self) -> int:
        """Bytes of one image's features on the wire, without protocol headers and before compression."""
        return self._encoder.row_bytes

    @property
    def state(self) -> State:
        """Of the breaker: ``closed`` (all is well), ``open`` (nobody is asked) or ``half-open`` (a probe is due)."""
        return self._breaker.state

    @property
    def max_batch(self) -> int | None:
        """Rows that the server takes in one request; None while none has been met."""
        return self._exchange.max_batch

    def features(self, x: Array) -> Array:
        """What leaves the device. x: (n, C, H, W), uint8 or float in [0, 1] -> (n, ...) of the wire's type and shape.

        Raises:
            DataError: another shape or type, values outside [0, 1], or no image.
        """
        return self._encoder.encode(self._encoder.checked(x))

    def ask(self, x: Array) -> NDArray[np.float32]:
        """Logits of images. x: (n, C, H, W), uint8 or float in [0, 1] -> (n, K). Large n goes in several requests.

        Raises:
            DataError: as `features` says.
            LinkError: no answer in time, or this device is refused.
            ContractError: the server refuses the request.
        """
        return self.answer(x).logits

    def answer_pictures(self, sources: Iterable[Path | str | Image]) -> Answer:
        """`answer` for picture files, or pictures of Pillow's, of any size: read as those that the net trained on were.

        Raises:
            BrokenPictureError: a file that cannot be read.
            DataError: a picture of a kind that is refused, none at all, or the model takes no pictures.
            as `answer` says.
        """
        picture = picture_of(self.manifest)
        x = [read_picture(source, picture) for source in sources]
        if not x:
            raise DataError("expected at least one picture, got none; give files.")
        return self.answer(np.stack(x))

    def answer(self, x: Array) -> Answer:
        """The same with who answered and what it took.

        Raises:
            as `ask` says.
        """
        x = self._encoder.checked(x)
        try:
            if self.max_batch is None:
                self._transport.hold(self._meet())
        except OutageError as outage:
            return self._answered_here(x, self._encoder.encode(x), outage)
        return joined([self._exchanged(part, self._encoder.encode(part)) for part in self._parts(x)])

    async def ask_async(self, x: Array) -> NDArray[np.float32]:
        """As `ask`, without blocking the event loop."""
        return (await self.answer_async(x)).logits

    async def answer_async(self, x: Array) -> Answer:
        """As `answer`, without blocking the event loop."""
        x = self._encoder.checked(x)
        try:
            if self.max_batch is None:
                await self._asynchronous().hold(self._meet())
        except OutageError as outage:
            return await asyncio.to_thread(self._answered_here, x, self._encoder.encode(x), outage)
        answers = []
        for part in self._parts(x):
            z = await asyncio.to_thread(self._encoder.encode, part)
            try:
                found = Answer.of(await self._asynchronous().hold(self._exchange.ask(z)))
            except OutageError as outage:
                found = await asyncio.to_thread(self._answered_here, part, z, outage)
            answers.append(found)
        return joined(answers)

    def stream(self, frames: Iterable[Array], in_flight: int = 4) -> Iterator[Answer]:
        """Answers to camera frames (C, H, W), one each, in their order, while up to `in_flight` are on their way.

        A new frame is drawn when the oldest answer is there or there is room, so an answer waits for at most one frame.

        Raises:
            as `ask` says, when the turn of the frame that failed comes; frames behind it are dropped.
        """
        if in_flight < 1:
            raise InputError(f"expected in_flight of 1 or more, got {in_flight}; use 4.")
        return in_order(frames, self._framed, in_flight)

    def send(self, z: Array) -> NDArray[np.float32]:
        """Logits of features that `features` gave, in one request and without fallback. z: (n, ...) -> (n, K).

        Raises:
            LinkError: no answer in time, or this device is refused.
            ContractError: the server refuses the request.
        """
        return self._transport.hold(self._exchange.ask(z)).logits

    def _meet(self) -> Talk[int]:
        return self._exchange.meet(min(self.timeout, CONNECT_SECONDS))

    def _parts(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        rows = self.max_batch or 1
        return [x[i : i + rows] for i in range(0, len(x), rows)]

    def _framed(self, frame: Array) -> Callable[[], Answer]:
        """Runs the edge half at once; what is returned sends its features."""
        x = self._encoder.checked(np.asarray(frame)[None])
        z = self._encoder.encode(x)
        return lambda: self._exchanged(x, z)

    def _exchanged(self, x: NDArray[np.float32], z: Array) -> Answer:
        try:
            return Answer.of(self._transport.hold(self._exchange.ask(z)))
        except OutageError as outage:
            return self._answered_here(x, z, outage)

    def _answered_here(self, x: NDArray[np.float32], z: Array, outage: OutageError) -> Answer:
        if self._local is None:
            raise outage
        log.warning("answered on the device: %s", outage)
        return Answer(self._local(x, z), local=True, sent=0, attempts=0)

    def _asynchronous(self) -> AsyncTransport:
        loop = asyncio.get_running_loop()
        if self._looped is None or self._looped[0] is not loop:
            self._looped = loop, self._transport.asynchronous()
        return self._looped[1]

    def _renew(self) -> None:
        self._transport.renew()
        self._looped = None
