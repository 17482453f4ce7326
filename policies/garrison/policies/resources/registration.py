"""`RegistrationEntry`: which attested facts make a workload which identity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from spiffe import TrustDomain

from garrison.identity import registration
from garrison.identity.registration import Selector, parse_selector
from garrison.identity.spiffe_id import workload
from garrison.policies.resources.fields import Account, Metadata, PositiveDuration, Shape


def _is_selector(text: str) -> str:
    try:
        return str(parse_selector(text))
    except registration.RegistrationRejectedError as error:
        raise ValueError(str(error)) from error


class RegistrationEntrySpec(Shape):
    """A caller of whom all selectors are attested gets the identity."""

    identity: Account = Field(description="NAMESPACE/ACCOUNT of the workload.")
    selectors: tuple[Annotated[str, AfterValidator(_is_selector)], ...] = Field(
        min_length=1,
        max_length=16,
        description="ATTESTOR:KEY:VALUE; all must be attested.",
    )
    ttl: PositiveDuration | None = Field(
        default=None, description="Life of the SVID; the CA's default and maximum still hold."
    )
    dns_names: tuple[str, ...] = Field(default=(), max_length=16)

    def parsed_selectors(self) -> frozenset[Selector]:
        """Return the selectors as the CA compares them."""
        return frozenset(parse_selector(text) for text in self.selectors)


class RegistrationEntry(Shape):
    """The right of a workload to an identity."""

    api_version: Literal["garrison.dev/v1"]
    kind: Literal["RegistrationEntry"]
    metadata: Metadata
    spec: RegistrationEntrySpec

    def entry_in(self, trust_domain: TrustDomain) -> registration.RegistrationEntry:
        """Make the entry that the CA decides by.

        Raises `RegistrationRejectedError` for what no entry may say, such as the CA's identity.
        """
        return registration.RegistrationEntry(
            spiffe_id=workload(trust_domain, *self.spec.identity),
            selectors=self.spec.parsed_selectors(),
            ttl=self.spec.ttl,
            dns_names=self.spec.dns_names,
        )
