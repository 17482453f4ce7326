"""A service's own SVID, kept renewed, and the TLS credentials of a server that uses it.

The loop is level-triggered: it asks again and again whether the SVID is due, so a missed moment, a
suspended machine or a clock that jumps delays a renewal by a minute at most. The wait is on the
monotonic clock, the question on the wall clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import grpc
import structlog
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import X509Svid

from garrison.identity.backoff import Backoff
from garrison.identity.certificate_client import CaUnavailableError
from garrison.identity.errors import GarrisonError
from garrison.identity.trust import Trust

_LOOK_AGAIN = timedelta(seconds=60)
_JITTER = 0.1  # of half of the life
_SHORTEST_WAIT = timedelta(seconds=1)  # between two SVIDs, however short their life

log = structlog.get_logger()


def utc_now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)


def renewal_moment(svid: X509Svid, now: datetime, source: random.Random) -> datetime:
    """Return when to renew: at half of the life that is left, give or take a tenth of it.

    What is left, for the CA dates certificates back: half of a short life would be over already.
    """
    half = (svid.leaf.not_valid_after_utc - now) / 2
    return now + max(_SHORTEST_WAIT, half * source.uniform(1 - _JITTER, 1 + _JITTER))


class Credentials:
    """The newest SVID of this process; any thread may read it."""

    def __init__(
        self,
        create: Callable[[], Awaitable[X509Svid]],
        clock: Callable[[], datetime] = utc_now,
        source: random.Random | None = None,
    ) -> None:
        self._create = create
        self._clock = clock
        self._source = source or random.SystemRandom()
        self._svid: X509Svid | None = None
        self._replaced = asyncio.Condition()

    @property
    def svid(self) -> X509Svid | None:
        """The newest SVID, which may have expired; None before the first."""
        return self._svid

    async def newer_than(self, old: X509Svid | None) -> X509Svid:
        """Wait for an SVID other than `old`."""
        async with self._replaced:
            while self._svid is None or self._svid is old:
                await self._replaced.wait()
            return self._svid

    async def keep_renewed(self) -> NoReturn:
        """Get the first SVID and every later one; ends by cancellation only."""
        backoff = Backoff(self._source)
        due = self._clock()
        while True:
            left = due - self._clock()
            if left > timedelta():
                await asyncio.sleep(min(left, _LOOK_AGAIN).total_seconds())
                continue
            delay = await self._renew(backoff)
            if delay is not None:
                await asyncio.sleep(delay.total_seconds())
            elif self._svid is not None:
                due = renewal_moment(self._svid, self._clock(), self._source)

    async def _renew(self, backoff: Backoff) -> timedelta | None:
        """Try once; return how long to wait if it failed."""
        try:
            svid = await self._create()
        except GarrisonError as error:
            wanted = error.retry_after if isinstance(error, CaUnavailableError) else timedelta()
            delay = backoff.next_delay(wanted)
            log.warning(
                "no svid was issued",
                reason=str(error),
                failures=backoff.failures,
                retry_seconds=round(delay.total_seconds(), 1),
                expires_at=self._svid and self._svid.leaf.not_valid_after_utc.isoformat(),
            )
            return delay
        backoff.succeeded()
        async with self._replaced:
            self._svid = svid
            self._replaced.notify_all()
        log.info(
            "svid issued",
            spiffe_id=str(svid.spiffe_id),
            serial=f"{svid.leaf.serial_number:x}",
            not_after=svid.leaf.not_valid_after_utc.isoformat(),
        )
        return None


def certificate_pair(svid: X509Svid) -> tuple[bytes, bytes]:
    """Return key and chain in PEM, as gRPC takes them; the key must not reach a disk or a log."""
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
    return key, chain


def server_credentials(credentials: Credentials, trust: Trust) -> grpc.ServerCredentials:
    """Return credentials of a server that takes clients with an SVID only.

    Each handshake uses the newest SVID and roots. There must be an SVID already.
    """
    svid = credentials.svid
    if svid is None:
        raise ValueError("a server needs an SVID before it starts")
    served = (svid, trust.roots)

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        current = (credentials.svid or svid, trust.roots)
        if current == served:
            return None
        served = current
        return _configuration(*current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(*served),
        newest,  # type: ignore[arg-type]  # None means no change: the stubs do not know
        require_client_authentication=True,
    )


def _configuration(svid: X509Svid, roots: bytes) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([certificate_pair(svid)], roots)
