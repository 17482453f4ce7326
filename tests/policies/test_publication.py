"""From a repository's newest commit to what is served, without any stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from garrison.identity.credentials import utc_now
from garrison.policies.compilation import compile_commit
from garrison.policies.diagnostics import Diagnostic, Place
from garrison.policies.errors import CommitRefusedError, RepositoryUnavailableError
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


def publication(source: Source, told: Callable[[Snapshot], None] = lambda _: None) -> Publication:
    return Publication(source, source.prepare, told, utc_now)


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
