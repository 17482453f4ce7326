"""A CA for tests: real keys, real store, in a directory of its own."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from garrison.ca.authority import Authority
from garrison.ca.csr import SubjectKey, parse_csr
from garrison.ca.entries import Entitlement
from garrison.ca.issuance import Issuance, Issued, Lifetimes, Order
from garrison.ca.keys import KeyType, Passphrase
from garrison.ca.sql_store import SqlStore
from garrison.ca.state import StateDirectory
from garrison.ca.store import Origin
from garrison.identity.spiffe_id import parse_spiffe_id, parse_trust_domain

TRUST_DOMAIN = parse_trust_domain("example.org")
WEB = parse_spiffe_id("spiffe://example.org/ns/shop/sa/web")
PASSPHRASE = Passphrase(b"correct horse battery staple")
LIFETIMES = Lifetimes(timedelta(hours=6), timedelta(hours=24))
ORIGIN = Origin("token-1", "c0ffee")

CsrKey = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
)


class Clock:
    """The wall clock, and as much later as wanted."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass(frozen=True)
class CaInDirectory:
    """What a process has, without its ports."""

    state: StateDirectory
    authority: Authority
    store: SqlStore
    issuance: Issuance
    clock: Clock

    def issue(self, order: Order | None = None) -> Issued:
        return self.issuance.issue(order or web_order())


def make_ca(directory: Path, key_type: KeyType = KeyType.P256) -> CaInDirectory:
    state = StateDirectory(directory / "state")
    state.create(TRUST_DOMAIN, key_type, PASSPHRASE)
    return open_ca(state)


def open_ca(state: StateDirectory) -> CaInDirectory:
    clock = Clock()
    authority = state.open_authority(TRUST_DOMAIN, PASSPHRASE)
    store = state.open_store(clock)
    issuance = Issuance(authority, store, LIFETIMES, clock)
    return CaInDirectory(state, authority, store, issuance, clock)


def web_order(
    *,
    entitlement: Entitlement | None = None,
    key: SubjectKey | None = None,
    ttl: timedelta = timedelta(0),
) -> Order:
    return Order(entitlement or Entitlement(WEB), key or subject_key(), ttl, ORIGIN)


def subject_key() -> SubjectKey:
    return parse_csr(make_csr(), ())


def make_csr(
    key: CsrKey | None = None,
    subject: str | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    request = builder.sign(key, None if is_edwards else hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def leaf_of(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.chain[0].encode())
