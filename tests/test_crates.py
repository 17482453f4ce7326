"""Every crate in the sidecar is from the one registry, and its licence is one that we may ship."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
ALLOWED = {
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
_TOKEN = re.compile(r"\(|\)|/|[A-Za-z0-9.+-]+(?: WITH [A-Za-z0-9.+-]+)?")


def is_allowed(expression: str) -> bool:
    """Evaluate an SPDX licence expression (SPDX 2.3, annex D): AND binds closer than OR.

    Crates of long ago write MIT/Apache-2.0 for OR.
    """
    words = _TOKEN.findall(expression)
    allowed = either(words)
    assert not words, f"not an SPDX expression: {expression}"
    return allowed


def either(words: list[str]) -> bool:
    allowed = both(words)
    while words and words[0] in {"OR", "/"}:
        words.pop(0)
        allowed = both(words) or allowed
    return allowed


def both(words: list[str]) -> bool:
    allowed = one(words)
    while words and words[0] == "AND":
        words.pop(0)
        allowed = one(words) and allowed
    return allowed


def one(words: list[str]) -> bool:
    word = words.pop(0)
    if word != "(":
        return word in ALLOWED
    allowed = either(words)
    assert words.pop(0) == ")"
    return allowed


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT/GPL-3.0", True),
        ("GPL-3.0 OR Apache-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("MIT OR Apache-2.0 AND GPL-3.0", True),
        ("(MIT OR Apache-2.0) AND GPL-3.0", False),
        ("GPL-2.0 WITH Classpath-exception-2.0", False),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", True),
    ],
)
def test_expressions_are_read_as_spdx_means_them(expression: str, *, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


@pytest.fixture(scope="module")
def crates() -> list[dict[str, Any]]:
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    told = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"],
        cwd=ROOT / "proxy",
        check=True,
        capture_output=True,
        timeout=300,
    ).stdout
    packages: list[dict[str, Any]] = json.loads(told)["packages"]
    assert len(packages) > 50
    return packages


def test_every_crate_is_from_the_registry(crates: list[dict[str, Any]]) -> None:
    """Not from a git branch, another registry or a path: what is locked has a checksum."""
    elsewhere = [each["id"] for each in crates if each["source"] != REGISTRY]
    assert [each for each in elsewhere if "garrison-proxy" not in each] == []


def test_every_licence_is_allowed(crates: list[dict[str, Any]]) -> None:
    refused = {
        each["name"]: each["license"]
        for each in crates
        if each["source"] is not None and not is_allowed(each["license"] or "none")
    }
    assert refused == {}
