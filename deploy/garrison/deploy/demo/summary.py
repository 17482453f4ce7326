"""What the demo shows: while it runs, and at its end.

On a terminal a live table; elsewhere a line for each thing that happened; for scripts one JSON
document on stdout, and the lines on stderr.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


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
    _doing: str = ""
    _live: Live | None = None

    @property
    def ok(self) -> bool:
        """Claim that everything that was shown happened."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def doing(self, what: str) -> None:
        """Tell what happens now."""
        self._doing = what
        if self._live is None:
            self.tell(f"... {what}")
        else:
            self._live.update(self._picture())

    def checked(self, check: Check) -> None:
        """Tell what came of a scene."""
        self.checks.append(check)
        if self._live is None:
            self.tell(f"{'ok' if check.ok else 'FAILED':8}{check.name}: {check.detail}")
        else:
            self._live.update(self._picture())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show the live table on a terminal while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self._picture(), console=self.console, refresh_per_second=8) as self._live:
            try:
                yield
            finally:
                self._doing = ""
                self._live.update(self._picture())
        self._live = None

    def report(self) -> str:
        """Return the checks as JSON."""
        return json.dumps({"checks": [asdict(check) for check in self.checks], "ok": self.ok})

    def tell(self, text: str) -> None:
        """Write a line as it is: nothing in it is markup, and none is cut."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for check in self.checks:
            table.add_row(_mark(check), Text(check.name), Text(check.detail))
        if not self._doing:
            return table
        return Group(table, Spinner("dots", text=Text(self._doing)))


def _mark(check: Check) -> Text:
    return Text("ok", style="green") if check.ok else Text("FAILED", style="bold red")
