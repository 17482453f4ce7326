"""Ask the CA for an X.509-SVID: Istio's CreateCertificate with a bearer token.

The key is made here, for each certificate anew, and stays in memory. The token is read afresh each
time (platforms rotate it in place), and nothing hangs on the certificate that is being renewed: it
may have expired.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import X509Svid
from spiffe.errors import PySpiffeError

from garrison.identity import istio_ca_pb2
from garrison.identity.errors import RejectedError, UnavailableError
from garrison.identity.peer import NotAnSvidError, spiffe_id_of
from garrison.identity.settings import LocalPath, Settings
from garrison.identity.trust import Trust

CA_SERVER_NAME = "ca.garrison"  # the DNS name in the CA's own certificates
_METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_DEADLINE = timedelta(seconds=15)
_MAX_TOKEN_BYTES = 64 * 1024
_TOKEN = re.compile(rb"[!-~]+")  # printable ASCII
_RETRY_AFTER = "retry-after-seconds"
_REJECTIONS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
}


class CaAccess(Settings):
    """Where the CA is, how it is recognized, and by what we are.

    address: `HOST:PORT` of its certificate service.
    bundle_address: `HOST:PORT` of its trust bundles.
    roots: PEM file of its roots, which pins it until the first bundle has come.
    token: file with the bearer token, read afresh at each request.
    svid_seconds: the life that is asked for; the CA may cut it.
    """

    address: str = "127.0.0.1:15012"
    bundle_address: str = "127.0.0.1:15013"
    roots: LocalPath
    token: LocalPath
    svid_seconds: int = 21_600


class SvidRejectedError(RejectedError):
    """The CA will not give us this identity, or gave something else than was asked for."""


class TokenUnreadableError(RejectedError):
    """The file of the bearer token is no token."""


class CaUnavailableError(UnavailableError):
    """The CA cannot answer now; `retry_after` is the wait that it asked for."""

    def __init__(self, text: str, retry_after: timedelta = timedelta()) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class CertificateClient:
    """Asks one CA for SVIDs; each request is a connection of its own, hours apart."""

    def __init__(self, access: CaAccess, trust: Trust) -> None:
        self._access = access
        self._trust = trust

    async def create(self) -> X509Svid:
        """Return a new SVID with a new key.

        Raises `SvidRejectedError`, `TokenUnreadableError`, `BundleRejectedError`, or
        `CaUnavailableError`, which alone will pass without anybody's doing.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        request = istio_ca_pb2.IstioCertificateRequest(
            csr=_csr(key), validity_duration=self._access.svid_seconds
        )
        response = await self._call(request, read_token(self._access.token))
        return _svid(response, key)

    async def _call(
        self, request: istio_ca_pb2.IstioCertificateRequest, token: str
    ) -> istio_ca_pb2.IstioCertificateResponse:
        credentials = grpc.ssl_channel_credentials(self._trust.roots)
        options = (("grpc.ssl_target_name_override", CA_SERVER_NAME),)
        async with grpc.aio.secure_channel(self._access.address, credentials, options) as channel:
            method: Any = channel.unary_unary(
                _METHOD,
                request_serializer=istio_ca_pb2.IstioCertificateRequest.SerializeToString,
                response_deserializer=istio_ca_pb2.IstioCertificateResponse.FromString,
            )
            try:
                response = await method(
                    request,
                    timeout=_DEADLINE.total_seconds(),
                    metadata=(("authorization", f"Bearer {token}"),),
                )
            except grpc.aio.AioRpcError as error:
                raise self._explained(error) from error
        return response  # type: ignore[no-any-return]  # channels are untyped

    def _explained(self, error: grpc.aio.AioRpcError) -> RejectedError | UnavailableError:
        text = f"CA at {self._access.address}: {error.code().name}: {error.details()}"
        if error.code() in _REJECTIONS:
            return SvidRejectedError(text)
        trailing = {key: value for key, value in error.trailing_metadata() or () if value}
        return CaUnavailableError(text, _retry_after(trailing))


def read_token(file: Path) -> str:
    """Read a bearer token; raises `TokenUnreadableError`."""
    try:
        with file.open("rb") as opened:
            token = opened.read(_MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        text = f"{file}: the token cannot be read: {error.strerror}"
        raise TokenUnreadableError(text) from error
    if len(token) > _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise TokenUnreadableError(f"{file}: not a bearer token: one line of printable ASCII")
    return token.decode("ascii")


def _csr(key: ec.EllipticCurvePrivateKey) -> str:
    """Make a request that claims nothing: who we are is the token's to say."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _svid(
    response: istio_ca_pb2.IstioCertificateResponse, key: ec.EllipticCurvePrivateKey
) -> X509Svid:
    chain = list(response.cert_chain)
    pem = "\n".join(chain[:-1] if len(chain) > 1 else chain).encode()  # the root comes last
    try:
        svid = X509Svid.parse(pem, private_key_pem(key))
        spiffe_id_of(svid.leaf)
    except (PySpiffeError, NotAnSvidError, ValueError) as error:
        raise SvidRejectedError(f"the CA's answer is not an SVID: {error}") from error
    if svid.leaf.public_key() != key.public_key():
        raise SvidRejectedError("the CA's answer is for another key than ours")
    if svid.leaf.not_valid_after_utc <= datetime.now(UTC):
        raise SvidRejectedError("the CA's answer has expired already, by our clock")
    return svid


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Encode a key for a TLS library; it must not reach a disk or a log."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _retry_after(trailing: Mapping[str, str | bytes]) -> timedelta:
    text = str(trailing.get(_RETRY_AFTER, "0"))
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() else timedelta()
