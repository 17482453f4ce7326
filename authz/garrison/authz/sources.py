"""What is compiled: the text of a model and of its policy files, and places in them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the policy repository; `path` is relative to its root."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class AuthorizationSources:
    """A Casbin model and its policy files; the files are taken in the order of their paths."""

    model: SourceFile
    policies: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; line and column count from one."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        """Spell it as compilers do."""
        return f"{self.file}:{self.line}:{self.column}"
