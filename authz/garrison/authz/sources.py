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


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a source file, perhaps joined from several lines, that knows where it came from.

    `pieces` are pairs of an offset in `value` and the place of the character there.
    """

    value: str
    pieces: tuple[tuple[int, Place], ...]

    def place(self, offset: int) -> Place:
        """Find where the character at `offset` stands in the file."""
        start, place = self.pieces[0]
        for piece in self.pieces[1:]:
            if piece[0] <= offset:
                start, place = piece
        return Place(place.file, place.line, place.column + offset - start)
