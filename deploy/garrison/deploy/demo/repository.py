"""The policy repository of a stage: a bare one that is served, and a clone in which people edit.

A push runs the bare one's hook, which tells the policy server to look at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.deploy.demo.network import Network
from garrison.identity.errors import UnavailableError

BRANCH = "main"
GIT_SECONDS = 30.0
# Nothing of the user's own configuration (signing, hooks, templates) may change what happens here.
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "demo",
    "GIT_AUTHOR_EMAIL": "demo@bookstore.example",
    "GIT_COMMITTER_NAME": "demo",
    "GIT_COMMITTER_EMAIL": "demo@bookstore.example",
}
HOOK = """#!/usr/bin/env bash
# Tells the policy server to look now; if it is away, it looks when it is back.
if ! exec 2>/dev/null 3<>/dev/tcp/{host}/{port}; then
  echo 'the policy server is away; it looks at this when it is back'
  exit 0
fi
printf '%s\\r\\n' 'POST /refresh HTTP/1.1' 'Host: {host}:{port}' 'Content-Length: 0' \\
  'Connection: close' '' >&3
timeout 5 cat <&3 >/dev/null
"""


class GitFailedError(UnavailableError):
    """A git command of the demo failed."""


@dataclass(frozen=True, slots=True)
class PolicyRepository:
    """`served` is the bare repository, `clone` the one to edit in."""

    served: Path
    clone: Path

    async def commit(self, files: Mapping[str, str | None], message: str) -> str:
        """Write the files (None removes one), commit, push, and return the commit's id."""
        commit = await self.commit_only(files, message)
        await self.push()
        return commit

    async def commit_only(self, files: Mapping[str, str | None], message: str) -> str:
        """Write the files (None removes one), commit without a push, and return the commit's id."""
        for name, text in files.items():
            file = self.clone / name
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        await git(self.clone, "add", "--all")
        await git(self.clone, "commit", "--quiet", "--message", message)
        return await self.head()

    async def push(self) -> None:
        """Push what was committed, forced: the demo takes bad commits back."""
        await git(self.clone, "push", "--quiet", "--force", "origin", BRANCH)

    async def reset(self, commit: str) -> None:
        """Make an earlier commit the newest again, and push it."""
        await git(self.clone, "reset", "--quiet", "--hard", commit)
        await self.push()

    async def head(self) -> str:
        """Return the id of the clone's newest commit."""
        return await git(self.clone, "rev-parse", "HEAD")

    def read(self, name: str) -> str:
        """Return a file of the clone."""
        return (self.clone / name).read_text(encoding="utf-8")


async def create(example: Path, directory: Path, network: Network) -> PolicyRepository:
    """Make a repository of the example's files, moved to `network`."""
    repository = PolicyRepository(directory / "policies.git", directory / "policies")
    copy_moved(example, repository.clone, network)
    await git(directory, "init", "--quiet", "--bare", "-b", BRANCH, str(repository.served))
    await git(repository.clone, "init", "--quiet", "-b", BRANCH)
    # Whoever edits here need not have told git who they are.
    await git(repository.clone, "config", "user.name", GIT_ENVIRONMENT["GIT_AUTHOR_NAME"])
    await git(repository.clone, "config", "user.email", GIT_ENVIRONMENT["GIT_AUTHOR_EMAIL"])
    await git(repository.clone, "remote", "add", "origin", str(repository.served))
    await repository.commit({}, "make the bookstore")
    await git(repository.clone, "branch", "--quiet", f"--set-upstream-to=origin/{BRANCH}")
    return repository


def copy_moved(source: Path, target: Path, network: Network) -> None:
    """Copy a directory of text files, with their addresses moved to `network`."""
    shutil.copytree(source, target)
    for file in (each for each in target.rglob("*") if each.is_file()):
        file.write_text(network.move(file.read_text(encoding="utf-8")), encoding="utf-8")


def install_hook(repository: PolicyRepository, host: str, port: int) -> None:
    """Have pushes from now on announced to the policy server at that address."""
    hook = repository.served / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK.format(host=host, port=port), encoding="utf-8")
    hook.chmod(0o755)


async def git(directory: Path, *arguments: str) -> str:
    """Run git in a directory and return what it printed; raise `GitFailedError`."""
    program = shutil.which("git")
    if program is None:
        raise GitFailedError("git is not installed, and the demo's policies are a git repository")
    running = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=directory,
        env={**os.environ, **GIT_ENVIRONMENT},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(GIT_SECONDS):
        output, errors = await running.communicate()
    if running.returncode:
        reason = errors.decode(errors="replace").strip()
        raise GitFailedError(f"git {' '.join(arguments)} in {directory}: {reason}")
    return output.decode().strip()
