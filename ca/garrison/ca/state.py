"""The CA's directory: made whole by `init`, checked whole by `serve`.

| file | content |
| --- | --- |
| `root.key`, `root.pem` | the root; its key signs issuing certificates only, unused by `serve` |
| `issuing.key`, `issuing.pem` | what signs SVIDs |
| `roots.pem` | the trust bundle: give this file to whoever is to pin the CA |
| `ca.db` | entries, certificates and audit log |
"""

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import TrustDomain

from garrison.ca.authority import BACKDATE, Authority, new_serial
from garrison.ca.errors import StateRejectedError
from garrison.ca.keys import (
    KeyType,
    Passphrase,
    SigningKey,
    load_key,
    sync_directory,
    write_file,
)
from garrison.ca.profile import Signer, Validity, issuing_certificate, root_certificate
from garrison.ca.sql_store import SqlStore
from garrison.ca.sqlite import create_store, open_store

ROOT_LIFE = timedelta(days=3650)
ISSUING_LIFE = timedelta(days=365)
_PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The names within it."""

    path: Path

    @property
    def roots(self) -> Path:
        """The trust bundle."""
        return self.path / "roots.pem"

    def create(self, trust_domain: TrustDomain, key_type: KeyType, secret: Passphrase) -> None:
        """Make root, issuing key and store. Raises `StateRejectedError`; then nothing was made."""
        self._check_free()
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
            _fill(draft, trust_domain, key_type, secret)
            draft.rename(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise StateRejectedError(f"{self.path}: cannot be made: {error.strerror}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def open_authority(self, trust_domain: TrustDomain, secret: Passphrase) -> Authority:
        """Load the issuing key and its chain. Raises `StateRejectedError`."""
        key = load_key(self.path / "issuing.key", secret)
        issuing, root = (self.read_certificate(name) for name in ("issuing.pem", "root.pem"))
        return Authority(trust_domain, key, issuing, root)

    def open_store(self, clock: Callable[[], datetime]) -> SqlStore:
        """Open the store. Raises `StateRejectedError`."""
        return open_store(self.path / "ca.db", clock)

    def read_certificate(self, name: str) -> x509.Certificate:
        """Read one certificate. Raises `StateRejectedError`."""
        file = self.path / name
        try:
            return x509.load_pem_x509_certificate(file.read_bytes())
        except OSError as error:
            text = f"{file}: cannot be read: {error.strerror}"
            raise StateRejectedError(f"{text}: `garrison ca init` makes it") from error
        except ValueError as error:
            raise StateRejectedError(f"{file}: not a PEM certificate") from error

    def check(self) -> None:
        """Refuse a directory that is not there or that others may change."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise StateRejectedError(
                f"{self.path}: {error.strerror}: `garrison ca init` makes the state directory"
            ) from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StateRejectedError(
                f"{self.path}: belongs to or can be written by somebody else: "
                f"chown it to user {os.geteuid()}, chmod 700 {self.path}"
            )

    def _check_free(self) -> None:
        try:
            is_taken = any(self.path.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateRejectedError(f"{self.path}: {error.strerror}") from error
        if is_taken:
            raise StateRejectedError(
                f"{self.path}: not empty, and a CA is never overwritten: name another directory"
            )


def _fill(
    directory: Path, trust_domain: TrustDomain, key_type: KeyType, secret: Passphrase
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    begins = now - BACKDATE
    root_key, issuing_key = SigningKey.generate(key_type), SigningKey.generate(key_type)
    root = root_key.sign(
        root_certificate(
            trust_domain, root_key.public, new_serial(), Validity(begins, now + ROOT_LIFE)
        )
    )
    life = Validity(begins, now + ISSUING_LIFE)
    issuing = root_key.sign(
        issuing_certificate(trust_domain, issuing_key.public, new_serial(), life, Signer.of(root))
    )
    write_file(directory / "root.key", root_key.encrypt(secret))
    write_file(directory / "issuing.key", issuing_key.encrypt(secret))
    for name, certificate in (("root", root), ("issuing", issuing), ("roots", root)):
        write_file(directory / f"{name}.pem", certificate.public_bytes(Encoding.PEM), _PUBLIC)
    create_store(directory / "ca.db")
