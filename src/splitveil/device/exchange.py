"""The device's side of a request: calls, pauses and retries, apart from how the bytes get there.

A conversation is a generator that asks for calls and pauses; whoever runs it may block or await. So there is one set of
rules for both, and no test of it needs a network.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from splitveil.core.errors import AnswerError, ContractError, LinkError
from splitveil.core.printing import printable
from splitveil.core.records import Manifest, Tensor
from splitveil.device.breaker import Breaker
from splitveil.device.retry import Retry, RetryBudget
from splitveil.wire import compression
from splitveil.wire.contract import PARAMETER, PREVIOUS

T = TypeVar("T")
AGAIN = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""Statuses after which the same bytes may be sent again: nothing was answered."""
REFUSED = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
LONGEST = 500
"""Characters of a server's words that are shown."""
MOST_ROWS = 1024
"""Rows of one request, whatever a server says that it takes."""
LOOK_SECONDS = 2.0
"""For a look at the address of a server that was never met."""
STRANGERS = ("UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass(frozen=True, slots=True)
class Call:
    """A message to send, and seconds to wait for its answer; `wait`: also for a server to come back."""

    method: str
    message: bytes
    timeout: float
    wait: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to let pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """See what stands at the servers' addresses, in so many seconds; the answer is words, or nothing."""

    seconds: float


Talk = Generator[Call | Pause | Look, bytes, T]


class Failed(Exception):  # noqa: N818
    """A call ended with another status than OK; thrown into the conversation by whoever runs it."""

    def __init__(self, status: str, said: str) -> None:
        super().__init__(status)
        self.status, self.said = status, heard(said)


def largest_answer(manifest: Manifest) -> int:
    """Bytes of the largest message that a server of this bundle has reason to send."""
    return 4 * manifest.output.shape[1] * MOST_ROWS + 2**20


def heard(said: str) -> str:
    """A server's words as they may be shown: bounded, and nothing that a terminal obeys."""
    return printable(said, LONGEST).rstrip(".")


class OutageError(LinkError):
    """No answer: what a fallback is for. A refusal of the device or of its bundle is none."""


class MalformedAnswerError(OutageError, AnswerError):
    """An answer that is none: no message of the protocol, other tensors or sizes than were asked for, NaN or infinity.

    The fallback answers instead, and the breaker counts it: a device trusts no server to be well.
    """


@dataclass(frozen=True, slots=True)
class Reply:
    """Logits (n, K), the bytes of features that one attempt sent, and how many attempts it took."""

    logits: NDArray[np.float32]
    sent: int
    attempts: int


class Exchange:
    """The rules of one device: agreement first, retries within a budget, a breaker around all.

    Args:
        manifest: of the device's bundle.
        where: servers, for messages.
        timeout: seconds for one request in all.
        rules: of retries.
        breaker: of this device.
        compress: encoding of contents, or None.
        waits: for a server to come back, as long as the timeout allows; without, a request fails as soon as it can.
    """

    def __init__(
        self, manifest: Manifest, where: str, timeout: float, rules: Retry, breaker: Breaker, compress: str | None,
        waits: bool,
    ) -> None:  # fmt: skip
        self.manifest, self.where, self.timeout, self.rules, self.breaker = manifest, where, timeout, rules, breaker
        self.compress, self.waits = compress, waits
        self.budget = RetryBudget(rules)
        self.max_batch: int | None = None
        """Rows that the server takes; None before one has been met."""
        self._agreed = False
        self.renew: Callable[[], None] = lambda: None
        """Told when the breaker opens."""

    def meet(self, timeout: float) -> Talk[int]:
        """Check what is served; rows of one request that it takes.

        Raises:
            OutageError, LinkError, ContractError: as `ask` says.
        """

        def attempt(left: float) -> Talk[int]:
            return (yield from self._agree(left, wait=False))

        found, _ = yield from self._guarded(self._persistently(attempt, timeout))
        return found

    def ask(self, z: NDArray[Any]) -> Talk[Reply]:
        """Logits of features (n, ...) as the edge half gave them. Every attempt sends the same bytes.

        Raises:
            OutageError: no answer in time, or the breaker is open; `MalformedAnswerError`: one that is none.
            LinkError: the server refuses this device.
            ContractError: the server refuses the request, or tells of another bundle.
        """
        message, sent = self._message(z)

        def attempt(left: float) -> Talk[NDArray[np.float32]]:
            if not self._agreed:
                yield from self._agree(left, self.waits)
            content = yield Call("ModelInfer", message, left, self.waits)
            return self._logits(content, len(z))

        logits, attempts = yield from self._guarded(self._persistently(attempt, self.timeout))
        return Reply(logits, sent, attempts)

    def _guarded(self, talk: Talk[T]) -> Talk[T]:
        if not self.breaker.admit():
            raise OutageError(
                f"the circuit to {self.where} is open after {self.breaker.failures} failures in a row; "
                f"ask again in {self.breaker.wait:.1f} s."
            )
        try:
            found = yield from talk
        except OutageError:
            if self.breaker.failed():
                self.renew()
            raise
        except (LinkError, ContractError):
            self.breaker.passed()
            raise
        except BaseException:
            self.breaker.gave_up()
            raise
        self.breaker.passed()
        return found

    def _persistently(self, attempt: Callable[[float], Talk[T]], timeout: float) -> Talk[tuple[T, int]]:
        until, tried = time.monotonic() + timeout, 0
        again = AGAIN if self.rules.patience is None else (*AGAIN, "DEADLINE_EXCEEDED")
        self.budget.earn()
        while True:
            left, tried = until - time.monotonic(), tried + 1
            try:
                return (yield from attempt(min(left, self.rules.patience or left))), tried
            except Failed as failure:
                if failure.status in (*REFUSED, "UNAVAILABLE"):
                    self._agreed = False  # whoever answers next may be another server
                pause = self.rules.pause(tried)
                hopeless = failure.status not in again or tried >= self.rules.attempts
                if hopeless or time.monotonic() + pause >= until or not self.budget.spend():
                    seen, left = b"", until - time.monotonic()
                    if failure.status == "UNAVAILABLE" and self.max_batch is None and left > 0:
                        seen = yield Look(min(LOOK_SECONDS, left))
                    raise self._explained(failure, tried, seen.decode()) from None
                yield Pause(pause)

    def _agree(self, left: float, wait: bool) -> Talk[int]:
        self.max_batch = yield from self._described(left, wait)
        self._agreed = True
        return self.max_batch

    def _described(self, left: float, wait: bool) -> Talk[int]:
        m = self.manifest
        asked = service_pb2.ModelMetadataRequest(name=m.name).SerializeToString()
        content = yield Call("ModelMetadata", asked, left, wait)
        found = self._parsed(service_pb2.ModelMetadataResponse, content)
        wrong = self._unlike(m.features, found.inputs) or self._unlike(m.output, found.outputs)
        asked = service_pb2.ModelConfigRequest(name=m.name).SerializeToString()
        try:
            content = yield Call("ModelConfig", asked, left, wait)
        except Failed as failure:
            if failure.status != "UNIMPLEMENTED":
                raise
            if wrong is not None:
                raise wrong from None
            return 1
        config = self._parsed(service_pb2.ModelConfigResponse, content).config
        rows = max(1, min(MOST_ROWS, int(config.max_batch_size)))
        if PREVIOUS in config.parameters and config.parameters[PREVIOUS].string_value == m.contract:
            return rows  # a new bundle is served, of which this device has not heard yet
        theirs = config.parameters[PARAMETER].string_value if PARAMETER in config.parameters else ""
        if wrong is None and theirs in ("", m.contract):
            return rows
        raise wrong or ContractError(
            f"the server at {self.where} has contract {heard(theirs)}, this device {m.contract}; give both the same "
            "bundle."
        )

    def _unlike(self, mine: Tensor, theirs: Any) -> ContractError | None:
        described = [(t.name, t.datatype, tuple(t.shape)[1:]) for t in theirs]
        if described == [(mine.name, mine.datatype, mine.shape[1:])]:
            return None
        return ContractError(
            f"the server at {self.where} describes {heard(str(described[:4]))}, expected {mine.name} {mine.datatype} "
            f"{mine.shape}; serve the bundle that the device holds."
        )

    def _message(self, z: NDArray[Any]) -> tuple[bytes, int]:
        m = self.manifest
        content = np.ascontiguousarray(z).tobytes()
        request = service_pb2.ModelInferRequest(model_name=m.name)
        request.inputs.add(name=m.features.name, datatype=m.features.datatype, shape=z.shape)
        request.outputs.add(name=m.output.name)
        request.parameters[PARAMETER].string_param = m.contract
        if self.compress is not None:
            content = compression.pack(content, self.compress)
            request.parameters[compression.PARAMETER].string_param = self.compress
        request.raw_input_contents.append(content)
        return request.SerializeToString(), len(content)

    def _logits(self, content: bytes, rows: int) -> NDArray[np.float32]:
        name, expected = self.manifest.output.name, (rows, self.manifest.output.shape[1])
        answer = self._parsed(service_pb2.ModelInferResponse, content)
        raw, wanted = answer.raw_output_contents, expected[0] * expected[1]
        if len(answer.outputs) != 1 or len(raw) > 1:
            raise self._malformed(f"one {name}", f"{len(answer.outputs)} outputs")
        told = answer.outputs[0]
        if (told.name, told.datatype, tuple(told.shape)) != (name, "FP32", expected):
            raise self._malformed(f"{name} FP32 {expected}", "another name, type or shape")
        if len(raw[0]) != 4 * wanted if raw else len(told.contents.fp32_contents) != wanted:
            raise self._malformed(f"{wanted} numbers", "more, fewer or a part of one")
        values = np.frombuffer(raw[0], "<f4") if raw else np.fromiter(told.contents.fp32_contents, "<f4", wanted)
        values = values.reshape(expected)
        if strange := int((~np.isfinite(values)).any(1).sum()):
            raise self._malformed("finite answers", f"NaN or infinity for {strange} of {rows} images")
        return values.astype(np.float32)

    def _parsed(self, kind: Any, content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except DecodeError:
            raise self._malformed("KServe v2", "something else") from None

    def _malformed(self, expected: str, got: str) -> MalformedAnswerError:
        return MalformedAnswerError(
            f"expected {expected} of {self.where}, got {got}; check the address, and ask its operator to check the "
            "cloud half."
        )

    def _explained(self, failure: Failed, tried: int, seen: str) -> LinkError | ContractError:
        status, said = failure.status, failure.said
        if status in REFUSED:
            return ContractError(f"the server at {self.where} refuses: {said}.")
        if status in STRANGERS:
            return LinkError(f"the server at {self.where} refuses this device ({status}: {said}); check its token.")
        times = f"after {tried} attempts " if tried > 1 else ""
        if seen:
            return OutageError(f"no answer from {self.where}{times and f' {times.strip()}'}: {seen}.")
        if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
            return OutageError(
                f"no answer from {self.where} {times}({status}: {said}); check the address and that "
                "`splitveil serve` runs."
            )
        return OutageError(f"the server at {self.where} failed {times}({status}: {said}); ask its operator.")
