"""What is a trust bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from garrison.identity.trust import BundleRejectedError, Trust
from tests.fakes.certificates import Root


def test_the_bundle_takes_the_place_of_the_file(tmp_path: Path) -> None:
    pinned, next_root = Root().pem, Root().pem
    (tmp_path / "roots.pem").write_bytes(pinned)
    trust = Trust(tmp_path / "roots.pem")
    assert trust.roots == pinned
    trust.replace(pinned + next_root)
    trust.replace(next_root)
    assert trust.roots == next_root
    assert trust.is_from_ca


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nothing",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        Root().pair().chain,
        Root().pem + Root().pair().chain,
        Root().pem * 3000,
    ],
    ids=["empty", "text", "no certificate", "a leaf", "a root and a leaf", "too large"],
)
def test_what_is_no_bundle_is_refused_and_the_old_one_stays(tmp_path: Path, pem: bytes) -> None:
    good = Root().pem
    (tmp_path / "roots.pem").write_bytes(pem)
    trust = Trust(tmp_path / "roots.pem")
    with pytest.raises(BundleRejectedError, match=r"roots\.pem"):
        _ = trust.roots
    trust.replace(good)
    with pytest.raises(BundleRejectedError, match="trust bundle"):
        trust.replace(pem)
    assert trust.roots == good
