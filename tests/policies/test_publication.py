"""From a repository's newest commit to what is served, without any stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from garrison.identity.credentials import utc_now
from garrison.policies.compilation import compile_commit
from garrison.policies.diagnostics import Diagnostic, Place
from garrison.policies.errors import CommitRefusedError, RepositoryUnavailableError
from garrison.policies.last_good import LastGood
from garrison.policies.publication import Publication
from garrison.policies.snapshot import Snapshot
from tests.policies.bookstore import example_with

GOOD, BAD, BROKEN, NEXT = ("1" * 40, "2" * 40, "3" * 40, "4" * 40)
SNAPSHOT = compile_commit(example_with({}))


@dataclass
class Source:
    """A branch, which a test moves."""

    commit: str = GOOD
    is_away: bool = False
    prepared: list[str] = field(default_factory=list)

    def refresh(self) -> None:
        if self.is_away:
            raise RepositoryUnavailableError("out of reach")

    def head(self) -> str:
        return self.commit

    def prepare(self, commit: str) -> Snapshot:
        self.prepared.append(commit)
        if commit == BAD:
            finding = Diagnostic(Place("a.yaml", 3, "spec"), "a/b", "wrong", "right")
            raise CommitRefusedError(commit, (finding,), 1)
        if commit == BROKEN:
            raise ZeroDivisionError
        return replace(SNAPSHOT, commit=commit)


def publication(
    source: Source,
    told: Callable[[Snapshot], None] = lambda _: None,
    state: Path | None = None,
) -> Publication:
    last_good = LastGood(state, "repository", "main")
    return Publication(source, source.prepare, told, last_good, utc_now)


def test_a_good_commit_is_published_once() -> None:
    async def scene() -> None:
        source, told = Source(), list[Snapshot]()
        published = publication(source, told.append)
        assert await published.refresh() == "published"
        assert await published.refresh() == "unchanged"
        assert (published.commit, source.prepared, len(told)) == (GOOD, [GOOD], 1)
        source.commit = NEXT
        assert await published.refresh() == "published"
        assert published.commit == NEXT

    asyncio.run(scene())


def test_a_bad_commit_is_judged_once_and_what_is_served_stays() -> None:
    async def scene() -> None:
        source, told = Source(), list[Snapshot]()
        published = publication(source, told.append)
        await published.refresh()
        source.commit = BAD
        assert [await published.refresh() for _ in range(3)] == ["refused"] * 3
        assert (published.commit, source.prepared, len(told)) == (GOOD, [GOOD, BAD], 1)
        assert published.refusal is not None
        assert published.refusal.as_json()["diagnostics"] == [
            {
                "code": "a/b",
                "file": "a.yaml",
                "line": 3,
                "field": "spec",
                "reason": "wrong",
                "remedy": "right",
            }
        ]
        source.commit = GOOD
        assert await published.refresh() == "unchanged"
        assert published.refusal is None, "the branch was set back"

    asyncio.run(scene())


def test_a_commit_that_breaks_the_compiler_is_refused_like_any_other() -> None:
    async def scene() -> None:
        source = Source()
        published = publication(source)
        await published.refresh()
        source.commit = BROKEN
        assert await published.refresh() == "refused"
        assert await published.refresh() == "refused"
        assert source.prepared == [GOOD, BROKEN]
        assert published.commit == GOOD
        source.commit = NEXT
        assert await published.refresh() == "published"
        assert published.refusal is None

    asyncio.run(scene())


def test_a_repository_out_of_reach_is_told_until_it_is_back() -> None:
    async def scene() -> None:
        source = Source(is_away=True)
        published = publication(source)
        assert await published.refresh() == "unavailable"
        assert published.trouble == "out of reach"
        source.is_away = False
        assert await published.refresh() == "published"
        assert published.trouble is None

    asyncio.run(scene())


def test_a_restart_at_a_bad_commit_goes_back_to_the_last_good_one(tmp_path: Path) -> None:
    async def scene() -> None:
        source = Source()
        before = publication(source, state=tmp_path / "state")
        await before.confirm()
        await before.refresh()
        source.commit = NEXT
        await before.refresh()
        source.commit = BAD
        await before.refresh()

        source.prepared.clear()
        told = list[Snapshot]()
        after = publication(source, told.append, tmp_path / "state")
        assert [await after.refresh() for _ in range(3)] == ["refused"] * 3
        assert (after.commit, source.prepared, len(told)) == (NEXT, [BAD, NEXT], 1)
        assert after.refusal is not None
        assert after.refusal.commit == BAD
        source.commit = GOOD
        assert await after.refresh() == "published", "the branch says what it says"

        source.commit = BAD
        unremembering = publication(source)
        await unremembering.refresh()
        assert unremembering.commit is None, "and history is not searched for another"

    asyncio.run(scene())


def test_a_restart_while_the_repository_is_away_goes_back_too(tmp_path: Path) -> None:
    async def scene() -> None:
        source = Source()
        before = publication(source, state=tmp_path)
        await before.refresh()
        await before.confirm()
        source.is_away = True
        after = publication(source, state=tmp_path)
        assert await after.refresh() == "unavailable"
        assert (after.commit, after.trouble) == (GOOD, "out of reach")

    asyncio.run(scene())


def test_a_last_good_commit_that_is_good_no_more_is_tried_once(tmp_path: Path) -> None:
    async def scene() -> None:
        source = Source(BAD)
        LastGood(tmp_path, "repository", "main").remember(BROKEN)
        after = publication(source, state=tmp_path)
        for _ in range(3):
            assert await after.refresh() == "refused"
        assert (after.commit, source.prepared) == (None, [BAD, BROKEN])
        assert not after.first.is_set()

    asyncio.run(scene())


def test_what_was_withdrawn_is_not_remembered(tmp_path: Path) -> None:
    async def scene() -> None:
        LastGood(tmp_path, "repository", "main").remember(GOOD)
        source = Source(NEXT)
        after = publication(source, state=tmp_path)
        await after.refresh()
        after.withdraw(CommitRefusedError(NEXT, (), 0))
        assert await after.refresh() == "refused"
        assert after.commit == GOOD

    asyncio.run(scene())


def test_a_commit_that_cannot_be_remembered_is_published_and_the_old_one_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a restart would go back beyond what was published last, to rights that were withdrawn."""
    last_good = LastGood(tmp_path, "repository", "main")
    last_good.remember(GOOD)
    assert last_good.recall() == GOOD
    assert LastGood(tmp_path, "repository", "next").recall() is None
    assert LastGood(tmp_path, "elsewhere", "main").recall() is None

    def full(_: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", full)
    last_good.remember(NEXT)
    assert last_good.recall() is None


@pytest.mark.parametrize("text", [b"", b"main", b"1" * 39, b"\xff" * 40, b"1" * 100_000])
def test_what_is_no_commit_is_not_recalled(tmp_path: Path, text: bytes) -> None:
    last_good = LastGood(tmp_path, "repository", "main")
    last_good.remember(GOOD)
    (file,) = tmp_path.iterdir()
    file.write_bytes(text)
    assert last_good.recall() is None
