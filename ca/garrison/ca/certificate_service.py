"""`istio.v1.auth.IstioCertificateService`: a bearer token and a CSR in, a certificate chain out.

The walk is token → selectors → entry → quota → key → issuance. Attestation and entries are quick
and stay on the event loop; what costs CPU or waits for the disk goes to a pool of threads.
"""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import grpc
import structlog

from garrison.ca.csr import MAX_CSR_BYTES, parse_csr
from garrison.ca.entries import Entitlement
from garrison.ca.entries_follower import EntriesFollower
from garrison.ca.issuance import Issuance, Issued, Order
from garrison.ca.outcomes import Outcome, Tally, is_expected, refusal_of
from garrison.ca.quota import Quota
from garrison.ca.store import Origin
from garrison.identity.attestation import Attestor, TokenRejectedError, attest
from garrison.identity.istio_ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from garrison.identity.oidc import MAX_TOKEN_BYTES

MAX_REQUEST_BYTES = 2 * MAX_CSR_BYTES  # with room for the metadata that other agents send
LONGEST_REQUEST = timedelta(days=36500)  # any more is the same, and would overflow
_SCHEME = "bearer "  # RFC 6750 §2.1; schemes are compared without case (RFC 9110 §11.1)

Context = grpc.aio.ServicerContext[IstioCertificateRequest, IstioCertificateResponse]
log = structlog.get_logger()
audit_log = structlog.get_logger("audit")


@dataclass(frozen=True, slots=True)
class CertificateService:
    """Answers CreateCertificate."""

    attestors: Sequence[Attestor]
    entries: EntriesFollower
    quota: Quota
    issuance: Issuance
    tally: Tally
    executor: Executor

    async def CreateCertificate(  # noqa: N802, the name in the proto
        self, request: IstioCertificateRequest, context: Context
    ) -> IstioCertificateResponse:
        """Issue one SVID, or abort with the status that docs/seams.md gives."""
        try:
            issued = await self._create(request, context)
        except Exception as error:  # noqa: BLE001, each error becomes a status, in one place
            await self._refuse(error, context)
        self.tally.add(Outcome.ISSUED)
        return IstioCertificateResponse(cert_chain=issued.chain)

    async def _create(self, request: IstioCertificateRequest, context: Context) -> Issued:
        attested = await attest(self.attestors, _bearer_token(context))
        entitlement = self.entries.entitle(attested.selectors)
        self.quota.admit(str(entitlement.spiffe_id))
        origin = Origin(attested.token_id, self.entries.commit or "")
        loop = asyncio.get_running_loop()
        issued = await loop.run_in_executor(
            self.executor, self._issue, request, entitlement, origin
        )
        _record(issued, origin)
        return issued

    def _issue(
        self, request: IstioCertificateRequest, entitlement: Entitlement, origin: Origin
    ) -> Issued:
        key = parse_csr(request.csr, self.issuance.authority.own_keys)
        most = LONGEST_REQUEST.total_seconds()
        ttl = timedelta(seconds=max(-1.0, min(request.validity_duration, most)))
        return self.issuance.issue(Order(entitlement, key, ttl, origin))

    async def _refuse(self, error: Exception, context: Context) -> NoReturn:
        refusal = refusal_of(error)
        self.tally.add(refusal.outcome)
        if is_expected(error):
            audit_log.info(
                "certificate refused",
                outcome=refusal.outcome.value,
                reason=str(error),
                peer=context.peer(),
            )
        else:
            log.error("certificate not issued", peer=context.peer(), exc_info=error)
        trailing: tuple[tuple[str, str], ...] = ()
        if refusal.retry_after is not None:
            seconds = math.ceil(refusal.retry_after.total_seconds())
            trailing = (("retry-after-seconds", str(seconds)),)
        await context.abort(refusal.code, refusal.text, trailing)
        raise AssertionError("abort raises")


def _bearer_token(context: Context) -> str:
    found = [
        value for name, value in context.invocation_metadata() or () if name == "authorization"
    ]
    if len(found) != 1 or not isinstance(found[0], str):
        raise TokenRejectedError(f"{len(found)} authorization metadata instead of one")
    if found[0][: len(_SCHEME)].lower() != _SCHEME:
        raise TokenRejectedError("authorization is not by a bearer token")
    if len(found[0]) > MAX_TOKEN_BYTES + len(_SCHEME):
        raise TokenRejectedError("the token is too long")
    return found[0][len(_SCHEME) :]


def _record(issued: Issued, origin: Origin) -> None:
    audit_log.info(
        "certificate issued",
        spiffe_id=str(issued.leaf.spiffe_id),
        serial=f"{issued.leaf.serial:x}",
        not_after=issued.leaf.validity.not_after.isoformat(),
        token_id=origin.token_id,
        commit=origin.commit,
        audit_sequence=issued.audit_sequence,
        audit_hash=issued.audit_hash,
    )
