"""SPIFFE IDs and trust domains, parsed once and strictly (SPIFFE-ID §2).

The types are the `spiffe` package's. Its own parser lowers case and lets a newline end a name, so
whatever comes from outside goes through here: one grammar, nothing normalized. In this mesh a
workload is `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`, and nothing else is registered.
"""

import re
from typing import NamedTuple

from spiffe import SpiffeId, TrustDomain

from garrison.identity.errors import RejectedError

MAX_ID_BYTES = 2048  # SPIFFE-ID §2.3
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID §2.3

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")  # SPIFFE-ID §2.1
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")  # SPIFFE-ID §2.2
_SCHEME = "spiffe://"


class SpiffeIdRejectedError(RejectedError):
    """A text is not a SPIFFE ID, a trust domain, or the kind of ID that is wanted here."""


class Workload(NamedTuple):
    """What tells a workload from all others of its trust domain."""

    namespace: str
    account: str

    def __str__(self) -> str:
        """Write it as policy does."""
        return f"{self.namespace}/{self.account}"


def parse_trust_domain(name: str) -> TrustDomain:
    """Parse a bare name as in `example.org`.

    Raises `SpiffeIdRejectedError`.
    """
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdRejectedError(f"trust domain longer than {MAX_TRUST_DOMAIN_BYTES} bytes")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeIdRejectedError(
            f"not a trust domain: {name!r}; one or more of a-z 0-9 . - _ are wanted"
        )
    return TrustDomain(name)


def parse_spiffe_id(text: str) -> SpiffeId:
    """Parse an ID, of a workload or (without path) of a trust domain itself.

    >>> str(parse_spiffe_id("spiffe://example.org/ns/shop/sa/web"))
    'spiffe://example.org/ns/shop/sa/web'

    Raises `SpiffeIdRejectedError`.
    """
    if len(text) > MAX_ID_BYTES:
        raise SpiffeIdRejectedError(f"SPIFFE ID longer than {MAX_ID_BYTES} bytes")
    if not text.startswith(_SCHEME):
        raise SpiffeIdRejectedError(f"SPIFFE ID {text!r} does not begin with {_SCHEME!r}")
    trust_domain, slash, path = text.removeprefix(_SCHEME).partition("/")
    parse_trust_domain(trust_domain)
    if slash:
        for segment in path.split("/"):
            _check_segment(segment, text)
    return SpiffeId(text)


def workload(trust_domain: TrustDomain, namespace: str, account: str) -> SpiffeId:
    """Make the ID of a workload.

    Raises `SpiffeIdRejectedError` if a name would not stay one segment of the path.
    """
    for name in (namespace, account):
        _check_segment(name, name)
    return parse_spiffe_id(f"{_SCHEME}{trust_domain}/ns/{namespace}/sa/{account}")


def namespace_and_account(spiffe_id: SpiffeId) -> Workload:
    """Tell whose ID this is.

    >>> namespace_and_account(parse_spiffe_id("spiffe://example.org/ns/shop/sa/web"))
    Workload(namespace='shop', account='web')

    Raises `SpiffeIdRejectedError` for an ID of another shape than a workload's.
    """
    match spiffe_id.path.split("/"):
        case ["", "ns", namespace, "sa", account]:
            return Workload(namespace, account)
    raise SpiffeIdRejectedError(
        f"{spiffe_id} is not of the form {_SCHEME}TD/ns/NAMESPACE/sa/ACCOUNT"
    )


def certificate_authority(trust_domain: TrustDomain) -> SpiffeId:
    """Name the trust domain's CA; no registration entry may claim it."""
    return workload(trust_domain, "garrison", "ca")


def policy_server(trust_domain: TrustDomain) -> SpiffeId:
    """Name the trust domain's policy server."""
    return workload(trust_domain, "garrison", "policy-server")


def _check_segment(segment: str, whole: str) -> None:
    if segment in {"", ".", ".."} or not _SEGMENT.fullmatch(segment):
        raise SpiffeIdRejectedError(
            f"SPIFFE ID {whole!r} has the segment {segment!r}: "
            "one or more of a-z A-Z 0-9 . - _ are wanted, and neither '.' nor '..'"
        )
