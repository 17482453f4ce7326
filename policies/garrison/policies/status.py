"""What the policy server and the CA each know of the proxies, joined: which of them enforce what.

A proxy that the CA knows and the policy server does not is a laggard too: it may serve by a
configuration of long ago.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError
from yarl import URL

from garrison.policies.errors import StatusUnavailableError

_SECONDS = 5.0
_POLL_SECONDS = 0.1
_MAX_BYTES = 64 * 1024 * 1024
_OWN_NAMESPACE = "/ns/garrison/sa/"  # the mesh's own services are no proxies


class _Told(BaseModel):
    """Part of an answer; what is new in it is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


SomeStatus = TypeVar("SomeStatus", bound=_Told)


class PolicyNack(_Told):
    """A refusal of a response by a client."""

    commit: str
    type: str
    names: tuple[str, ...]
    reason: str
    at: datetime


class PolicyClient(_Told):
    """A client as the policy server knows it."""

    spiffe_id: str
    node: str
    kind: str
    commit: str | None
    in_sync: bool
    svid_expires_at: datetime
    connected_since: datetime
    last_nack: PolicyNack | None


class GoneClient(_Told):
    """A client that went away, and has not come back to the policy server."""

    spiffe_id: str
    node: str
    kind: str
    commit: str | None
    svid_expires_at: datetime
    gone_since: datetime


class Finding(_Told):
    """Why a commit was refused."""

    code: str
    file: str
    line: int
    field: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Read as `file:line: field: reason (fix: remedy)`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        field = f"{self.field}: " if self.field else ""
        return f"{place}: {field}{self.reason} (fix: {self.remedy})"


class RefusedCommit(_Told):
    """A commit that was refused."""

    commit: str
    at: datetime
    total: int
    diagnostics: tuple[Finding, ...]


class PolicyStatus(_Told):
    """The policy server's answer."""

    commit: str | None
    refused: RefusedCommit | None
    unavailable: str | None
    clients: tuple[PolicyClient, ...]
    gone: tuple[GoneClient, ...] = ()


class Bundle(_Told):
    """A trust bundle's version."""

    version: str
    sequence: int


class BundleClient(_Told):
    """A client as the CA knows it."""

    spiffe_id: str
    node: str
    bundle_version: str | None
    in_sync: bool
    svid_expires_at: datetime


class CaStatus(_Told):
    """The CA's answer."""

    bundle: Bundle
    clients: tuple[BundleClient, ...]


class Proxy(_Told):
    """One proxy, joined; what nobody knows is None."""

    spiffe_id: str
    node: str
    kind: str | None
    commit: str | None
    in_sync: bool
    bundle_version: str | None
    bundle_in_sync: bool | None
    svid_expires_at: datetime
    last_nack: PolicyNack | None


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The whole answer."""

    policy: PolicyStatus
    ca: CaStatus | None
    ca_trouble: str | None
    proxies: tuple[Proxy, ...]

    @property
    def laggards(self) -> tuple[Proxy, ...]:
        """The proxies that are not known to enforce the commit that is served."""
        return tuple(each for each in self.proxies if not each.in_sync)

    @property
    def gone(self) -> tuple[GoneClient, ...]:
        """Who went away lately, and whom the CA does not see either."""
        here = {(each.spiffe_id, each.node) for each in self.proxies}
        return tuple(e for e in self.policy.gone if (e.spiffe_id, e.node) not in here)

    @property
    def is_converged(self) -> bool:
        """Whether every proxy is known to enforce it."""
        return self.policy.commit is not None and not self.laggards

    def enforces(self, commit: str) -> bool:
        """Tell whether every proxy is known to enforce this commit, which may be abbreviated."""
        return self.is_converged and (self.policy.commit or "").startswith(commit)

    def refuses(self, commit: str) -> bool:
        """Tell whether this commit was refused."""
        refused = self.policy.refused
        return refused is not None and refused.commit.startswith(commit)

    def as_json(self) -> dict[str, object]:
        """Return the form that `--json` prints."""
        policy = self.policy.model_dump(mode="json", include={"commit", "refused", "unavailable"})
        return {
            **policy,
            "converged": self.is_converged,
            "laggards": [f"{each.node} ({each.spiffe_id})" for each in self.laggards],
            "bundle": self.ca.bundle.model_dump(mode="json") if self.ca else None,
            "ca_unavailable": self.ca_trouble,
            "proxies": [each.model_dump(mode="json") for each in self.proxies],
            "gone": [each.model_dump(mode="json") for each in self.gone],
        }


async def mesh_status(policy_url: str, ca_url: str) -> MeshStatus:
    """Ask both; raises `StatusUnavailableError` if the policy server gives no answer."""
    policy = _parsed(PolicyStatus, await _fetch(policy_url), policy_url)
    try:
        ca = _parsed(CaStatus, await _fetch(ca_url), ca_url)
    except StatusUnavailableError as error:
        return MeshStatus(policy, None, str(error), tuple(_joined(policy, ())))
    return MeshStatus(policy, ca, None, tuple(_joined(policy, ca.clients)))


async def waited_for(
    policy_url: str, ca_url: str, commit: str | None, seconds: float
) -> MeshStatus:
    """Ask until every proxy enforces `commit`, it was refused, or the time is over.

    Raises `StatusUnavailableError` if the policy server gives no answer, not even at the end.
    """
    deadline = time.monotonic() + seconds
    while True:
        is_over = commit is None or time.monotonic() >= deadline
        try:
            found = await mesh_status(policy_url, ca_url)
        except StatusUnavailableError:
            if is_over:
                raise
        else:
            if commit is None or is_over or found.enforces(commit) or found.refuses(commit):
                return found
        await asyncio.sleep(_POLL_SECONDS)


def _joined(policy: PolicyStatus, holders: Iterable[BundleClient]) -> Iterable[Proxy]:
    by_name: dict[tuple[str, str], list[BundleClient]] = {}
    for holder in holders:
        by_name.setdefault((holder.spiffe_id, holder.node), []).append(holder)
    for client in policy.clients:
        known = by_name.pop((client.spiffe_id, client.node), [])
        yield Proxy(
            **client.model_dump(exclude={"connected_since"}),
            bundle_version=known[-1].bundle_version if known else None,
            bundle_in_sync=all(each.in_sync for each in known) if known else None,
        )
    for strays in by_name.values():
        holder = strays[-1]
        if _OWN_NAMESPACE not in holder.spiffe_id:
            yield Proxy(
                spiffe_id=holder.spiffe_id,
                node=holder.node,
                kind=None,
                commit=None,
                in_sync=False,
                bundle_version=holder.bundle_version,
                bundle_in_sync=holder.in_sync,
                svid_expires_at=holder.svid_expires_at,
                last_nack=None,
            )


async def _fetch(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        address = URL(url) / "status"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(address, allow_redirects=False) as response,
        ):
            response.raise_for_status()
            return await _bounded(response)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = _reason(error)
        text = f"{url}: no status: {reason}"
        raise StatusUnavailableError(
            f"{text}: is its process up, and this its admin URL?"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        if number > 0:  # no errno where a name could not be resolved
            return os.strerror(number).lower()  # its own text names the address thrice
    return str(error) or type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
    return bytes(body)


def _parsed(kind: type[SomeStatus], body: bytes, url: str) -> SomeStatus:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{url}: its status is not understood: {where}: {first['msg']}"
        raise StatusUnavailableError(text) from error
