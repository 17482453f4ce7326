"""What `garrison ca status` tells: a running CA's own words, or what its directory says."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp

from garrison.ca.audit import verify
from garrison.ca.settings import PREFIX, CaSettings
from garrison.ca.state import StateDirectory
from garrison.ca.status import describe_authority, describe_identities
from garrison.identity.errors import RejectedError, UnavailableError
from garrison.identity.settings import load_settings

_DEFAULT_URL = "http://127.0.0.1:15014"
_WANTED = "http://IP:PORT of its admin_listen is wanted"
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class CaUnreachableError(UnavailableError):
    """No CA answers there."""


class StatusRejectedError(RejectedError):
    """What answers is no CA, or the options contradict each other."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What to look at: an address, a directory, or the directory if the address does not answer."""

    url: str | None
    state: StateDirectory | None

    @classmethod
    def of(
        cls,
        config: Path | None,
        url: str | None,
        state: Path | None,
        environment: Mapping[str, str],
    ) -> Self:
        """Choose by the options. Raises `StatusRejectedError` or `SettingsError`."""
        if sum(option is not None for option in (config, url, state)) > 1:
            raise StatusRejectedError("only one of --config, --url and --state can be given")
        if config is not None:
            settings = load_settings(CaSettings, config, PREFIX, environment)
            return cls(f"http://{settings.admin_listen}", StateDirectory(settings.state))
        if state is not None:
            return cls(None, StateDirectory(state))
        return cls(url or _DEFAULT_URL, None)


def inspect(subject: Subject) -> Mapping[str, Any]:
    """Return the status as JSON knows it.

    Raises `CaUnreachableError`, `StatusRejectedError` or `StateRejectedError`.
    """
    if subject.url is not None:
        try:
            return asyncio.run(_ask(subject.url))
        except CaUnreachableError:
            if subject.state is None:
                raise
    if subject.state is None:
        raise StatusRejectedError("nothing to look at")
    return _read(subject.state)


async def _ask(url: str) -> Mapping[str, Any]:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(f"{url.rstrip('/')}/status", allow_redirects=False) as response,
        ):
            found = await response.json()
    except (aiohttp.ContentTypeError, aiohttp.InvalidURL) as error:
        raise StatusRejectedError(f"{url}: not a CA's admin address: {_WANTED}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        text = f"{url}: no CA answers: {error or 'no answer in time'}"
        raise CaUnreachableError(f"{text}: start it, or name it with --url, or --state") from error
    if response.status != HTTPStatus.OK or not isinstance(found, dict) or "ready" not in found:
        raise StatusRejectedError(f"{url}: not a CA's admin address: {_WANTED}")
    return found


def _read(state: StateDirectory) -> Mapping[str, Any]:
    state.check()
    now = datetime.now(UTC)
    issuing, root = (state.read_certificate(name) for name in ("issuing.pem", "root.pem"))
    store = state.open_store(lambda: now)
    try:
        head = verify(store.audit_rows())
        entries = store.load_entries()
        live = store.live_identities(now)
    finally:
        store.close()
    ends = min(issuing.not_valid_after_utc, root.not_valid_after_utc)
    is_valid = issuing.not_valid_before_utc <= now < ends
    return {
        "ready": is_valid,
        "lacking": [] if is_valid else ["the issuing certificate or the root is out of its time"],
        "offline": True,
        **describe_authority(issuing, root, now),
        "entries": {
            "commit": entries.commit if entries else None,
            "count": len(entries.entries) if entries else 0,
        },
        "svids": describe_identities(live),
        "audit": {"sequence": head.sequence, "hash": head.hash, "verified": True},
    }


def describe(found: Mapping[str, Any]) -> str:
    """Write a status for a person."""
    lines = ["not running; this is what its directory says" if found.get("offline") else "running"]
    lines += [f"cannot issue: {reason}" for reason in found["lacking"]]
    for name in ("issuing_key", "root"):
        lines.append(f"{name.replace('_', ' ')} expires {found[name]['expires_at']}")
    entries, svids, audit = found["entries"], found["svids"], found["audit"]
    lines.append(f"{entries['count']} entries of commit {entries['commit']}")
    if entries.get("problem"):
        lines.append(f"the repository's newest commit was not taken: {entries['problem']}")
    lines.append(f"{svids['live']} live SVIDs of {len(svids['identities'])} identities")
    for each in svids["identities"]:
        lines.append(f"  {each['spiffe_id']}: {each['certificates']}, {each['latest_expires_at']}")
    verified = ", verified" if audit.get("verified") else ""
    lines.append(f"audit log of {audit['sequence']} rows{verified}, head {audit['hash']}")
    for client in found.get("clients", []):
        state = "has" if client["in_sync"] else "has not acknowledged"
        lines.append(f"  {client['spiffe_id']} {client['node']} {state} the bundle")
    return "\n".join(lines)
