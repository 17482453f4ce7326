"""Samples by figure and contender, and what is made of them: medians, spread, ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

OURS = "garrison"
Contender = TypeVar("Contender")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a part measures."""

    rounds: int = 5
    seconds: float = 3.0  # of each run in each round
    proxies: tuple[int, ...] = (100, 1000, 5000)
    lines: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    connections: int = 1000
    namespaces: int = 50  # of 20 services each


@dataclass(slots=True)
class Figures:
    """The samples of one part, and the facts that are no numbers."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, figure: str, contender: str, value: float) -> None:
        """Keep one sample."""
        self.samples.setdefault(figure, {}).setdefault(contender, []).append(value)

    def note(self, figure: str, contender: str, fact: str) -> None:
        """Keep what is not a number, such as the name of a key exchange."""
        self.facts.setdefault(figure, {})[contender] = fact

    def medians(self) -> dict[str, dict[str, float]]:
        """Return the middle sample of each."""
        return {
            figure: {contender: round(median(values), 4) for contender, values in by.items()}
            for figure, by in self.samples.items()
        }

    def spread(self) -> dict[str, dict[str, list[float]]]:
        """Return the least and the greatest sample of each."""
        return {
            figure: {name: [round(min(all_), 4), round(max(all_), 4)] for name, all_ in by.items()}
            for figure, by in self.samples.items()
        }

    def ratio(self, figure: str, contender: str) -> float | None:
        """Return ours divided by theirs."""
        by = self.samples[figure]
        if contender == OURS or OURS not in by:
            return None
        theirs = median(by[contender])
        return median(by[OURS]) / theirs if theirs else None


def in_turn(contenders: Sequence[Contender], rounds: int) -> Iterator[Contender]:
    """Give each its turn in each round, in reverse order every other one.

    So whatever changes on the machine in the meantime changes it for all.

    >>> list(in_turn("abc", 3))
    ['a', 'b', 'c', 'c', 'b', 'a', 'a', 'b', 'c']
    """
    for number in range(rounds):
        yield from contenders if number % 2 == 0 else reversed(contenders)
