"""How long to wait before trying again: full jitter, so that no herd forms when a peer returns."""

from __future__ import annotations

import random
from datetime import timedelta

CAP = timedelta(seconds=150)
_FIRST = timedelta(seconds=1)
_DOUBLINGS = 10
_LEAST = timedelta(milliseconds=100)


class Backoff:
    """The delays of one series of failures."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.SystemRandom()
        self.failures = 0

    def succeeded(self) -> None:
        """Begin the next series from the shortest delay."""
        self.failures = 0

    def next_delay(self, at_least: timedelta = timedelta()) -> timedelta:
        """Return the next delay, `at_least` what the peer asked for, and never beyond the cap."""
        ceiling = min(CAP, _FIRST * (1 << min(self.failures, _DOUBLINGS)))
        self.failures += 1
        return min(CAP, max(_LEAST, at_least, ceiling * self._source.random()))
