"""The README's table of codes is complete, and its model is the one that is shipped."""

from __future__ import annotations

import re
from pathlib import Path

from garrison.authz import DEFAULT_MODEL
from tests.authz.agreement import DEFAULT_DECISIONS
from tests.authz.sources import POLICY

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "authz"
README = (COMPONENT / "README.md").read_text("utf-8")
KINDS = "model|request|effect|matcher|regex|glob|pattern|path|policy|principal|role|method|line|ip"


def test_every_code_is_listed_and_no_other() -> None:
    code = re.compile(rf'"((?:{KINDS})-[a-z-]+)"')
    sources = "".join(file.read_text("utf-8") for file in COMPONENT.rglob("*.py"))
    listed = set(re.findall(rf"`((?:{KINDS})-[a-z-]+)`", README))
    assert set(code.findall(sources)) == listed


def test_default_model_is_the_shipped_one() -> None:
    shipped = [line for line in DEFAULT_MODEL.text.splitlines() if line]
    assert "\n".join(shipped) in README
    assert POLICY in README


def test_numbers_of_decisions_are_those_that_are_made() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [long] = re.findall(r"GARRISON_TEST_DECISIONS=(\d+)", makefile)
    assert f"`make test` makes {DEFAULT_DECISIONS:,} decisions with each" in README
    assert f"`make test-long` {int(long):,} with each" in README
