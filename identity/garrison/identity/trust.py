"""The roots by which a service of the mesh verifies others: pinned by a file, then kept by the CA.

The file is what an operator handed over. From the first bundle on it counts no more: a root that
was retired must not live on in a file.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from garrison.identity.errors import RejectedError

_MAX_BYTES = 1024 * 1024


class BundleRejectedError(RejectedError):
    """Roots cannot be read, or are none."""


class Trust:
    """The current roots of one trust domain; swapped whole, so any thread may read them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._roots: bytes | None = None

    @property
    def is_from_ca(self) -> bool:
        """Whether a bundle has come."""
        return self._roots is not None

    @property
    def roots(self) -> bytes:
        """Concatenated PEM; raises `BundleRejectedError` if there is neither bundle nor file."""
        return self._roots if self._roots is not None else self._pinned()

    def replace(self, pem: bytes) -> None:
        """Take a new bundle; raises `BundleRejectedError`, and keeps the old one, if it is none."""
        _check(pem, "the trust bundle")
        self._roots = pem

    def _pinned(self) -> bytes:
        try:
            with self._file.open("rb") as file:
                pem = file.read(_MAX_BYTES + 1)
        except OSError as error:
            text = f"{self._file}: the CA's roots cannot be read: {error.strerror}"
            raise BundleRejectedError(text) from error
        _check(pem, str(self._file))
        return pem


def _check(pem: bytes, source: str) -> None:
    if len(pem) > _MAX_BYTES:
        raise BundleRejectedError(f"{source}: more than {_MAX_BYTES} bytes")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        are_roots = all(map(_may_sign, certificates))
    except (ValueError, x509.ExtensionNotFound) as error:
        raise BundleRejectedError(f"{source}: not PEM certificates of a CA: {error}") from error
    if not certificates or not are_roots:
        raise BundleRejectedError(f"{source}: has a certificate that is no CA's")


def _may_sign(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
