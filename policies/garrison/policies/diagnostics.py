"""What is wrong with a commit: every finding says where, what, and what would be right.

A commit is judged whole, so findings are collected, never raised one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

MAX_DIAGNOSTICS = 500


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A field of a file. `line` is 0 where only the whole file or commit is meant."""

    file: str
    line: int = 0
    field: str = ""

    def __str__(self) -> str:
        """Read as `file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One finding. `code` is stable: `area/what`."""

    place: Place
    code: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Read as `file:line: field: reason (fix: remedy)`."""
        where = f"{self.place}: {self.place.field}: " if self.place.field else f"{self.place}: "
        return f"{where}{self.reason} (fix: {self.remedy})"

    def as_json(self) -> dict[str, object]:
        """Return the form that `--json` prints."""
        return {
            "code": self.code,
            **asdict(self.place),
            "reason": self.reason,
            "remedy": self.remedy,
        }


@dataclass(slots=True)
class Diagnostics:
    """Collects findings; past `MAX_DIAGNOSTICS` only counts them, so that it stays small."""

    found: list[Diagnostic] = field(default_factory=list)
    total: int = 0

    def add(self, place: Place, code: str, reason: str, remedy: str) -> None:
        """Record one finding."""
        self.extend([Diagnostic(place, code, reason, remedy)])

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Record findings made elsewhere."""
        for diagnostic in diagnostics:
            self.total += 1
            if len(self.found) < MAX_DIAGNOSTICS:
                self.found.append(diagnostic)

    def in_order(self) -> tuple[Diagnostic, ...]:
        """Return the findings by file and line, each once."""
        return tuple(sorted(set(self.found)))

    def __bool__(self) -> bool:
        """Tell whether anything was found."""
        return bool(self.total)

    def __iter__(self) -> Iterator[Diagnostic]:
        """Go through the findings as they were made."""
        return iter(self.found)
