"""What the project's documents say, for tests that hold them to the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def table_of(document: str, heading: str) -> dict[str, str]:
    """Return the first two columns of the table whose head begins so; names without backticks."""
    lines = iter((ROOT / document).read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    else:
        raise AssertionError(f"{document} has no table {heading!r}")
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        name, told = (cell.strip().replace("`", "") for cell in line.split("|")[1:3])
        rows[name] = told
    del rows["---"]
    return rows


def documented_metrics(document: str) -> set[str]:
    return {name.partition("{")[0] for name in table_of(document, "metric at `/metrics`")}


def exposed_metrics(exposition: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))
