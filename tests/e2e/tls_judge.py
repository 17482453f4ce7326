"""The Go TLS peer of `judge/`, built once and called as a program."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "judge"
SECONDS = 20


@dataclass(frozen=True)
class Verdict:
    """What one connection came to."""

    version: str
    group: str
    alpn: str
    peer: str
    resumed: bool
    response: str
    error: str = ""

    @property
    def status(self) -> int:
        """The status of the response's first line."""
        return int(self.response.split(maxsplit=2)[1])


@functools.cache
def executable() -> Path:
    """Build the judge; Go keeps what it compiled between runs. It is gone with this process."""
    directory = tempfile.TemporaryDirectory(prefix="garrison-judge-")
    atexit.register(directory.cleanup)
    target = Path(directory.name) / "judge"
    subprocess.run(["go", "build", "-o", target, "."], cwd=SOURCE, check=True, timeout=300)
    return target


def connect(
    address: str, identity: Path, request: bytes = b"", *options: str, anonymous: bool = False
) -> Verdict:
    """Open one connection with the svid.pem, key.pem and roots.pem of a directory."""
    command: list[str | Path] = [
        executable(),
        "connect",
        "-address",
        address,
        "-roots",
        identity / "roots.pem",
    ]
    if not anonymous:
        command += ["-certificate", identity / "svid.pem", "-key", identity / "key.pem"]
    done = subprocess.run(
        [*command, *options], input=request, capture_output=True, check=True, timeout=SECONDS
    )
    return Verdict(**json.loads(done.stdout))


@contextlib.contextmanager
def serving(address: str, identity: Path) -> Iterator[str]:
    """Answer every request on a mutual TLS port until the block ends."""
    files: list[str | Path] = ["-certificate", identity / "svid.pem", "-key", identity / "key.pem"]
    server = subprocess.Popen(
        [executable(), "serve", "-address", address, *files, "-roots", identity / "roots.pem"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().decode().strip()
        finally:
            server.kill()
