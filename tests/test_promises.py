"""What a document says is held by a test is held by one that is there."""

from __future__ import annotations

import re

import pytest

from tests.documents import ROOT

DECISIONS = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("docs/decisions/*.md"))
_NAMED = re.compile(r"`((?:proxy/)?tests/[\w/.]+|test_\w+)`")  # a file, a folder, or a function
_FUNCTION = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Whatever a document may call a test."""
    known = set()
    for file in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("proxy/tests/*.rs")]:
        path = file.relative_to(ROOT)
        known |= {str(path), str(path.with_suffix("")), str(path.parent), file.stem}
        if file.suffix == ".py":
            known.update(_FUNCTION.findall(file.read_text(encoding="utf-8")))
    return known


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "SECURITY.md", *DECISIONS])
def test_every_test_that_a_document_names_is_there(document: str, tests: set[str]) -> None:
    named = set(_NAMED.findall((ROOT / document).read_text(encoding="utf-8")))
    assert named - tests == set()
    assert named or document in DECISIONS
