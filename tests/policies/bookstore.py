"""The example repository, and small ones made from it, as the tests use them."""

from collections.abc import Mapping
from pathlib import Path

from garrison.policies.commit_files import CommitFiles

EXAMPLE = Path(__file__).parent.parent.parent / "policies" / "examples" / "bookstore"
COMMIT = "3f2c9a1" + "0" * 33


def example_texts() -> dict[str, str]:
    """Return the policy files of the example by path."""
    return {
        str(file.relative_to(EXAMPLE)): file.read_text(encoding="utf-8")
        for file in sorted(EXAMPLE.rglob("*"))
        if file.is_file() and file.suffix != ".md"
    }


def example_with(changes: Mapping[str, str | None]) -> CommitFiles:
    """Return the example with some files replaced, added, or (None) removed."""
    texts = example_texts()
    for path, text in changes.items():
        if text is None:
            del texts[path]
        else:
            texts[path] = text
    return CommitFiles(COMMIT, texts)
