"""A directory that is gone with the process that made it, however that one ended.

`python -I -S janitor.py DIRECTORY` reads its stdin: a pipe of which only the owner holds the other
end, so that its end is the owner's. Then it removes the directory, which holds a CA's keys.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ATTEMPTS = 100
PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Make a directory that ends with the block, or with this process."""
    with tempfile.TemporaryDirectory(prefix=prefix) as directory:
        janitor = subprocess.Popen(  # noqa: S603  # this file
            [sys.executable, "-I", "-S", __file__, directory],
            stdin=subprocess.PIPE,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        with janitor:
            try:
                yield Path(directory)
            finally:
                janitor.kill()


def main() -> None:
    """Wait for the owner's end, and remove its directory."""
    sys.stdin.read()
    directory = Path(sys.argv[1])
    for _ in range(ATTEMPTS):  # what the owner started is ending now, and may still write
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
