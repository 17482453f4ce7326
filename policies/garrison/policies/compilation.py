"""A commit's files to its snapshot, or to everything that is wrong with them."""

from __future__ import annotations

from garrison.policies.authorization import compile_rules
from garrison.policies.catalogue import catalogue_of
from garrison.policies.commit_files import CommitFiles
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.errors import CommitRefusedError
from garrison.policies.mesh import resolve
from garrison.policies.resources import Placed, Resource, parse_resources
from garrison.policies.snapshot import Snapshot
from garrison.policies.validation import validate

# Findings of something absent: it may be there, in what could not be parsed.
_FOLLOWS = frozenset(
    {
        "route/idempotent",
        "route/unknown-service",
        "service/empty-version",
        "service/unknown-parent",
        "service/unregistered-identity",
        "traffic/unknown-service",
    }
)


def compile_commit(files: CommitFiles) -> Snapshot:
    """Parse, check and compile all of a commit. Pure: no clock, no network, no executable.

    Raises `CommitRefusedError` with everything that was found, but not with what only follows from
    other findings: a route to a service whose file is broken is no second mistake.
    """
    diagnostics = Diagnostics()
    diagnostics.extend(files.diagnostics)
    catalogue = catalogue_of(_resources(files, diagnostics), diagnostics)
    across = Diagnostics()
    validate(catalogue, across)
    diagnostics.extend(each for each in across if not diagnostics or each.code not in _FOLLOWS)
    _refuse_if_any(files, diagnostics)
    mesh = resolve(catalogue)
    authorization = compile_rules(files.texts, mesh, catalogue, diagnostics)
    _refuse_if_any(files, diagnostics)
    if authorization is None:
        raise AssertionError("authorization was refused without a finding")
    return Snapshot.of(files.commit, mesh, authorization)


def _resources(files: CommitFiles, diagnostics: Diagnostics) -> list[Placed[Resource]]:
    resources: list[Placed[Resource]] = []
    for path in sorted(files.texts):
        if path.endswith(".yaml"):
            resources += parse_resources(path, files.texts[path], diagnostics)
    return resources


def _refuse_if_any(files: CommitFiles, diagnostics: Diagnostics) -> None:
    if diagnostics:
        raise CommitRefusedError(files.commit, diagnostics.in_order(), diagnostics.total)
