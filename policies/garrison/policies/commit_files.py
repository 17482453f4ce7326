"""The policy files of one commit: its tree's regular files of expected names, and nothing else.

Git stores whatever a client pushed, so a tree is hostile input: entries may be links, submodules
or `..`, names may collide where case is ignored, blobs may be huge, and text may show a reader
something else than it says. Each of these refuses the commit. The work tree is never looked at.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID, ShaFile, Tree

from garrison.policies.diagnostics import Diagnostic, Diagnostics, Place
from garrison.policies.object_sizes import load_within, packed_cost

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 5_000
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_OBJECT_BYTES = 16 * 1024 * 1024  # of anything that is inflated, also bases of deltas
MAX_INFLATED_BYTES = 4 * 1024 * 1024 * 1024  # by all reads together: what bounds the time
MAX_TREE_DEPTH = 12
MAX_ENTRIES = 10_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_POLICY = re.compile(r".*\.yaml|authz/model\.conf|authz/[^/]*\.csv")
_UNREAD = re.compile(r"(.*/)?(LICENSE|CODEOWNERS|Makefile|[^/]*\.(md|txt))")  # files for people
# What makes text show something else than it says: control characters, other line ends than \n and
# \r\n, and the marks that reorder or hide what follows (Unicode TR36 §2.10.2, "bidirectional").
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
    r"|\r(?!\n)"
)


@dataclass(frozen=True, slots=True)
class CommitFiles:
    """The text of each policy file of a commit by its path, and what was refused."""

    commit: str
    texts: Mapping[str, str]
    diagnostics: tuple[Diagnostic, ...] = ()


def read_files(store: DiskObjectStore, commit: str, tree_id: ObjectID) -> CommitFiles:
    """Read the policy files of a commit's tree."""
    walk = _Walk(store)
    walk.directory(tree_id, "")
    return CommitFiles(commit, walk.texts, walk.diagnostics.in_order())


@dataclass(slots=True)
class _Walk:
    store: DiskObjectStore
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    texts: dict[str, str] = field(default_factory=dict)
    total_bytes: int = 0
    inflated_bytes: int = 0
    entries: int = 0

    def directory(self, tree_id: ObjectID, prefix: str) -> None:
        seen: dict[str, str] = {}
        for name, mode, sha in self._names(tree_id, prefix):
            twin = seen.setdefault(name.lower(), name)
            if twin != name:
                self._refuse(
                    prefix + name,
                    "case-collision",
                    f"differs only in case from {prefix + twin}",
                    "rename one of the two",
                )
            elif stat.S_ISDIR(mode):
                if prefix.count("/") >= MAX_TREE_DEPTH:
                    reason = f"lies deeper than {MAX_TREE_DEPTH} folders"
                    self._refuse(prefix + name, "too-deep", reason, "use fewer folders")
                else:
                    self.directory(sha, f"{prefix}{name}/")
            else:
                self._file(prefix + name, mode, sha)

    def _names(self, tree_id: ObjectID, prefix: str) -> Iterator[tuple[str, int, ObjectID]]:
        """Go through the entries of a folder; what begins with a dot is not read."""
        tree = self._load(prefix or "/", tree_id)
        for entry in tree.iteritems() if isinstance(tree, Tree) else ():
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                reason = f"has over {MAX_ENTRIES} files and folders"
                self._refuse(prefix or "/", "too-many", reason, "keep policy apart from the rest")
                return
            name = (entry.path or b"").decode("utf-8", "backslashreplace")
            if name not in {".", ".."} and name.startswith("."):
                continue
            if not _NAME.fullmatch(name) or entry.mode is None or entry.sha is None:
                shown = prefix + ascii(name)
                reason = "has a name other than of A-Z a-z 0-9 . _ -"
                self._refuse(shown, "name", reason, "rename it")
                continue
            yield name, entry.mode, entry.sha

    def _file(self, path: str, mode: int, sha: ObjectID) -> None:
        if not stat.S_ISREG(mode):
            kind = "symbolic link" if stat.S_ISLNK(mode) else "submodule"
            reason = f"is a {kind}; only regular files are read"
            self._refuse(path, "irregular", reason, "put the file itself there, or remove it")
        elif _POLICY.fullmatch(path):
            self._text(path, sha)
        elif not _UNREAD.fullmatch(path):
            self._refuse(
                path,
                "unexpected",
                "is not a file that garrison reads",
                "resources are *.yaml, authorization is authz/model.conf and authz/*.csv; "
                "*.md and *.txt, LICENSE, CODEOWNERS, Makefile and .* may be there too",
            )

    def _text(self, path: str, sha: ObjectID) -> None:
        if len(self.texts) >= MAX_FILES or self.total_bytes > MAX_TOTAL_BYTES:
            reason = f"is beyond {MAX_FILES} files or {MAX_TOTAL_BYTES} bytes"
            self._refuse(path, "too-many", reason, "put more into a file, or split the mesh")
            return
        content = self._content(path, sha)
        if content is None:
            return
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self._refuse(path, "encoding", "is not UTF-8", "save it as UTF-8", line)
            return
        hidden = _HIDDEN.search(text)
        if hidden:
            line = text.count("\n", 0, hidden.start()) + 1
            reason = f"holds the hidden character U+{ord(hidden.group()[0]):04X}"
            self._refuse(path, "hidden-character", reason, "remove it", line)
            return
        self.texts[path] = text

    def _content(self, path: str, sha: ObjectID) -> bytes | None:
        blob = self._load(path, sha)
        if blob is None:
            return None
        content = blob.as_raw_string()
        self.total_bytes += len(content)
        if len(content) > MAX_FILE_BYTES:
            self._refuse_large(path, MAX_FILE_BYTES)
            return None
        return content

    def _load(self, path: str, name: ObjectID) -> ShaFile | None:
        """Inflate an object, unless that would take too much."""
        self.inflated_bytes += packed_cost(self.store, name).total
        if self.inflated_bytes > MAX_INFLATED_BYTES:
            reason = f"takes over {MAX_INFLATED_BYTES} bytes to read, with all before it"
            self._refuse(path, "too-large", reason, "pack the repository anew: git repack -adf")
            return None
        loaded = load_within(self.store, name, MAX_OBJECT_BYTES)
        if loaded is None:
            self._refuse_large(path, MAX_OBJECT_BYTES)
        else:
            self.inflated_bytes += loaded.raw_length()
        return loaded

    def _refuse_large(self, path: str, limit: int) -> None:
        self._refuse(path, "too-large", f"is larger than {limit} bytes", "split it")

    def _refuse(self, path: str, code: str, reason: str, remedy: str, line: int = 0) -> None:
        self.diagnostics.add(Place(path, line), f"repository/{code}", reason, remedy)
