"""`Front`: what the gRPC and the HTTP server share: tokens, choice of the model, time limits and counts."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.core.errors import ContractError
from splitveil.server.arrivals import Arrivals
from splitveil.server.deployment import VERSION, Deployment, Deployments
from splitveil.server.limits import Limits
from splitveil.server.metrics import Metrics
from splitveil.server.refusal import Reason, RefusedError
from splitveil.server.security import Tokens
from splitveil.wire.contract import BrokenRuleError, RequestRules

log = logging.getLogger(__name__)


class Front:
    """The decisions of a server about one request.

    Args:
        deployments: what is served.
        tokens: None asks for none.
        limits: how long a request may take.
        metrics: what counts.
        payload: bytes of one message.
        at_home: HTTP answers under names of this machine alone, which is what a server on loopback without tokens
            needs: any page in a browser here can send requests to it.
    """

    def __init__(
        self, deployments: Deployments, tokens: Tokens | None, limits: Limits, metrics: Metrics, payload: int,
        *, at_home: bool = False, lapsed: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.deployments, self.tokens, self.limits = deployments, tokens, limits
        self.metrics, self.payload, self.at_home = metrics, payload, at_home
        self._lapsed = lapsed
        self.arrivals = Arrivals(limits.read_seconds)
        self.tested = False
        """Whether the golden self-test has passed."""
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.tested and not self.draining and not self._lapsed()

    def admit(self, protocol: str, headers: Sequence[str]) -> None:
        """Ask for a token, where there are any, before anything else of a request is looked at.

        Args:
            protocol: for logs and metrics.
            headers: every ``Authorization`` that the request has; two of them are as good as none, since one reader
                takes the first and another the last.

        Raises:
            RefusedError: no token, or another; or the server has no certificate that holds.
        """
        if self._lapsed():
            with self.watched(protocol):
                raise RefusedError(
                    Reason.LAPSED,
                    "the server's certificate or authority does not hold now; ask its operator to renew it.",
                )
        if self.tokens is None or (len(headers) == 1 and self.tokens.allow(headers[0])):
            return
        with self.watched(protocol):
            raise RefusedError(
                Reason.TOKEN,
                "expected one 'Authorization: Bearer TOKEN' with a token of this server; ask its operator.",
            )

    def named(self, name: str, version: str) -> Deployment:
        """What is served now, if that is its name.

        Raises:
            RefusedError: another name or version.
        """
        current = self.deployments.current
        if name != current.manifest.name or version not in ("", VERSION):
            served = f"{current.manifest.name!r} version {VERSION}"
            raise RefusedError(Reason.UNKNOWN, f"this server offers only {served}; ask for that model.")
        return current

    def chosen(self, name: str, version: str, contract: object) -> Deployment:
        """What answers a request with this contract id.

        Raises:
            RefusedError: another name or version, or the server is starting.
        """
        if not self.tested:
            raise RefusedError(Reason.STARTING, "the server is starting; try again.")
        self.named(name, version)
        return self.deployments.of(contract)

    def expiry(self, seconds: float | None) -> float:
        """When nobody waits any more, by the event loop's clock. seconds: that the client allows, if it says so."""
        allowed = self.limits.request_seconds
        return asyncio.get_running_loop().time() + (allowed if seconds is None else min(allowed, seconds))

    async def infer(
        self,
        name: str,
        version: str,
        contract: object,
        read: Callable[[RequestRules], NDArray[Any]],
        *,
        expires: float,
        microseconds: int,
    ) -> tuple[Deployment, NDArray[Any]]:
        """What answered, and its logits (n, K), float32.

        Args:
            name: of the model, as asked for.
            version: as asked for.
            contract: id that the client sends.
            read: features of the request, if they keep the rules.
            expires: by the protocol, from before the body was read.
            microseconds: that the request allows by its own parameter; none where not above 0.

        Raises:
            ContractError: a broken rule.
            RefusedError: another model, the queue is full, the time is over, or the model failed, as it does by NaN
                or infinity, which are no class and in JSON not even numbers.
        """
        model = self.chosen(name, version, contract)
        z = read(model.rules)
        if microseconds > 0:
            expires = min(expires, self.expiry(min(microseconds, 2**53) / 1e6))
        logits = await model.batcher(z, expires)
        if not np.isfinite(logits).all():
            raise RefusedError(
                Reason.FAILED, "the cloud half answered NaN or infinity; ask the operator to check its weights."
            )
        return model, logits.astype("<f4", copy=False)

    @contextmanager
    def watched(self, protocol: str) -> Iterator[None]:
        """Count and time what happens inside; a broken rule comes out as a refusal.

        Raises:
            RefusedError: whatever inside refused.
        """
        start = time.perf_counter()
        status = "cancelled"
        try:
            yield
            status = "ok"
        except ContractError as error:
            status = Reason.CONTRACT.word
            rule = error.rule if isinstance(error, BrokenRuleError) else None
            self._refused(protocol, status, rule, str(error), start)
            raise RefusedError(Reason.CONTRACT, str(error)) from None
        except RefusedError as error:
            status = error.reason.word
            self._refused(protocol, status, None, str(error), start)
            raise
        except Exception:
            status = Reason.FAILED.word
            raise
        finally:
            self.metrics.request(protocol, status, time.perf_counter() - start)

    def _refused(self, protocol: str, reason: str, rule: str | None, sentence: str, start: float) -> None:
        self.metrics.refusal(f"{reason}: {rule}" if rule else reason)
        told = {"protocol": protocol, "reason": reason, "milliseconds": round(1000 * (time.perf_counter() - start), 3)}
        log.info("refused: %s", sentence, extra=told | ({"rule": rule} if rule else {}))
