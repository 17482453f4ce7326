"""What processes have cost, as Linux accounts for it (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12  # fields after the command's closing parenthesis


@dataclass(frozen=True, slots=True)
class Cpu:
    """Time on a processor, of all threads, in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.user - earlier.user, self.system - earlier.system)


def cpu_of(pids: Iterable[int]) -> Cpu:
    """Add up what processes have used until now; the kernel counts in hundredths of a second."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        user += int(fields[_UTIME])
        system += int(fields[_STIME])
    return Cpu(user / _TICKS, system / _TICKS)


def resident_mb(pid: int) -> float:
    """Return how much of a process is in memory, in MB (2**20 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory: it has ended")
