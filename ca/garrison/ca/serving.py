"""The CA's own identity: an SVID from its issuing key, made at start and renewed like any other.

Nothing of it is kept: a CA that was down for a year mints itself a new one and is there again.
"""

import asyncio
from concurrent.futures import Executor

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import X509Svid

from garrison.ca.csr import SubjectKey
from garrison.ca.entries import Entitlement
from garrison.ca.issuance import Issuance, Issued, Lifetimes, Order
from garrison.ca.store import Origin
from garrison.identity.certificate_client import CA_SERVER_NAME, private_key_pem
from garrison.identity.credentials import Credentials, certificate_pair
from garrison.identity.spiffe_id import certificate_authority

OWN_ORIGIN = Origin(token_id="", commit="")  # no token, no entry: the CA itself
_DNS_NAMES = (CA_SERVER_NAME, "localhost")


class OwnIdentity:
    """Orders SVIDs for the CA itself."""

    def __init__(self, issuance: Issuance, lifetimes: Lifetimes, executor: Executor) -> None:
        """Order from `issuance`, in a thread of `executor`."""
        self._issuance = issuance
        self._ttl = lifetimes.default
        self._executor = executor
        own_id = certificate_authority(issuance.authority.trust_domain)
        self._entitlement = Entitlement(own_id, _DNS_NAMES)

    async def create(self) -> X509Svid:
        """Make an SVID with a new key, which never leaves memory."""
        key = ec.generate_private_key(ec.SECP256R1())
        order = Order(self._entitlement, SubjectKey.of(key.public_key()), self._ttl, OWN_ORIGIN)
        loop = asyncio.get_running_loop()
        issued = await loop.run_in_executor(self._executor, self._issuance.issue, order)
        return X509Svid.parse(_presented(issued), private_key_pem(key))


def token_port_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """Return credentials of the port where callers have no certificate yet.

    Each handshake uses the newest SVID. There must be one already.
    """
    served = credentials.svid
    if served is None:
        raise ValueError("a server needs an SVID before it starts")

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        current = credentials.svid
        if current is None or current is served:
            return None
        served = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(served),
        newest,  # type: ignore[arg-type]  # None means no change: the stubs do not know
        require_client_authentication=False,
    )


def _configuration(svid: X509Svid) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([certificate_pair(svid)])


def _presented(issued: Issued) -> bytes:
    return "".join(issued.chain[:-1]).encode()  # the root is the peer's to know
