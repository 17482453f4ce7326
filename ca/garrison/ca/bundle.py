"""The trust bundle: the roots by which members of the trust domain recognize each other.

SPIFFE Trust Domain and Bundle §4. Its sequence number rises with each change of content, also
across restarts (§4.1.2.1), because the store keeps it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import TrustDomain

from garrison.ca.errors import StateRejectedError
from garrison.ca.store import Store

MAX_ROOTS = 16


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots of one trust domain."""

    trust_domain: TrustDomain
    sequence: int
    pem: bytes


def load_bundle(
    trust_domain: TrustDomain, file: Path, root: x509.Certificate, store: Store
) -> TrustBundle:
    """Read the roots, of which `root` must be one, and give the set its number.

    Raises `StateRejectedError` or `StoreUnavailableError`.
    """
    try:
        roots = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise StateRejectedError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StateRejectedError(f"{file}: not PEM certificates") from error
    if root not in roots:
        raise StateRejectedError(f"{file}: does not hold this CA's root {root.subject}")
    if len(roots) > MAX_ROOTS:
        raise StateRejectedError(f"{file}: more than {MAX_ROOTS} roots")
    for each in roots:
        _check_root(each, file)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in roots)
    version = store.record_bundle(hashlib.sha256(pem).hexdigest())
    return TrustBundle(trust_domain, version.sequence, pem)


def _check_root(certificate: x509.Certificate, file: Path) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise StateRejectedError(f"{file}: {certificate.subject} is not a CA certificate")
