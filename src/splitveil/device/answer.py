"""`Answer`: the logits for one question, who computed them, the bytes sent and the attempts made."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from splitveil.device.exchange import Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """Logits, who gave them and what it took.

    Attributes:
        logits: (n, K).
        local: whether the fallback answered, all or a part.
        sent: bytes of features that went out, without protocol headers and repeated attempts; 0 where nobody answered.
        attempts: of all requests that it took, those that failed included; 0 where nobody answered.
    """

    logits: NDArray[np.float32]
    local: bool
    sent: int
    attempts: int

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """A server's."""
        return cls(reply.logits, local=False, sent=reply.sent, attempts=reply.attempts)


def joined(answers: list[Answer]) -> Answer:
    """Answers to parts of a question as one."""
    if len(answers) == 1:
        return answers[0]
    return Answer(
        np.concatenate([a.logits for a in answers]),
        local=any(a.local for a in answers),
        sent=sum(a.sent for a in answers),
        attempts=sum(a.attempts for a in answers),
    )
