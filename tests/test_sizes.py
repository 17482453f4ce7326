"""No file and no function outgrows a reader: ruff counts statements, this counts lines."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON_LINES = 400
RUST_LINES = 500
FUNCTION_LINES = 40
GENERATED = ("_pb2.py", "_pb2_grpc.py")
_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*mod ", re.MULTILINE)  # at a Rust file's foot


def sources(suffix: str) -> Iterator[Path]:
    """Yield the files of the tree that are no tests."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", f"*{suffix}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        parts = Path(name).parts
        file = ROOT / name
        if "tests" not in parts and not name.endswith(GENERATED) and file.exists():
            yield file


def too_long(suffix: str, limit: int) -> dict[str, int]:
    found = {}
    for file in sources(suffix):
        name = str(file.relative_to(ROOT))
        text = file.read_text(encoding="utf-8")
        lines = _TESTS.split(text)[0].count("\n")
        if lines > limit:
            found[name] = lines
    return found


def test_files_stay_small() -> None:
    assert too_long(".py", PYTHON_LINES) == {}
    assert too_long(".rs", RUST_LINES) == {}


def test_functions_stay_small() -> None:
    long = {}
    for file in sources(".py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for each in ast.walk(tree):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                said = each.body[1:] if ast.get_docstring(each) else each.body
                lines = (each.end_lineno or 0) - said[0].lineno + 1 if said else 0
                if lines > FUNCTION_LINES:
                    long[f"{file.relative_to(ROOT)}:{each.lineno} {each.name}"] = lines
    assert long == {}
