"""What an attestor promises: from a caller's token, facts about the caller that entries can name.

An attestor says what is true of a caller, never who the caller is: that is for the registration
entries. Several attestors stand side by side; exactly one must recognize a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from garrison.identity.errors import RejectedError, UnavailableError
from garrison.identity.registration import Selector


class TokenRejectedError(RejectedError):
    """A token proves nothing: the caller needs another one."""


class AttestorUnavailableError(UnavailableError):
    """A token cannot be judged now, so it proves nothing yet."""


@dataclass(frozen=True, slots=True)
class Attested:
    """Facts about a caller, until `expires_at`; `token_id` names the token without being it."""

    selectors: frozenset[Selector]
    token_id: str
    expires_at: datetime


class Attestor(Protocol):
    """One way to prove facts about a caller."""

    @property
    def name(self) -> str:
        """The first part of the selectors that it makes."""

    def recognizes(self, token: str) -> bool:
        """Claim that `token` is for this attestor to judge; says nothing of whether it is good."""

    async def attest(self, token: str) -> Attested:
        """Judge `token`.

        Raises `TokenRejectedError` or `AttestorUnavailableError`, whose text may go to a log, but
        not to the caller.
        """


async def attest(attestors: Sequence[Attestor], token: str) -> Attested:
    """Let the one attestor that recognizes `token` judge it.

    Raises `TokenRejectedError` (also if none or several recognize it), `AttestorUnavailableError`.
    """
    match [attestor for attestor in attestors if attestor.recognizes(token)]:
        case [attestor]:
            return await attestor.attest(token)
        case []:
            raise TokenRejectedError("no attestor is configured for the issuer of this token")
        case several:
            names = ", ".join(attestor.name for attestor in several)
            raise TokenRejectedError(f"several attestors claim this token: {names}")
