"""`make bench`: measure what garrison costs, beside its peers, on this machine.

docs/performance.md says how, and what came out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping

from rich.console import Console

from garrison.identity.errors import GarrisonError
from tests.bench import authz_part, ca_part, policy_part, proxy_part, report
from tests.bench.figures import Effort, Figures
from tests.bench.programs import find_peers, load_program

Say = Callable[[str], None]
Part = Callable[[Effort, Say], Awaitable[Figures]]


async def _proxy(effort: Effort, say: Say) -> Figures:
    peers = find_peers()
    for name, remedy in peers.missing.items():
        say(f"{name} is not installed and not measured: {remedy}")
    return await proxy_part.measure(effort, peers, say)


PARTS: Mapping[str, Part] = {
    "proxy": _proxy,
    "ca": ca_part.measure,
    "authz": authz_part.measure,
    "policy": policy_part.measure,
}


def main() -> int:
    """Measure, print, write."""
    options = _options()
    effort = Effort(rounds=options.rounds, seconds=options.seconds)
    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        load_program()
        for name in options.only.split(",") if options.only else PARTS:
            asyncio.run(_measure(name, effort, console))
    except (GarrisonError, ExceptionGroup) as error:
        known = _leaves(error)
        if not all(isinstance(each, GarrisonError) for each in known):
            raise
        for each in known:
            console.print(f"garrison: {each}", style="red", markup=False)
        return 1
    return 0


def _leaves(error: Exception) -> list[Exception]:
    """Take task groups' wrapping off."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


async def _measure(name: str, effort: Effort, console: Console) -> None:
    def say(what: str) -> None:
        console.print(f"{name}: {what}", style="dim", markup=False, highlight=False)

    about = report.machine()
    figures = await PARTS[name](effort, say)
    about["load_average_after"] = report.machine()["load_average"]
    report.write(name, figures, about)
    report.plot(name, figures)
    report.show(name, figures, console)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"of {', '.join(PARTS)}; several by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    options = parser.parse_args()
    for name in filter(None, options.only.split(",")):
        if name not in PARTS:
            parser.error(f"--only {name}: there are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
