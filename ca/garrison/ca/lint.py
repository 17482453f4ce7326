"""A second opinion on each SVID before the issuing key is used on it.

The certificate is first signed with a throw-away key, parsed again from its bytes and judged here,
by rules that are written apart from those that made it: a mistake in the profile halts issuance
instead of reaching a peer (X509-SVID §2 to §5, RFC 5280 §4).
"""

from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from garrison.ca.profile import Leaf

MIN_SERIAL_BITS = 64  # CA/Browser Forum Baseline Requirements §7.1
_SERVER_AUTH, _CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"  # RFC 5280 §4.2.1.12
_SPKI = PublicFormat.SubjectPublicKeyInfo
_EXTENSIONS = {  # object identifier: whether it is critical
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: True,
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}


def lint_leaf(
    certificate: x509.Certificate, leaf: Leaf, issuer: x509.Certificate, longest: timedelta
) -> list[str]:
    """Say all that is wrong with `certificate` as the SVID that `leaf` describes."""
    parsed = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
    checks: dict[str, Callable[[], bool]] = {
        "version": lambda: parsed.version is x509.Version.v3,
        "serial": lambda: parsed.serial_number == leaf.serial and _is_long(leaf.serial),
        "issuer": lambda: parsed.issuer == issuer.subject and len(list(parsed.issuer)) > 0,
        "subject": lambda: parsed.subject == x509.Name([]),
        "key": lambda: parsed.public_key().public_bytes(Encoding.DER, _SPKI) == leaf.key.der,
        "validity": lambda: _is_within(parsed, issuer, longest),
        "extensions": lambda: _criticality(parsed) == _EXTENSIONS,
        "names": lambda: _has_names(parsed, leaf),
        "usage": lambda: _is_end_entity(parsed),
        "issuer's key": lambda: _points_at(parsed, issuer),
    }
    return [name for name, is_right in checks.items() if not _holds(is_right)]


def _holds(is_right: Callable[[], bool]) -> bool:
    try:
        return is_right()
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _is_long(serial: int) -> bool:
    return MIN_SERIAL_BITS < serial.bit_length() < 160  # noqa: PLR2004, RFC 5280 §4.1.2.2: 20 octets


def _is_within(parsed: x509.Certificate, issuer: x509.Certificate, longest: timedelta) -> bool:
    begins, ends = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    return (
        issuer.not_valid_before_utc <= begins < ends <= issuer.not_valid_after_utc
        and ends - begins <= longest
    )


def _criticality(parsed: x509.Certificate) -> dict[x509.ObjectIdentifier, bool]:
    return {extension.oid: extension.critical for extension in parsed.extensions}


def _has_names(parsed: x509.Certificate, leaf: Leaf) -> bool:
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [name for name in names if not isinstance(name, x509.UniformResourceIdentifier)]
    return (
        names.get_values_for_type(x509.UniformResourceIdentifier) == [str(leaf.spiffe_id)]
        and len(hosts) == len(leaf.dns_names)
        and names.get_values_for_type(x509.DNSName) == list(leaf.dns_names)
    )


def _is_end_entity(parsed: x509.Certificate) -> bool:
    extensions = parsed.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    return (
        usage.public_bytes() == b"\x03\x02\x07\x80"  # a BIT STRING of one bit: digitalSignature
        and {purpose.dotted_string for purpose in purposes} == {_SERVER_AUTH, _CLIENT_AUTH}
        and constraints.public_bytes() == b"\x30\x00"  # an empty SEQUENCE: cA is false
    )


def _points_at(parsed: x509.Certificate, issuer: x509.Certificate) -> bool:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    pointer = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return (pointer.key_identifier, pointer.authority_cert_serial_number) == (own.digest, None)
