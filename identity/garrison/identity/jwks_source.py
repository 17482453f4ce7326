"""Where an issuer's keys come from: a file, read when it changed, or a URL, fetched in advance.

Nothing here waits while a token is judged. What was read last stays good for a day when its source
goes away; without keys every token is refused, and no key is ever made up.
"""

import asyncio
import ipaddress
import os
import random
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
import structlog

from garrison.identity.attestation import AttestorUnavailableError
from garrison.identity.errors import RejectedError
from garrison.identity.jwks import MAX_JWKS_BYTES, JwksRejectedError, KeySet, parse_jwks

MAX_STALE = timedelta(days=1)
REFRESH = timedelta(minutes=5)
MIN_REFRESH = timedelta(seconds=5)
MAX_BACKOFF = timedelta(seconds=150)
FETCH_TIMEOUT = timedelta(seconds=10)

Monotonic = Callable[[], float]
log = structlog.get_logger()


class KeySource(Protocol):
    """The current keys of one issuer."""

    def keys(self) -> KeySet:
        """Tell the keys. Raises `AttestorUnavailableError` if there are none, or too old ones."""

    def age(self) -> timedelta | None:
        """Tell how long ago the source last confirmed the keys; None if it never did."""

    def want_refresh(self) -> None:
        """Ask for newer keys, because a token named one that is not among them."""

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""


class _LastGood:
    """The newest keys that were ever read, and when their source last said so."""

    def __init__(self, source: str, monotonic: Monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._confirmed_at = 0.0

    def confirm(self, keys: KeySet | None = None) -> None:
        self._keys = keys or self._keys
        self._confirmed_at = self._monotonic()

    def age(self) -> timedelta | None:
        if self._keys is None:
            return None
        return timedelta(seconds=self._monotonic() - self._confirmed_at)

    def keys(self) -> KeySet:
        age = self.age()
        if self._keys is None or age is None:
            raise AttestorUnavailableError(f"no keys from {self._source} yet")
        if age > MAX_STALE:
            raise AttestorUnavailableError(f"the keys from {self._source} are {age} old")
        return self._keys


class JwksFile:
    """Keys in a file; it is looked at on each use, and read only when it changed."""

    def __init__(self, path: Path, monotonic: Monotonic) -> None:
        """Read `path` on first use."""
        self._path = path
        self._last_good = _LastGood(str(path), monotonic)
        self._read: _FileVersion | None = None
        self._problem: str | None = None

    def keys(self) -> KeySet:
        """Tell the keys as the file has them now, or as it last had them."""
        self._look()
        return self._last_good.keys()

    def age(self) -> timedelta | None:
        """Tell how long ago the file was last found good."""
        self._look()
        return self._last_good.age()

    def want_refresh(self) -> None:
        """Do nothing: each use looks at the file."""

    async def run(self) -> None:
        """Do nothing: each use looks at the file."""

    def _look(self) -> None:
        try:
            self._read_if_changed()
            self._problem = None
        except OSError as error:
            self._tell(error.strerror or type(error).__name__)
        except RejectedError as error:
            self._tell(str(error))

    def _read_if_changed(self) -> None:
        status = self._path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise JwksRejectedError("not a regular file")
        version = _FileVersion.of(status)
        if version == self._read:
            return self._last_good.confirm()
        with self._path.open("rb") as file:
            keys = parse_jwks(file.read(MAX_JWKS_BYTES + 1))
        self._read = version
        return self._last_good.confirm(keys)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("issuer keys not read", source=str(self._path), error=problem)
        self._problem = problem


class _FileVersion(NamedTuple):
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class JwksUrl:
    """Keys at a URL, fetched by `run` ahead of need; a redirect is not followed."""

    def __init__(self, url: str, monotonic: Monotonic) -> None:
        """Take the URL; nothing is fetched before `run`. Raises `JwksRejectedError`."""
        _check_url(url)
        self._url = url
        self._last_good = _LastGood(url, monotonic)
        self._wanted = asyncio.Event()

    def keys(self) -> KeySet:
        """Tell the keys that were last fetched."""
        return self._last_good.keys()

    def age(self) -> timedelta | None:
        """Tell how long ago they were fetched."""
        return self._last_good.age()

    def want_refresh(self) -> None:
        """Fetch soon, but not more often than every few seconds."""
        self._wanted.set()

    async def run(self) -> None:
        """Fetch, then again every five minutes, when wanted, and after failures with backoff."""
        failures = 0
        while True:
            failures = 0 if await self._refresh() else failures + 1
            await asyncio.sleep(MIN_REFRESH.total_seconds())
            self._wanted.clear()
            try:
                async with asyncio.timeout(_delay(failures)):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _refresh(self) -> bool:
        try:
            self._last_good.confirm(parse_jwks(await _fetch(self._url)))
        except (aiohttp.ClientError, TimeoutError, RejectedError) as error:
            reason = str(error) or type(error).__name__
            log.warning("issuer keys not fetched", source=self._url, error=reason)
            return False
        return True


async def _fetch(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT.total_seconds())
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.get(
            url, allow_redirects=False, headers={"accept-encoding": "identity"}
        ) as response,
    ):
        if response.status != 200:  # noqa: PLR2004, the one status that carries keys
            raise JwksRejectedError(f"status {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_chunked(16 * 1024):
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise JwksRejectedError(f"longer than {MAX_JWKS_BYTES} bytes")
        return bytes(body)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.hostname is None or parts.username is not None or parts.fragment:
        raise JwksRejectedError(f"{url!r} is no plain https URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise JwksRejectedError(f"{url!r}: keys are fetched by https only (loopback may use http)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _delay(failures: int) -> float:
    if not failures:
        return REFRESH.total_seconds() * random.uniform(0.9, 1.1)  # noqa: S311, jitter
    longest = min(MAX_BACKOFF.total_seconds(), 2.0**failures)
    return random.uniform(0, longest)  # noqa: S311, jitter
