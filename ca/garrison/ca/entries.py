"""Registration entries at work: from attested facts to the one identity that they entitle to."""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from spiffe import SpiffeId, TrustDomain

from garrison.ca.errors import EntriesRejectedError, NotEntitledError
from garrison.identity.registration import RegistrationEntry, Selector, parse_selector
from garrison.identity.spiffe_id import parse_spiffe_id


@dataclass(frozen=True, slots=True)
class EntriesAtCommit:
    """All entries that one commit of the repository has."""

    commit: str
    entries: tuple[RegistrationEntry, ...]


class EntrySource(Protocol):
    """The repository, as the CA sees it."""

    async def next_entries(self, known_commit: str | None) -> EntriesAtCommit:
        """Wait until the repository is at another commit than `known_commit`, and read that.

        Raises `RejectedError` for a commit that is bad, `UnavailableError` while it cannot be read;
        the CA keeps what it has, and asks again after a while.
        """


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a caller may have: an identity, host names beside it, and for how long at most."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...] = ()
    ttl: timedelta | None = None


class EntrySet:
    """The entries of one commit, ready to be asked; never changed."""

    def __init__(self, trust_domain: TrustDomain, at_commit: EntriesAtCommit) -> None:
        """Index the entries. Raises `EntriesRejectedError`."""
        self.commit = at_commit.commit
        self.entries = at_commit.entries
        _check(trust_domain, at_commit)
        uses = Counter(selector for entry in self.entries for selector in entry.selectors)
        self._by_rarest: defaultdict[Selector, list[RegistrationEntry]] = defaultdict(list)
        for entry in self.entries:
            self._by_rarest[min(entry.selectors, key=uses.__getitem__)].append(entry)

    @property
    def digest(self) -> str:
        """A name for the content, whatever the commit."""
        lines = "\n".join(sorted(map(describe_entry, self.entries)))
        return hashlib.sha256(lines.encode()).hexdigest()

    def entitle(self, attested: frozenset[Selector]) -> Entitlement:
        """Find the one entry whose selectors are all attested.

        Raises `NotEntitledError` if there is none or more than one; its text is for our log only.
        """
        candidates = (e for selector in attested for e in self._by_rarest.get(selector, ()))
        match [entry for entry in candidates if entry.matches(attested)]:
            case [entry]:
                return Entitlement(entry.spiffe_id, entry.dns_names, entry.ttl)
            case []:
                told = ", ".join(sorted(map(str, attested)))
                raise NotEntitledError(f"no entry at commit {self.commit} matches {told}")
            case several:
                told = ", ".join(sorted(describe_entry(entry) for entry in several))
                raise NotEntitledError(f"{len(several)} entries at {self.commit} match: {told}")


def describe_entry(entry: RegistrationEntry) -> str:
    """Write an entry as one line of JSON; equal entries give equal lines."""
    return json.dumps(
        {
            "spiffe_id": str(entry.spiffe_id),
            "selectors": sorted(map(str, entry.selectors)),
            "ttl_seconds": entry.ttl.total_seconds() if entry.ttl else None,
            "dns_names": list(entry.dns_names),
        },
        sort_keys=True,
    )


def read_entry(line: str) -> RegistrationEntry:
    """Read what `describe_entry` wrote; raises `RejectedError`, `ValueError` or `KeyError`."""
    members = json.loads(line)
    seconds = members["ttl_seconds"]
    return RegistrationEntry(
        parse_spiffe_id(members["spiffe_id"]),
        frozenset(map(parse_selector, members["selectors"])),
        timedelta(seconds=seconds) if seconds is not None else None,
        tuple(members["dns_names"]),
    )


def _check(trust_domain: TrustDomain, at_commit: EntriesAtCommit) -> None:
    """Refuse identities of somebody else, and entries that no caller could match alone."""
    seen: dict[frozenset[Selector], RegistrationEntry] = {}
    for entry in at_commit.entries:
        if entry.spiffe_id.trust_domain != trust_domain:
            raise EntriesRejectedError(
                f"commit {at_commit.commit}: {entry.spiffe_id} is not in {trust_domain}"
            )
        twin = seen.get(entry.selectors)
        if twin is not None:
            raise EntriesRejectedError(
                f"commit {at_commit.commit}: {twin.spiffe_id} and {entry.spiffe_id} have the same "
                "selectors, so nobody could have either"
            )
        seen[entry.selectors] = entry
