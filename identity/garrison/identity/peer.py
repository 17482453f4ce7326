"""Who is at the other end of a TLS connection: exactly one SPIFFE ID, or nobody.

gRPC verifies the chain and lists every URI name that it finds; X509-SVID §2 and §5.2 allow one, on
a certificate that signs nothing. Nothing that the peer says counts, only its certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from cryptography import x509
from spiffe import SpiffeId, TrustDomain

from garrison.identity.errors import RejectedError
from garrison.identity.spiffe_id import SpiffeIdRejectedError, parse_spiffe_id
from garrison.xds.client import StreamRefusedError

_CERTIFICATE = "x509_pem_cert"  # gRPC's name for the peer's leaf


class NotAnSvidError(RejectedError):
    """A certificate is not a workload's X.509-SVID."""


class PeerRefusedError(RejectedError, StreamRefusedError):
    """The peer of a call has no identity here."""


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """A proved identity, and until when the proof holds."""

    identity: SpiffeId
    expires_at: datetime

    @property
    def spiffe_id(self) -> str:
        """The identity as text."""
        return str(self.identity)


def peer_of(context: grpc.aio.ServicerContext[Any, Any], trust_domain: TrustDomain) -> TlsPeer:
    """Return the peer of a call over mutual TLS.

    Raises `PeerRefusedError` unless its certificate is an SVID of this trust domain.
    """
    found = context.auth_context().get(_CERTIFICATE, ())
    pem = next(iter(found), b"")
    if not pem:
        raise _refused("a client certificate is required")
    try:
        certificate = x509.load_pem_x509_certificate(bytes(pem))
        identity = spiffe_id_of(certificate)
    except (ValueError, NotAnSvidError) as error:
        raise _refused(f"the client certificate is not an SVID: {error}") from error
    if identity.trust_domain != trust_domain:
        raise _refused(f"{identity} is not of the trust domain {trust_domain}")
    return TlsPeer(identity, certificate.not_valid_after_utc)


def spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """Return the identity in a leaf certificate (X509-SVID §5.2: the authentication check).

    Raises `NotAnSvidError`. The chain and the time are not looked at.
    """
    try:
        _check_leaf(certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound as error:
        raise NotAnSvidError(f"no extension {error.oid.dotted_string}") from error
    except (ValueError, x509.DuplicateExtension) as error:
        raise NotAnSvidError(str(error)) from error
    if len(uris) != 1:  # X509-SVID §2
        raise NotAnSvidError(f"{len(uris)} URI names instead of one")
    try:
        identity = parse_spiffe_id(uris[0])
    except SpiffeIdRejectedError as error:
        raise NotAnSvidError(str(error)) from error
    if not identity.path:  # X509-SVID §5.2
        raise NotAnSvidError(f"{identity} has no path: it names a trust domain, not a workload")
    return identity


def _check_leaf(certificate: x509.Certificate) -> None:
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if basic.ca or usage.key_cert_sign or usage.crl_sign:
        raise NotAnSvidError("it may sign others")
    if not usage.digital_signature:
        raise NotAnSvidError("its key usage lacks digitalSignature")


def _refused(text: str) -> PeerRefusedError:
    return PeerRefusedError(grpc.StatusCode.UNAUTHENTICATED, text)
