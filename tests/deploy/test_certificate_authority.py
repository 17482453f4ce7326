"""A CA whose repository is none starts only if it knows entries from before."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from spiffe import TrustDomain

from garrison.ca.entries import EntriesAtCommit
from garrison.ca.keys import KeyType, Passphrase
from garrison.ca.settings import CaSettings, OidcSettings
from garrison.ca.state import StateDirectory
from garrison.deploy.certificate_authority import source_of
from garrison.identity.credentials import utc_now
from garrison.identity.errors import RejectedError

ISSUER = OidcSettings(
    name="local",
    kind="oidc",
    issuer="https://issuer.example",
    audience="garrison",
    jwks_file=Path("jwks.json"),
)


def test_repository_that_is_none_matters_only_at_first(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.create(TrustDomain("bookstore.example"), KeyType.P256, Passphrase(b"x" * 16))
    settings = CaSettings(
        trust_domain="bookstore.example",
        state=state.path,
        passphrase_file=tmp_path / "passphrase",
        repository=str(tmp_path / "absent.git"),
        attestors=(ISSUER,),
    )
    with pytest.raises(RejectedError, match="no such directory"):
        source_of(settings)
    with contextlib.closing(state.open_store(utc_now)) as store:
        store.record_entries(EntriesAtCommit("1" * 40, ()), "digest")
    assert source_of(settings)
