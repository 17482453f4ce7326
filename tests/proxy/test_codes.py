"""The explanations of the mesh's codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from garrison.proxy.codes import explain, explanations, reference
from garrison.proxy.errors import UnknownCodeError


def test_every_code_has_a_cause_and_a_remedy() -> None:
    codes = explanations()
    assert len(codes) > 30
    for code, one in codes.items():
        assert code == f"{one.hop}/{code.split('/')[1]}"
        assert 400 <= one.status <= 599
        assert 1 <= one.grpc <= 16
        assert one.cause.endswith(".")
        assert one.remedy.endswith(".")


def test_a_denial_is_explained() -> None:
    denied = explain("inbound/denied")
    assert (denied.status, denied.grpc) == (403, 7)
    assert "rule" in str(denied)


def test_the_same_reason_is_explained_for_each_hop() -> None:
    assert explain("inbound/timeout").cause == explain("outbound/timeout").cause


@pytest.mark.parametrize("code", ["", "denied", "outbound/denied", "inbound/", "../codes"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(UnknownCodeError, match="no code of the mesh"):
        explain(code)


def test_a_misspelt_code_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownCodeError, match="inbound/denied"):
        explain("inbound/denyed")


def test_the_published_reference_is_current() -> None:
    published = Path(__file__).parents[2] / "docs" / "codes.md"
    assert published.read_text(encoding="utf-8") == reference()
