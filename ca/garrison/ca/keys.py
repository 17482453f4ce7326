"""The CA's private keys: made, kept encrypted, and never shown.

At rest a key is PKCS#8 encrypted by PBES2 (RFC 5958 §3, RFC 8018 §6.2). Its file must belong to
this user and be closed to all others, and so must the passphrase's; else nothing is loaded.
OpenSSL's 2,048 rounds of PBKDF2 do not stop a guesser, so a short passphrase is refused.
"""

import enum
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from garrison.ca.errors import StateRejectedError

MIN_PASSPHRASE_BYTES = 16
_MAX_FILE_BYTES = 64 * 1024


class KeyType(enum.Enum):
    """The curves of the CA's own keys (RFC 5480 §2.1.1.1)."""

    P256 = "p256"
    P384 = "p384"


_Curve = type[ec.EllipticCurve]
_Digest = type[hashes.SHA256 | hashes.SHA384]
_CURVES: dict[KeyType, tuple[_Curve, _Digest]] = {
    KeyType.P256: (ec.SECP256R1, hashes.SHA256),
    KeyType.P384: (ec.SECP384R1, hashes.SHA384),  # as strong a digest as the key (SP 800-57 §5.6)
}


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What encrypts the keys at rest."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs certificates; what it shows of itself is its type."""

    key_type: KeyType
    _private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls, key_type: KeyType) -> "SigningKey":
        """Make a new key."""
        curve, _ = _CURVES[key_type]
        return cls(key_type, ec.generate_private_key(curve()))

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The key that everybody may know."""
        return self._private.public_key()

    def sign(self, certificate: x509.CertificateBuilder) -> x509.Certificate:
        """Sign `certificate`; whoever calls this answers for its content."""
        _, digest = _CURVES[self.key_type]
        return certificate.sign(self._private, digest())

    def encrypt(self, passphrase: Passphrase) -> bytes:
        """Write the key as encrypted PKCS#8, PEM."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.secret),
        )

    @classmethod
    def decrypt(cls, pem: bytes, passphrase: Passphrase, source: Path) -> "SigningKey":
        """Read what `encrypt` wrote; raises `StateRejectedError` naming `source`."""
        try:
            private = serialization.load_pem_private_key(pem, passphrase.secret)
        except TypeError as error:  # cryptography's answer to a passphrase that is not needed
            raise StateRejectedError(f"{source}: this key is not encrypted") from error
        except ValueError as error:
            text = f"{source}: wrong passphrase, or not a key"
            raise StateRejectedError(f"{text}: the one given to `ca init` is wanted") from error
        for key_type, (curve, _) in _CURVES.items():
            if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, curve):
                return cls(key_type, private)
        raise StateRejectedError(f"{source}: not an ECDSA key on P-256 or P-384")


def read_passphrase(file: Path) -> Passphrase:
    """Read a passphrase, less the newline at its end. Raises `StateRejectedError`."""
    secret = read_secret_file(file).rstrip(b"\r\n")
    if len(secret) < MIN_PASSPHRASE_BYTES:
        raise StateRejectedError(
            f"{file}: a passphrase of {MIN_PASSPHRASE_BYTES} bytes or more is wanted: "
            f"(umask 077; head -c 32 /dev/urandom | base64 > {file})"
        )
    return Passphrase(secret)


def load_key(file: Path, passphrase: Passphrase) -> SigningKey:
    """Read a key from a file that nobody else can read. Raises `StateRejectedError`."""
    return SigningKey.decrypt(read_secret_file(file), passphrase, file)


def read_secret_file(file: Path) -> bytes:
    """Read a file of ours that is closed to everybody else. Raises `StateRejectedError`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        text = f"{file}: cannot be read: {error.strerror}"
        raise StateRejectedError(f"{text}: a file of user {os.geteuid()} is wanted") from error
    try:
        _check_closed(os.fstat(descriptor), file)
        return os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def _check_closed(status: os.stat_result, file: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StateRejectedError(f"{file}: not a regular file: name one")
    if status.st_uid != os.geteuid():
        raise StateRejectedError(f"{file}: belongs to user {status.st_uid}, not {os.geteuid()}")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise StateRejectedError(f"{file}: mode {mode:04o} lets others in: chmod 600 {file}")


def write_file(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, on the disk when this returns."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Have the disk remember which names a directory has."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
