"""What the demo shows: while it runs, and at its end.

A line for each thing that happened, with a spinner below them on a terminal; for scripts one JSON
document on stdout, and the lines on stderr. What was told stays told: a live picture of more lines
than the terminal has would be cut.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from rich.console import Console, Group
from rich.padding import Padding
from rich.status import Status
from rich.text import Text

INDENT = 4


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo shows, and whether it happened."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Show:
    """Tells a person what happens."""

    console: Console
    checks: list[Check] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _spinner: Status | None = None

    @property
    def ok(self) -> bool:
        """Claim that everything that was shown happened."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def doing(self, what: str) -> None:
        """Tell what happens now."""
        if self._spinner is None:
            self.tell(f"... {what}")
        else:
            self._spinner.update(Text(what))

    def checked(self, check: Check) -> None:
        """Tell what came of a scene."""
        self.checks.append(check)
        if not self.console.is_terminal:
            self.tell(f"{'ok' if check.ok else 'FAILED':8}{check.name}: {check.detail}")
            return
        mark = Text("✔", style="bold green") if check.ok else Text("✘ FAILED", style="bold red")
        name = Text.assemble("  ", mark, " ", (check.name, "bold"))
        self.console.print(
            Group(name, Padding(Text(check.detail), (0, 1, 0, INDENT), expand=False))
        )

    def summed_up(self) -> None:
        """Tell how many of the checks were good."""
        good = sum(check.ok for check in self.checks)
        seconds = time.monotonic() - self._began
        self.tell(f"\n{good} of {len(self.checks)} checks passed, {seconds:.0f} s after the start.")

    def suggest(self, commands: Mapping[str, str]) -> None:
        """Tell what to try next, each command whole, to be pasted."""
        self.tell("The mesh runs until Ctrl-C. In another terminal:\n")
        for purpose, command in commands.items():
            self.tell(f"  # {purpose}", style="dim")
            self.tell(f"  {command}\n")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show a spinner on a terminal while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status("") as self._spinner:
            yield
        self._spinner = None

    def report(self) -> str:
        """Return the checks as JSON."""
        return json.dumps({"checks": [asdict(check) for check in self.checks], "ok": self.ok})

    def tell(self, text: str, style: str | None = None) -> None:
        """Write a line as it is: nothing in it is markup, and none is cut."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)
