"""How fast certificates may be asked for: one bucket for all, and one for each identity.

Only identities that an entry names get a bucket. Being told no costs nothing of what others may
have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from garrison.ca.errors import QuotaExceededError


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and so many at once."""

    per_second: float
    burst: int


MAX_REMEMBERED = 10_000  # buckets, before those that are full are forgotten


class TokenBucket:
    """Fills at a rate; each request takes one."""

    def __init__(self, rate: Rate, now: float) -> None:
        """Begin full."""
        self._rate = rate
        self._level = float(rate.burst)
        self._at = now

    @property
    def is_full(self) -> bool:
        """Whether it has nothing to remember, as of the last `wait_for_one`."""
        return self._level >= self._rate.burst

    def wait_for_one(self, now: float) -> float:
        """Tell after how many seconds there is one to take; 0 if there is."""
        gained = max(0.0, now - self._at) * self._rate.per_second
        self._level = min(float(self._rate.burst), self._level + gained)
        self._at = now
        return 0.0 if self._level >= 1 else (1 - self._level) / self._rate.per_second

    def take(self) -> None:
        """Take one that is there."""
        self._level -= 1


class Quota:
    """Admits requests or says when to come again."""

    def __init__(self, overall: Rate, each: Rate, monotonic: Callable[[], float]) -> None:
        """Admit `overall` of all callers and `each` of one identity."""
        self._each = each
        self._monotonic = monotonic
        self._overall = TokenBucket(overall, monotonic())
        self._buckets: dict[str, TokenBucket] = {}

    def admit(self, spiffe_id: str) -> None:
        """Count a request of this identity. Raises `QuotaExceededError`."""
        now = self._monotonic()
        if len(self._buckets) > MAX_REMEMBERED:
            self._forget_idle(now)
        own = self._buckets.setdefault(spiffe_id, TokenBucket(self._each, now))
        wait = max(own.wait_for_one(now), self._overall.wait_for_one(now))
        if wait:
            raise QuotaExceededError(
                f"too many certificates are asked for, last by {spiffe_id}",
                timedelta(seconds=wait),
            )
        own.take()
        self._overall.take()

    def _forget_idle(self, now: float) -> None:
        """Let go of identities that have not asked for long enough to be like new."""
        for spiffe_id, bucket in list(self._buckets.items()):
            bucket.wait_for_one(now)
            if bucket.is_full:
                del self._buckets[spiffe_id]
