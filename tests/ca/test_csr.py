"""Of a CSR only a proved, strong key is taken; what it asks for never reaches a certificate."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from garrison.ca.csr import MAX_CSR_BYTES, parse_csr
from garrison.ca.errors import CsrRejectedError
from tests.ca.authorities import WEB, CaInDirectory, CsrKey, leaf_of, make_csr, web_order

GOOD: dict[str, CsrKey] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA-2048": rsa.generate_private_key(65537, 2048),
}
WEAK: dict[str, CsrKey] = {
    "P-224": ec.generate_private_key(ec.SECP224R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "RSA-1024": rsa.generate_private_key(65537, 1024),
    "RSA-2047": rsa.generate_private_key(65537, 2047),
    "RSA-4104": rsa.generate_private_key(65537, 4104),
    "RSA with exponent 3": rsa.generate_private_key(3, 2048),
    "DSA": dsa.generate_private_key(2048),
    "Ed448": ed448.Ed448PrivateKey.generate(),
}


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
def test_a_strong_key_gets_a_certificate(shared_ca: CaInDirectory, key: CsrKey) -> None:
    subject_key = parse_csr(make_csr(key), shared_ca.authority.own_keys)
    leaf = leaf_of(shared_ca.issue(web_order(key=subject_key)))
    assert leaf.public_key() == key.public_key()


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_a_weak_or_strange_key_is_refused(key: CsrKey) -> None:
    with pytest.raises(CsrRejectedError):
        parse_csr(make_csr(key), ())


def test_a_request_for_somebody_else_changes_nothing(shared_ca: CaInDirectory) -> None:
    wanted = (
        x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier("spiffe://example.org/ns/garrison/sa/ca"),
                x509.DNSName("ca.garrison"),
            ]
        ),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    )
    csr = make_csr(GOOD["P-256"], "garrison/ca", wanted)
    leaf = leaf_of(shared_ca.issue(web_order(key=parse_csr(csr, ()))))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(WEB))]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject == x509.Name([])
    assert len(leaf.extensions) == 6


def test_a_key_that_the_caller_does_not_hold_is_refused() -> None:
    der = bytearray(GOOD_DER)
    der[-1] ^= 1
    with pytest.raises(CsrRejectedError):
        parse_csr(to_pem(bytes(der)), ())


def test_the_cas_own_keys_are_refused() -> None:
    key = parse_csr(make_csr(GOOD["P-256"]), ())
    with pytest.raises(CsrRejectedError, match="key of the CA"):
        parse_csr(make_csr(GOOD["P-256"]), {key.der})


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----",
        "\0",
        "é" * 100,
        "x" * (MAX_CSR_BYTES + 1),
        "\udcff",
    ],
    ids=ascii,
)
def test_what_is_no_request_is_refused(pem: str) -> None:
    with pytest.raises(CsrRejectedError):
        parse_csr(pem, ())


GOOD_DER = x509.load_pem_x509_csr(make_csr(GOOD["P-256"]).encode()).public_bytes(Encoding.DER)


@given(st.integers(0, len(GOOD_DER) - 1), st.integers(1, 255))
@example(117, 1)  # the count of unused bits in the signature, which nothing signs
def test_no_changed_byte_changes_the_key(position: int, change: int) -> None:
    der = bytearray(GOOD_DER)
    der[position] ^= change
    try:
        found = parse_csr(to_pem(bytes(der)), ())
    except CsrRejectedError:
        return
    assert found == parse_csr(to_pem(GOOD_DER), ())


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(der: bytes) -> None:
    with pytest.raises(CsrRejectedError):
        parse_csr(to_pem(der), ())


def to_pem(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
