"""One bundle, loaded, tested and answering; and the change from one to the next while requests come in."""

import asyncio
import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from splitveil.core.errors import BundleError, SplitVeilError
from splitveil.core.printing import phrase
from splitveil.core.records import Manifest
from splitveil.server.batching import Batcher
from splitveil.server.patience import in_time
from splitveil.server.policy import PrivacyPolicy
from splitveil.server.trial import Trial
from splitveil.wire.bundle import CLOUD, GOLDEN, Bundle, check_signature
from splitveil.wire.contract import RequestRules
from splitveil.wire.engine import TEST_SECONDS, LoadedHalf, load_cloud, self_test

VERSION = "1"
KEPT = (CLOUD, GOLDEN)
"""Files of a bundle that a server reads once and uses as they were hashed."""
CLOSE_SECONDS = 3.0
"""For what the model still computes when all requests are over."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How any bundle is served by this server.

    Args:
        max_batch: rows of one request and of one run of the model.
        queue: rows that may wait.
        threads: of one run of the model.
        allow_missing_contract: take requests without a contract id even where a defence is on.
        policy: what the leakage card must say.
        signed_by: public key whose owner must have signed the bundle.
        patience: seconds for a bundle to be read and loaded, and again for its golden features to be answered.
    """

    max_batch: int
    queue: int
    threads: int = 1
    allow_missing_contract: bool = False
    policy: PrivacyPolicy | None = None
    signed_by: Path | None = None
    patience: float = TEST_SECONDS

    def admit(self, bundle: Bundle) -> RequestRules:
        """Make sure, before anything of it runs, that a bundle may be served; the rules of its requests.

        Raises:
            BundleError: the edge half alone, or the signature does not hold.
            PrivacyPolicyError: the leakage card does not keep the policy.
        """
        bundle.require_cloud()
        if self.signed_by is not None:
            check_signature(bundle, self.signed_by)
        if self.policy is not None:
            self.policy.enforce(bundle)
        return RequestRules(bundle.manifest, self.max_batch, False if self.allow_missing_contract else None)


class Deployment:
    """A bundle's cloud half with its rules and its queue.

    Args:
        bundle: checked files.
        terms: how to serve it.
        seen: told the rows of each batch.

    Raises:
        BundleError: the cloud half cannot be loaded, or the signature does not hold.
        PrivacyPolicyError: the leakage card does not keep the policy.
    """

    def __init__(self, bundle: Bundle, terms: Terms, seen: Callable[[int], None] = lambda rows: None) -> None:
        self.rules = terms.admit(bundle)
        self.manifest: Manifest = bundle.manifest
        self.cloud: LoadedHalf = load_cloud(bundle, terms.threads)
        # The graph is in the engine now; what it is tested with stays.
        self.bundle, self._seconds = bundle.without(CLOUD), terms.patience
        features = self.manifest.features.name

        def run(z: NDArray[Any]) -> NDArray[Any]:
            return self.cloud.run({features: z})

        self.batcher = Batcher(run, terms.max_batch, terms.queue, seen)
        self.described = described(self.manifest)
        give_back_memory()

    def test(self) -> None:
        """Answer the bundle's golden features.

        Raises:
            BundleError: other logits than at export, or none in time.
        """
        self_test(self.bundle, self.cloud, self._seconds)

    async def close(self, seconds: float | None = None) -> bool:
        """Answer what waits, then let the model go; whether it had ended in `seconds` (None: as long as it takes)."""
        try:
            async with asyncio.timeout(seconds):
                await self.batcher.idle()
        except TimeoutError:
            self.batcher.close(wait=False)
            return False
        self.batcher.close()
        return True


class Deployments:
    """The bundle that is served now, and the one before it for devices that still hold its edge half.

    A request meets the bundle whose contract id it carries, so that a change of bundles fails nobody: devices change
    over at their own pace until the next change lets the oldest bundle go.

    Args:
        first: what is served from the start.
        terms: how later ones are to be served.
        seen: told the rows of each batch.
        largest: bytes of one message that the server reads; a bundle that needs more must wait for a restart.
    """

    def __init__(self, first: Deployment, terms: Terms, seen: Callable[[int], None], largest: int) -> None:
        self.current = first
        self.previous: Deployment | None = None
        self._terms, self._seen, self._largest = terms, seen, largest
        self._changing, self._trial = asyncio.Lock(), Trial()
        self._leaving: set[asyncio.Task[bool]] = set()

    @property
    def waiting(self) -> int:
        """Rows in all queues."""
        return self.current.batcher.waiting + (self.previous.batcher.waiting if self.previous else 0)

    def of(self, contract: object) -> Deployment:
        """The one with this contract id, else the current one, whose rules then refuse the request."""
        if self.previous is not None and contract == self.previous.manifest.contract:
            return self.previous
        return self.current

    async def reload(self) -> bool:
        """Serve what now lies in the bundle's folder, if it passes its self-test; else go on and log why.

        Returns:
            Whether another bundle is served from now on.
        """
        async with self._changing:
            try:
                fresh = await in_time(self._prepared, 2 * self._terms.patience + CLOSE_SECONDS)
            except (SplitVeilError, OSError) as error:
                log.error("the bundle is not replaced: %s", error)
                return False
            except TimeoutError:
                log.error("the bundle is not replaced: it was not read, loaded and tested in time")
                return False
            except Exception as error:  # whatever a stranger's bundle makes a library stumble over
                reason = phrase(f"{type(error).__name__}: {error}".partition("\n")[0])
                log.error("the bundle is not replaced: it cannot be used (%s)", reason)
                return False
            if fresh is None:
                log.info("the bundle is not replaced: it is the one that is served")
                return False
            gone, self.previous, self.current = self.previous, self.current, fresh
            if gone is not None:
                task = asyncio.create_task(gone.close())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
            log.info("serving contract %s now", fresh.manifest.contract)
            return True

    def give_up(self) -> None:
        """Let no other bundle come any more."""
        self._trial.stop()

    async def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Answer what waits anywhere, then let all models go; whether all had ended in `seconds`."""
        self.give_up()
        there = [one for one in (self.current, self.previous) if one is not None]
        ended = await asyncio.gather(*(one.close(seconds) for one in there))
        if self._leaving:
            _, hanging = await asyncio.wait(self._leaving, timeout=seconds)
            for task in hanging:
                task.cancel()
            return all(ended) and not hanging
        return all(ended)

    def _prepared(self) -> Deployment | None:
        bundle = Bundle.load(self.current.bundle.folder, keep=KEPT)
        old, new = self.current.manifest, bundle.manifest
        if new == old and bundle.card == self.current.bundle.card:
            return None
        if new.name != old.name:
            raise BundleError(
                f"expected a bundle named {old.name!r}, got {phrase(new.name, 80)!r}; start a server of its own for it."
            )
        rules = self._terms.admit(bundle)
        if rules.max_message > self._largest:
            raise BundleError(
                f"expected messages of at most {self._largest} bytes, got features that need {rules.max_message}; "
                "restart the server."
            )
        self._trial.run(bundle, self._terms.patience)
        return Deployment(bundle, self._terms, self._seen)


def give_back_memory() -> None:
    """Return free memory to the system, where glibc would keep it.

    Loading a model of 42 MB leaves 64 MB behind, and each gRPC call that breaks off some kB between others'.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def described(manifest: Manifest) -> dict[str, Any]:
    """Names, datatypes and shapes, as the protocol's model metadata."""
    tensors = {"inputs": manifest.features, "outputs": manifest.output}
    return {
        "name": manifest.name,
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        **{side: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)}] for side, t in tensors.items()},
    }
