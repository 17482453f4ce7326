"""The commit that was published last, remembered over restarts.

A server that starts while the newest commit is bad goes on with this one, as if it had never been
away. It is never guessed from history: an older commit may allow what was since forbidden, and one
in between was never anybody's word. So what cannot be written is forgotten, too.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import structlog

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_BYTES = 64

log = structlog.get_logger()


class LastGood:
    """A file for one branch of one repository; without a directory nothing is remembered."""

    def __init__(self, directory: Path | None, repository: str, branch: str) -> None:
        name = hashlib.sha256(f"{branch}\n{repository}".encode()).hexdigest()[:32]
        self._file = directory and directory / f"{name}.commit"

    def recall(self) -> str | None:
        """Return the commit that was published last, if it is known. Blocks."""
        if self._file is None:
            return None
        try:
            with self._file.open("rb") as opened:
                text = opened.read(_MAX_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("last good commit unknown", file=str(self._file), reason=error.strerror)
            return None
        return text if _COMMIT.fullmatch(text) else None

    def remember(self, commit: str) -> None:
        """Write a commit down before it is published; what it replaces is gone either way. Blocks.

        No disk may keep a commit from being published: one that withdraws a right least of all.
        """
        if self._file is None or self.recall() == commit:
            return
        try:
            self._file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._write(self._file, commit)
        except OSError as error:
            log.warning("last good commit not kept", file=str(self._file), reason=error.strerror)
            self._forget(self._file)

    def _write(self, file: Path, commit: str) -> None:
        new = file.with_suffix(".new")
        with new.open("w", encoding="ascii") as opened:
            opened.write(f"{commit}\n")
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)

    def _forget(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.error("an older commit is kept", file=str(file), reason=error.strerror)  # noqa: TRY400 -- no traceback
