"""What became of each request, and what a caller is told of it: one place for both.

Who asks without right learns that it has none, not why: the reason is for our log.
"""

import enum
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import grpc

from garrison.ca.errors import CsrRejectedError, NotEntitledError, QuotaExceededError
from garrison.identity.attestation import TokenRejectedError
from garrison.identity.errors import GarrisonError, UnavailableError

RETRY = timedelta(seconds=2)


class Outcome(enum.Enum):
    """The `outcome` label of the metrics, and the words of the log."""

    ISSUED = "issued"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    INVALID = "invalid"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status, and all that the caller learns."""

    outcome: Outcome
    code: grpc.StatusCode
    text: str
    retry_after: timedelta | None = None


def refusal_of(error: Exception) -> Refusal:
    """Tell what an error means to the caller."""
    match error:
        case TokenRejectedError():
            text = "the bearer token is not accepted"
            return Refusal(Outcome.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED, text)
        case NotEntitledError():
            text = "no one registration entry matches this caller"
            return Refusal(Outcome.DENIED, grpc.StatusCode.PERMISSION_DENIED, text)
        case CsrRejectedError():
            return Refusal(Outcome.INVALID, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        case QuotaExceededError():
            code, text = grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests"
            return Refusal(Outcome.EXHAUSTED, code, text, error.retry_after)
        case UnavailableError():
            code, text = grpc.StatusCode.UNAVAILABLE, "nothing can be issued now"
            return Refusal(Outcome.UNAVAILABLE, code, text, RETRY)
        case _:
            return Refusal(Outcome.INTERNAL, grpc.StatusCode.INTERNAL, "internal error")


def is_expected(error: Exception) -> bool:
    """Claim that an error is one of ours, whose text says enough without a traceback."""
    return isinstance(error, GarrisonError)


class Tally:
    """How often each outcome was met since the start; on the event loop only."""

    def __init__(self) -> None:
        """Begin with none."""
        self.counts: Counter[Outcome] = Counter(dict.fromkeys(Outcome, 0))

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome] += 1
