"""What a caller of the CA can decide by: one class for each decision."""

from datetime import timedelta

from garrison.identity.errors import RejectedError, UnavailableError


class CsrRejectedError(RejectedError):
    """The request itself is wrong: another CSR or lifetime is needed."""


class NotEntitledError(RejectedError):
    """What the caller proved entitles it to no identity, or not to one alone."""


class StateRejectedError(RejectedError):
    """The state directory, a key file or the passphrase is not as it must be."""


class EntriesRejectedError(RejectedError):
    """A set of registration entries cannot be taken over; the one before stays."""


class IssuerUnavailableError(UnavailableError):
    """Nothing may be signed now: the issuer's or the clock's time is wrong, or lint halted it."""


class StoreUnavailableError(UnavailableError):
    """The store cannot be written or read now, so nothing may be issued."""


class QuotaExceededError(UnavailableError):
    """Too much was asked for; again after `retry_after`."""

    def __init__(self, message: str, retry_after: timedelta) -> None:
        """Say after what time to ask again."""
        super().__init__(message)
        self.retry_after = retry_after
