"""Registration entries: which attested facts make a caller which identity.

They are written as files in git and travel as these values: the repository's reader makes them, the
CA decides by them. Nothing is parsed again in between.
"""

import re
from dataclasses import dataclass
from datetime import timedelta

from spiffe import SpiffeId

from garrison.identity.errors import RejectedError
from garrison.identity.spiffe_id import (
    certificate_authority,
    namespace_and_account,
    policy_server,
)

MAX_SELECTOR_BYTES = 1024
MAX_DNS_NAMES = 16
# Python's gRPC checks a host name, not a SPIFFE ID: these two are as good as the identity.
_RESERVED_NAMES = {"ca.garrison": certificate_authority, "policy.garrison": policy_server}

_ATTESTOR = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"[a-z0-9-]{1,63}")
_DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(\.{_DNS_LABEL})*")  # RFC 1123 §2.1


class RegistrationRejectedError(RejectedError):
    """A registration entry says something that no entry may say."""


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """One fact that one attestor vouches for: `kubernetes:sub:system:serviceaccount:shop:web`."""

    attestor: str
    key: str
    value: str

    def __post_init__(self) -> None:
        """Refuse what would not survive being written and read again."""
        if not _ATTESTOR.fullmatch(self.attestor) or not _KEY.fullmatch(self.key):
            raise RegistrationRejectedError(f"selector {str(self)!r}: wanted is ATTESTOR:KEY:VALUE")
        if not self.value or not self.value.isprintable():
            raise RegistrationRejectedError(f"selector {str(self)!r} has no printable value")
        if len(str(self).encode()) > MAX_SELECTOR_BYTES:
            raise RegistrationRejectedError(f"selector longer than {MAX_SELECTOR_BYTES} bytes")

    def __str__(self) -> str:
        """Write it as an entry does."""
        return f"{self.attestor}:{self.key}:{self.value}"


def parse_selector(text: str) -> Selector:
    """Parse `ATTESTOR:KEY:VALUE`; the value may hold further colons.

    >>> parse_selector("local:sub:shop/web").value
    'shop/web'

    Raises `RegistrationRejectedError`.
    """
    match text.split(":", 2):
        case [attestor, key, value]:
            return Selector(attestor, key, value)
    raise RegistrationRejectedError(f"selector {text!r}: wanted is ATTESTOR:KEY:VALUE")


@dataclass(frozen=True, slots=True)
class RegistrationEntry:
    """A caller of whom all `selectors` are attested gets `spiffe_id`.

    `ttl` None is the CA's default.
    """

    spiffe_id: SpiffeId
    selectors: frozenset[Selector]
    ttl: timedelta | None = None
    dns_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an entry that would match everybody, or claim what is not a workload's."""
        namespace_and_account(self.spiffe_id)
        if self.spiffe_id == certificate_authority(self.spiffe_id.trust_domain):
            raise self._refused("claims the CA's own identity")
        if not self.selectors:
            raise self._refused("has no selector")
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise self._refused("has a ttl that is not above 0")
        if len(self.dns_names) > MAX_DNS_NAMES:
            raise self._refused(f"has over {MAX_DNS_NAMES} dnsNames")
        for name in self.dns_names:
            self._check_dns_name(name)

    def _check_dns_name(self, name: str) -> None:
        if not _DNS_NAME.fullmatch(name):
            raise self._refused(f"has the dnsName {name!r}: a lower-case host name is wanted")
        owner = _RESERVED_NAMES.get(name)
        if owner is not None and owner(self.spiffe_id.trust_domain) != self.spiffe_id:
            raise self._refused(f"claims {name}, by which a service of the mesh itself is known")

    def _refused(self, reason: str) -> RegistrationRejectedError:
        return RegistrationRejectedError(f"the entry of {self.spiffe_id} {reason}")

    def matches(self, attested: frozenset[Selector]) -> bool:
        """Claim that everything the entry asks for is attested."""
        return self.selectors <= attested
