"""Runs a program that dies with the process that started it, however that one ended.

`python -I -S leash.py PARENT_PID PROGRAM ARGUMENT...`: asks the kernel for SIGKILL at the parent's
death (prctl(2), PR_SET_PDEATHSIG; execve keeps it), then becomes the program. A program of its own
rather than a `preexec_fn`, which must not run in a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Leash this process, then become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent died first")
    os.execv(command[0], command)  # noqa: S606  # no shell is the point


if __name__ == "__main__":
    main()
