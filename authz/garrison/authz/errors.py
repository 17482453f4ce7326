"""What authorization refuses: every mistake at once, each with its place and its remedy."""

from dataclasses import dataclass

from garrison.authz.sources import Place
from garrison.identity.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake in a model or a policy file. `code` is stable; README.md lists them all."""

    code: str
    place: Place
    reason: str
    remedy: str

    @property
    def file(self) -> str:
        """Name the file that is wrong."""
        return self.place.file

    @property
    def line(self) -> int:
        """Count from one."""
        return self.place.line

    @property
    def column(self) -> int:
        """Count from one."""
        return self.place.column

    def __str__(self) -> str:
        """Say what, where, and what would be right."""
        return f"{self.place}: {self.code}: {self.reason}; {self.remedy}"


class AuthzError(RejectedError):
    """Base of what this component raises."""


class AuthorizationRefusedError(AuthzError):
    """The sources cannot be compiled; `diagnostics` has every mistake that was found."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Keep the mistakes for whoever prints them his own way."""
        self.diagnostics = diagnostics
        super().__init__("\n".join(map(str, diagnostics)))


class UnknownDestinationError(AuthzError):
    """A destination that the compiled rules were not made for."""
