"""Errors of the policies: each a decision that a caller can take."""

from __future__ import annotations

from garrison.identity.errors import GarrisonError, RejectedError, UnavailableError
from garrison.policies.diagnostics import Diagnostic


class PoliciesError(GarrisonError):
    """Base of this component's errors."""


class RepositoryError(PoliciesError, RejectedError):
    """What was named is no repository, branch or commit: naming it again fails again."""


class RepositoryUnavailableError(PoliciesError, UnavailableError):
    """The repository cannot be reached now; what was read before stays true."""


class CommitRefusedError(PoliciesError, RejectedError):
    """A commit says something wrong, and is refused whole. `diagnostics` are in order of place."""

    def __init__(self, commit: str, diagnostics: tuple[Diagnostic, ...], total: int) -> None:
        """Refuse `commit`; `total` may exceed the diagnostics that were kept."""
        self.commit = commit
        self.diagnostics = diagnostics
        self.total = total
        lines = [str(diagnostic) for diagnostic in diagnostics]
        if total > len(diagnostics):
            lines.append(f"and {total - len(diagnostics)} more")
        super().__init__(f"commit {commit[:12]} is refused:\n" + "\n".join(lines))


class ExplainError(PoliciesError, RejectedError):
    """The request to explain cannot exist: unknown service, bad SPIFFE ID, uncanonical path."""


class StatusUnavailableError(PoliciesError, UnavailableError):
    """A server does not tell its status."""


class BindingRejectedError(PoliciesError, RejectedError):
    """A node says of itself that it listens where nothing can listen."""


class SidecarFailedError(PoliciesError, UnavailableError):
    """`garrison-proxy` could not be asked: it is another version, was killed, or took too long."""
