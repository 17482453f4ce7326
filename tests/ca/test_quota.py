"""Requests are admitted at a rate; whoever has used up the own share takes nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.ca.errors import QuotaExceededError
from garrison.ca.quota import MAX_REMEMBERED, Quota, Rate

LARGE = Rate(1e6, 10**6)


def admitted(quota: Quota, spiffe_id: str = "a") -> bool:
    try:
        quota.admit(spiffe_id)
    except QuotaExceededError:
        return False
    return True


def test_a_burst_passes_and_then_the_rate() -> None:
    now = [0.0]
    quota = Quota(LARGE, Rate(2, 3), lambda: now[0])
    assert [admitted(quota) for _ in range(5)] == [True, True, True, False, False]
    with pytest.raises(QuotaExceededError) as refusal:
        quota.admit("a")
    assert refusal.value.retry_after.total_seconds() == 0.5
    now[0] = 0.5
    assert [admitted(quota) for _ in range(2)] == [True, False]
    assert admitted(quota, "b")


def test_all_together_have_a_limit() -> None:
    quota = Quota(Rate(1, 2), LARGE, lambda: 0.0)
    assert [admitted(quota, name) for name in "abc"] == [True, True, False]


def test_who_is_refused_costs_the_others_nothing() -> None:
    quota = Quota(Rate(1, 2), Rate(1, 1), lambda: 0.0)
    assert [admitted(quota) for _ in range(50)].count(True) == 1
    assert admitted(quota, "b")


@given(st.lists(st.floats(0, 5), max_size=200))
def test_no_more_than_burst_and_rate_are_admitted(steps: list[float]) -> None:
    now = [0.0]
    quota = Quota(LARGE, Rate(2, 5), lambda: now[0])
    count = 0
    for step in steps:
        now[0] += step
        count += admitted(quota)
    assert count <= 5 + 2 * now[0] + 1e-6


def test_a_clock_that_goes_back_admits_no_more() -> None:
    now = [10.0]
    quota = Quota(LARGE, Rate(1, 1), lambda: now[0])
    assert admitted(quota)
    now[0] = 0.0
    assert not admitted(quota)


def test_what_is_remembered_is_bounded() -> None:
    now = [0.0]
    quota = Quota(Rate(1e9, 10**9), Rate(1, 1), lambda: now[0])
    for number in range(3 * MAX_REMEMBERED):
        now[0] += 0.001
        quota.admit(str(number))
    assert len(quota._buckets) <= MAX_REMEMBERED + 1  # noqa: SLF001
