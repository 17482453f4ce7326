"""What authorization refuses: every mistake at once, each with its place and its remedy."""

from dataclasses import dataclass, field

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


class RefusedError(AuthzError):
    """One thing cannot be compiled; `Report.note` takes it where the next can go on."""

    def __init__(self, code: str, place: Place, reason: str, remedy: str) -> None:
        """Carry the diagnostic."""
        self.diagnostic = Diagnostic(code, place, reason, remedy)
        super().__init__(str(self.diagnostic))


@dataclass(slots=True)
class Report:
    """The mistakes met so far; a set, because a mistake in the matcher is met by every line."""

    diagnostics: dict[Diagnostic, None] = field(default_factory=dict)

    def refuse(self, code: str, place: Place, reason: str, remedy: str) -> None:
        """Note a mistake and go on."""
        self.diagnostics[Diagnostic(code, place, reason, remedy)] = None

    def note(self, refused: RefusedError) -> None:
        """Note a mistake that stopped a smaller step."""
        self.diagnostics[refused.diagnostic] = None

    def settle(self) -> None:
        """Raise AuthorizationRefusedError if anything was noted."""
        if self.diagnostics:
            raise AuthorizationRefusedError(tuple(self.diagnostics))
