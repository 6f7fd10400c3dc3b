"""`Sending`: what many jobs take goes to every worker once; what cannot be sent keeps the work in this process."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from splitveil.core.errors import SplitVeilError
from splitveil.lab.jobs import Shared, Workers
from splitveil.lab.jobs.pool import Inline, WorkerLostError


@dataclass(eq=False)
class Sending:
    """Values on their way to `workers`, each sent once.

    Attributes:
        workers: who do the jobs.
        notes: why that is this process, where others were asked for.
    """

    workers: Workers = field(default_factory=Workers)
    notes: list[str] = field(default_factory=list)
    _sent: dict[int, tuple[object, Shared]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, workers: Workers, values: Sequence[object]) -> "Sending":
        """Send all of `values` now; where one of them cannot be, all jobs are done in this process and a note says so.

        A net from a file of the user's may need what only this process has.
        """
        sending = cls(workers)
        if workers.inline:
            return sending
        for value in values:
            try:
                sent = sending(value)
                workers.pool.submit(_opened, (sent,), None).result()
            except WorkerLostError:
                continue  # that is no fault of the value
            except SplitVeilError:
                raise  # no cluster there, or one of another version
            except Exception as error:
                told = " ".join(str(error).split()) or type(error).__name__
                return cls(
                    Workers(Inline()), [f"{_called(value)} cannot be sent to workers ({told}); done in this process"]
                )
        return sending

    def __call__(self, value: object) -> Shared:
        """What stands for it among a job's arguments."""
        with self._lock:
            if id(value) not in self._sent:
                self._sent[id(value)] = value, self.workers.share(value)
            return self._sent[id(value)][1]


def _opened(_value: object, _folder: object) -> tuple[str, dict[str, Any]]:
    """A worker that gets here has opened what was sent."""
    return "", {}


def _called(value: object) -> str:
    return {"Split": "the model", "Dataset": "the data set", "Question": "what is asked of the audits"}.get(
        type(value).__name__, type(value).__name__
    )
