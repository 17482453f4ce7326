"""The one way by which a certificate comes to be: laid out, linted, recorded, signed, recorded.

Every route to an identity ends in `Issuance.issue`, the CA's own serving certificate included.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from garrison.ca.authority import Authority, Prepared, new_serial
from garrison.ca.csr import SubjectKey
from garrison.ca.entries import Entitlement
from garrison.ca.errors import CsrRejectedError
from garrison.ca.profile import Leaf
from garrison.ca.store import Origin, Preparation, Store
from garrison.identity.errors import GarrisonError, UnavailableError


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how long an SVID lives that did not ask, and at most."""

    default: timedelta
    maximum: timedelta

    def choose(self, requested: timedelta, entitled: timedelta | None) -> timedelta:
        """Clamp what was requested by entry and maximum; zero asks for nothing in particular.

        Raises `CsrRejectedError`.
        """
        if requested < timedelta(0):
            raise CsrRejectedError("a negative lifetime was requested")
        longest = min(entitled or self.maximum, self.maximum)
        return min(requested or entitled or self.default, longest)


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate that is wanted: for whom, for which key, for how long, and by what right."""

    entitlement: Entitlement
    key: SubjectKey
    ttl: timedelta
    origin: Origin


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that may be handed out, with its chain to the root, PEM."""

    leaf: Leaf
    chain: tuple[str, ...]
    audit_sequence: int
    audit_hash: str


class Issuance:
    """Prepares, then signs. Blocks on the disk: call it in a thread."""

    def __init__(
        self,
        authority: Authority,
        store: Store,
        lifetimes: Lifetimes,
        clock: Callable[[], datetime],
    ) -> None:
        """Issue under `authority`, recorded in `store`."""
        self.authority = authority
        self._store = store
        self._lifetimes = lifetimes
        self._clock = clock
        self._upper_chain = tuple(map(_pem, (authority.issuing, authority.root)))

    def issue(self, order: Order) -> Issued:
        """Make one certificate.

        Raises `CsrRejectedError`, `IssuerUnavailableError` or `StoreUnavailableError`; then none
        was released, whatever the audit log says was prepared.
        """
        prepared = self._prepare(order)
        serial = prepared.draft.leaf.serial
        try:
            certificate = self.authority.sign(prepared, self._clock())
        except Exception as error:
            self._record_failed(serial, error)
            raise
        self._store.record_signed(serial, _digest(certificate))
        chain = (_pem(certificate), *self._upper_chain)
        return Issued(prepared.draft.leaf, chain, prepared.receipt.sequence, prepared.receipt.hash)

    def _prepare(self, order: Order) -> Prepared:
        entitlement = order.entitlement
        ttl = self._lifetimes.choose(order.ttl, entitlement.ttl)
        validity = self.authority.validity(self._clock(), ttl)
        leaf = Leaf(entitlement.spiffe_id, entitlement.dns_names, order.key, new_serial(), validity)
        draft = self.authority.draft(leaf, self._lifetimes.maximum)
        preparation = Preparation(leaf, draft.tbs_digest, self.authority.key_id, order.origin)
        return Prepared(draft, self._store.record_prepared(preparation))

    def _record_failed(self, serial: int, error: Exception) -> None:
        reason = str(error) if isinstance(error, GarrisonError) else type(error).__name__
        try:
            self._store.record_failed(serial, reason)
        except UnavailableError:
            return  # a preparation without an outcome says the same: nothing was released


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
