"""The demo's git repository: made from the example, pushed to, announced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from garrison.deploy.demo import repository
from garrison.deploy.demo.network import Network, parse_network
from garrison.deploy.demo.repository import GitFailedError, PolicyRepository, git

NETWORK = Network(parse_network("127.9.8.0/24"))


async def make(directory: Path) -> PolicyRepository:
    example = directory / "example"
    example.mkdir()
    (example / "service.yaml").write_text("address: 127.0.20.12\n")
    return await repository.create(example, directory, NETWORK)


async def served_head(policies: PolicyRepository) -> str:
    return await git(policies.served, "rev-parse", repository.BRANCH)


def test_example_is_moved_to_the_network(tmp_path: Path) -> None:
    policies = asyncio.run(make(tmp_path))
    assert policies.read("service.yaml") == "address: 127.9.8.12\n"


def test_commit_is_served_after_its_push(tmp_path: Path) -> None:
    async def scene() -> None:
        policies = await make(tmp_path)
        first = await served_head(policies)
        second = await policies.commit({"a/b.csv": "x\n", "service.yaml": None}, "change")
        assert await served_head(policies) == second != first
        names = await git(policies.served, "ls-tree", "-r", "--name-only", second)
        assert names == "a/b.csv"
        await policies.reset(first)
        assert await served_head(policies) == first

    asyncio.run(scene())


def test_push_is_announced(tmp_path: Path) -> None:
    async def scene() -> bytes:
        heard: asyncio.Queue[bytes] = asyncio.Queue(1)

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

        policies = await make(tmp_path)
        async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
            repository.install_hook(policies, *server.sockets[0].getsockname())
            await policies.commit({"a.md": "x"}, "change")
            async with asyncio.timeout(5):
                return await heard.get()

    assert asyncio.run(scene()).startswith(b"POST /refresh HTTP/1.1\r\nHost: 127.0.0.1:")


def test_push_works_while_nobody_hears(tmp_path: Path) -> None:
    async def scene() -> None:
        policies = await make(tmp_path)
        repository.install_hook(policies, "127.9.8.3", 1)
        commit = await policies.commit({"a.md": "x"}, "change")
        assert await served_head(policies) == commit

    asyncio.run(scene())


def test_failure_of_git_is_told(tmp_path: Path) -> None:
    with pytest.raises(GitFailedError, match="git rev-parse"):
        asyncio.run(git(tmp_path, "rev-parse", "HEAD"))
