"""What a run leaves: a table, build/bench.json, and a plot of each figure."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.figures import OURS, Figures
from tests.bench.plots import bars

FILE = Path("build/bench.json")
PLOTS = Path("build/bench")


def machine() -> dict[str, Any]:
    """Say what is measured on, and how busy it is."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def write(part: str, figures: Figures, about: dict[str, Any], file: Path = FILE) -> None:
    """Put a part into the file; other parts in it stay as they are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    whole[part] = figures.medians() | figures.facts
    whole.setdefault("spread", {})[part] = figures.spread()
    whole.setdefault("samples", {})[part] = figures.samples
    whole.setdefault("measured", {})[part] = about
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def plot(part: str, figures: Figures, directory: Path = PLOTS) -> None:
    """Draw each figure that has someone to compare with."""
    directory.mkdir(parents=True, exist_ok=True)
    spread = figures.spread()
    for figure, medians in figures.medians().items():
        if len(medians) > 1:
            picture = bars(f"{part}: {figure}", medians, spread[figure], OURS)
            (directory / f"{part}-{figure}.svg").write_text(picture, encoding="utf-8")


def show(part: str, figures: Figures, console: Console) -> None:
    """Print medians, spread, and ours divided by each other's."""
    table = Table(title=part, title_justify="left")
    for column in ("figure", "of", "median", "least … greatest", "garrison / it"):
        justify = "left" if column in {"figure", "of"} else "right"
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # literals
    spread = figures.spread()
    for figure, medians in figures.medians().items():
        for number, (name, value) in enumerate(medians.items()):
            low, high = spread[figure][name]
            ratio = figures.ratio(figure, name)
            cells = (
                _number(value),
                f"{_number(low)} … {_number(high)}",
                f"{ratio:.3g}" if ratio else "",
            )
            table.add_row("" if number else figure, name, *cells)
    console.print(table)
    for fact, by in figures.facts.items():
        told = "; ".join(f"{name}: {text}" for name, text in by.items())
        console.print(f"{fact}: {told}", markup=False, highlight=False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
