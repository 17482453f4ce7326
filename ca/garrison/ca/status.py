"""What the CA tells of itself: as JSON at `/status`, as a verdict at `/ready` (docs/seams.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from garrison.ca.authority import Authority
from garrison.ca.bundle_service import BundleService
from garrison.ca.entries_follower import EntriesFollower
from garrison.ca.outcomes import Tally
from garrison.ca.store import LiveIdentity, Store
from garrison.identity.credentials import Credentials
from garrison.identity.jwks_source import KeySource


@dataclass(frozen=True, slots=True)
class NamedKeys:
    """The keys of one attestor."""

    attestor: str
    issuer: str
    source: KeySource


@dataclass(frozen=True, slots=True)
class CaStatus:
    """Reads the parts of a running CA."""

    authority: Authority
    credentials: Credentials
    bundles: BundleService
    entries: EntriesFollower
    keys: Sequence[NamedKeys]
    store: Store
    tally: Tally
    clock: Callable[[], datetime]

    def lacking(self) -> list[str]:
        """Return what keeps the CA from issuing; nothing if it is ready."""
        now, svid = self.clock(), self.credentials.svid
        lacks = []
        if not self.authority.issuing.not_valid_before_utc <= now < self.authority.not_after:
            lacks.append("the issuing certificate or the root is out of its time")
        if svid is None or svid.leaf.not_valid_after_utc <= now:
            lacks.append("no certificate to serve with")
        if self.entries.current is None:
            lacks.append("no registration entries have been read yet")
        if all(keys.source.age() is None for keys in self.keys):
            lacks.append("no keys of any token issuer yet")
        return lacks

    def live_identities(self) -> list[LiveIdentity]:
        """Return who has certificates in use. Blocks."""
        return self.store.live_identities(self.clock())

    def as_json(self) -> Mapping[str, object]:
        """Return the form of `/status`. Blocks on the store."""
        lacks, head = self.lacking(), self.store.audit_head()
        return {
            "trust_domain": self.authority.trust_domain.name,
            "ready": not lacks,
            "lacking": lacks,
            **describe_authority(self.authority.issuing, self.authority.root, self.clock()),
            "serving_svid": self._serving_svid(),
            "bundle": {
                "version": self.bundles.version,
                "sequence": self.bundles.bundle.sequence,
            },
            "entries": {
                "commit": self.entries.commit,
                "count": len(self.entries.current.entries) if self.entries.current else 0,
                "problem": self.entries.problem,
            },
            "attestors": [_describe_keys(keys) for keys in self.keys],
            "svids": describe_identities(self.live_identities()),
            "requests": {outcome.value: n for outcome, n in self.tally.counts.items()},
            "audit": {"sequence": head.sequence, "hash": head.hash},
            "clients": self.bundles.status(),
        }

    def _serving_svid(self) -> Mapping[str, object] | None:
        svid = self.credentials.svid
        if svid is None:
            return None
        return {
            "spiffe_id": str(svid.spiffe_id),
            "expires_at": svid.leaf.not_valid_after_utc.isoformat(),
        }


def describe_authority(
    issuing: x509.Certificate, root: x509.Certificate, now: datetime
) -> Mapping[str, object]:
    """Tell of the CA's own certificates and how long they last."""
    return {"issuing_key": _describe(issuing, now), "root": _describe(root, now)}


def describe_identities(live: Sequence[LiveIdentity]) -> Mapping[str, object]:
    """Tell who has certificates in use."""
    return {
        "live": sum(each.certificates for each in live),
        "identities": [
            {
                "spiffe_id": each.spiffe_id,
                "certificates": each.certificates,
                "latest_expires_at": each.latest_not_after.isoformat(),
            }
            for each in live
        ],
    }


def _describe(certificate: x509.Certificate, now: datetime) -> Mapping[str, object]:
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    expires_at = certificate.not_valid_after_utc
    return {
        "subject": certificate.subject.rfc4514_string(),
        "key_id": identifier.digest.hex(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "expires_at": expires_at.isoformat(),
        "expires_in_seconds": int((expires_at - now).total_seconds()),
    }


def _describe_keys(keys: NamedKeys) -> Mapping[str, object]:
    age = keys.source.age()
    return {
        "name": keys.attestor,
        "issuer": keys.issuer,
        "keys_age_seconds": None if age is None else int(age.total_seconds()),
    }
