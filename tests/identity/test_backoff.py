"""Delays between tries."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from garrison.identity.backoff import CAP, Backoff


@given(st.integers(), st.integers(min_value=1, max_value=200))
def test_a_delay_is_jittered_and_capped(seed: int, failures: int) -> None:
    backoff = Backoff(random.Random(seed))
    delays = [backoff.next_delay() for _ in range(failures)]
    assert all(timedelta() < delay <= CAP for delay in delays)
    assert all(
        delay <= max(timedelta(seconds=2 ** min(number, 10)), timedelta(seconds=0.1))
        for number, delay in enumerate(delays)
    )


def test_success_begins_the_series_anew() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(20):
        backoff.next_delay()
    backoff.succeeded()
    assert backoff.next_delay() <= timedelta(seconds=1)


def test_a_peer_may_ask_for_longer_but_not_beyond_the_cap() -> None:
    assert Backoff().next_delay(timedelta(seconds=100)) == timedelta(seconds=100)
    assert Backoff().next_delay(timedelta(days=1)) == CAP
