"""The CA's view of the repository: entries of whole, right commits, each once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from garrison.deploy.demo import repository
from garrison.deploy.demo.network import Network, random_block
from garrison.deploy.demo.repository import PolicyRepository
from garrison.deploy.demo.stage import EXAMPLE
from garrison.deploy.entry_source import RepositoryEntries
from garrison.identity.errors import RejectedError

EXTRA = """\
apiVersion: garrison.dev/v1
kind: RegistrationEntry
metadata: {name: reviews, namespace: bookstore}
spec:
  identity: bookstore/reviews
  selectors: ["local:sub:system:serviceaccount:bookstore:reviews"]
"""


async def make(directory: Path) -> tuple[PolicyRepository, RepositoryEntries]:
    policies = await repository.create(EXAMPLE, directory, Network(random_block()))
    source = RepositoryEntries(
        str(policies.served), repository.BRANCH, poll=timedelta(milliseconds=5)
    )
    return policies, source


def test_entries_of_the_newest_commit_are_read(tmp_path: Path) -> None:
    async def scene() -> None:
        policies, source = await make(tmp_path)
        read = await source.next_entries(None)
        assert read.commit == await policies.head()
        paths = {entry.spiffe_id.path for entry in read.entries}
        assert {"/ns/bookstore/sa/web", "/ns/garrison/sa/policy-server"} <= paths

    asyncio.run(scene())


def test_next_commit_is_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        policies, source = await make(tmp_path)
        first = await source.next_entries(None)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(source.next_entries(first.commit))
            await asyncio.sleep(0.1)
            assert not following.done()
            commit = await policies.commit({"registration/reviews.yaml": EXTRA}, "add reviews")
        assert following.result().commit == commit
        assert len(following.result().entries) == len(first.entries) + 1

    asyncio.run(scene())


def test_refused_commit_registers_nobody_and_is_told_once(tmp_path: Path) -> None:
    async def scene() -> None:
        policies, source = await make(tmp_path)
        first = await source.next_entries(None)
        broken = {"registration/reviews.yaml": EXTRA, "services/broken.yaml": "kind: Nothing\n"}
        await policies.commit(broken, "break a service")
        with pytest.raises(RejectedError, match=r"services/broken\.yaml:1"):
            await source.next_entries(first.commit)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await source.next_entries(first.commit)
        mended = await policies.commit({"services/broken.yaml": None}, "mend it")
        assert (await source.next_entries(first.commit)).commit == mended

    asyncio.run(scene())


def test_missing_repository_is_told(tmp_path: Path) -> None:
    source = RepositoryEntries(str(tmp_path / "absent"), "main")
    with pytest.raises(RejectedError, match="no such directory"):
        asyncio.run(source.next_entries(None))
