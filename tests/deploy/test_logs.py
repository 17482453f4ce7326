"""No secret reaches a log."""

from __future__ import annotations

import pytest

from garrison.deploy.logs import REDACTED, redact


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "abc"),
        ("csr", b"der"),
        ("error", "metadata was Bearer abc.def"),
        ("detail", "-----BEGIN EC PRIVATE KEY-----\nMHc"),
        ("detail", "-----BEGIN PRIVATE KEY-----\nMHc"),
        ("detail", "-----BEGIN CERTIFICATE REQUEST-----\nMHc"),
        ("detail", "got eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"),
    ],
)
def test_secret_is_redacted(name: str, value: object) -> None:
    assert redact(None, "info", {name: value}) == {name: REDACTED}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event", "certificate issued"),
        ("spiffe_id", "spiffe://bookstore.example/ns/bookstore/sa/web"),
        ("commit", "3f2c9a1"),
        ("detail", "-----BEGIN CERTIFICATE-----\nMIIB"),
        ("serial", 7),
    ],
)
def test_what_operators_need_stays(name: str, value: object) -> None:
    assert redact(None, "info", {name: value}) == {name: value}
