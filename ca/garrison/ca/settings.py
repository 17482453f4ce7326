"""Settings of the CA: `ca/README.md` tells each to operators."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from spiffe import TrustDomain

from garrison.ca.issuance import Lifetimes
from garrison.identity.addresses import ListenAddress, LoopbackAddress, RepositoryLocation
from garrison.identity.errors import RejectedError
from garrison.identity.oidc import Issuer
from garrison.identity.registration import Selector
from garrison.identity.settings import LocalPath, Settings
from garrison.identity.spiffe_id import parse_trust_domain

PREFIX = "GARRISON_CA_"
LONGEST_LIFE = timedelta(hours=24)


def _trust_domain(name: str) -> str:
    try:
        return parse_trust_domain(name).name
    except RejectedError as error:
        raise ValueError(str(error)) from error


class SvidSettings(Settings):
    """How long SVIDs live.

    default_seconds: of a caller that asks for nothing; six hours.
    max_seconds: whatever is asked for; no more than a day.
    """

    default_seconds: Annotated[int, Field(ge=1)] = 6 * 3600
    max_seconds: Annotated[int, Field(ge=1, le=LONGEST_LIFE // timedelta(seconds=1))] = 24 * 3600

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        if self.default_seconds > self.max_seconds:
            raise ValueError("default_seconds is above max_seconds")
        return self

    @property
    def lifetimes(self) -> Lifetimes:
        """The same as durations."""
        return Lifetimes(
            timedelta(seconds=self.default_seconds), timedelta(seconds=self.max_seconds)
        )


class LimitSettings(Settings):
    """How many SVIDs may be asked for; a burst is what may come at once.

    per_second, burst: by all together.
    identity_per_second, identity_burst: by the callers of one identity.
    """

    per_second: Annotated[float, Field(gt=0)] = 2000.0
    burst: Annotated[int, Field(ge=1)] = 4000
    identity_per_second: Annotated[float, Field(gt=0)] = 1000.0
    identity_burst: Annotated[int, Field(ge=1)] = 2000


class OidcSettings(Settings):
    """An issuer of tokens that prove who a caller is.

    name: the first part of the selectors of its tokens.
    issuer, audience: what its tokens must say in `iss` and `aud`.
    jwks_file or jwks_url: its public keys.
    algorithms: by which its tokens may be signed.
    """

    name: str
    kind: Literal["oidc"]
    issuer: str
    audience: str
    jwks_file: LocalPath | None = None
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("either jwks_file or jwks_url is wanted")
        try:
            Selector(self.name, "iss", self.issuer)
            _ = self.accepted
        except RejectedError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def accepted(self) -> Issuer:
        """What its tokens must be like."""
        return Issuer(self.issuer, self.audience, frozenset(self.algorithms))


class InitSettings(Settings):
    """What `garrison ca init` needs to know."""

    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    state: LocalPath
    passphrase_file: LocalPath

    @property
    def domain(self) -> TrustDomain:
        """The trust domain, parsed."""
        return parse_trust_domain(self.trust_domain)


class CaSettings(InitSettings):
    """What `garrison ca serve` is told.

    repository, branch: whose registration entries are followed; poll_seconds: how often.
    listen: CreateCertificate (TLS). bundle_listen: trust bundles (mutual TLS).
    admin_listen: status and metrics (HTTP, loopback only).
    """

    repository: RepositoryLocation
    branch: str = "main"
    poll_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 2.0
    listen: ListenAddress = "127.0.0.1:15012"
    bundle_listen: ListenAddress = "127.0.0.1:15013"
    admin_listen: LoopbackAddress = "127.0.0.1:15014"
    svid: SvidSettings = SvidSettings()
    limits: LimitSettings = LimitSettings()
    attestors: tuple[OidcSettings, ...]

    @model_validator(mode="after")
    def _attestors_are_distinct(self) -> Self:
        if not self.attestors:
            raise ValueError("one or more [[attestors]] are wanted")
        for what in ("name", "issuer"):
            values = [getattr(attestor, what) for attestor in self.attestors]
            if len(set(values)) != len(values):
                raise ValueError(f"two attestors have the same {what}")
        return self
