"""Many threads share a commit; each learns what became of its own work."""

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from garrison.ca.group_commit import GroupCommit


def test_work_that_waits_is_committed_together_and_in_order() -> None:
    batches: list[list[int]] = []
    release = threading.Event()

    def commit(works: Sequence[int]) -> Sequence[int]:
        batches.append(list(works))
        release.wait(timeout=10)
        return [10 * work for work in works]

    group = GroupCommit(commit, 4)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(group.submit, 0)
        while not batches:
            pass
        others = [pool.submit(group.submit, number) for number in range(1, 9)]
        while len(group._waiting) < 8:  # noqa: SLF001
            pass
        release.set()
        assert [first.result(), *(each.result() for each in others)] == list(range(0, 90, 10))
    assert [len(batch) for batch in batches] == [1, 4, 4]
    assert sorted(itertools.chain(*batches)) == list(range(9))


def test_a_failed_commit_fails_all_of_its_work_and_no_other() -> None:
    def commit(works: Sequence[str]) -> Sequence[str]:
        if "bad" in works:
            raise OSError("disk full")
        return works

    group = GroupCommit(commit, 4)
    with pytest.raises(OSError, match="disk full"):
        group.submit("bad")
    assert group.submit("good") == "good"
