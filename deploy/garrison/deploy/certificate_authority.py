"""`garrison ca`: the CA, given a reader of the repository that is the mesh.

Neither component knows of the other: the CA asks an `EntrySource`, the policies read commits.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from garrison.ca.cli import command

if TYPE_CHECKING:  # not for --help
    from garrison.ca.entries import EntrySource
    from garrison.ca.settings import CaSettings


def source_of(settings: CaSettings) -> EntrySource:
    """Follow the repository that the settings name."""
    from garrison.deploy.entry_source import RepositoryEntries  # noqa: PLC0415  # not for --help

    poll = timedelta(seconds=settings.poll_seconds)
    return RepositoryEntries(settings.repository, settings.branch, poll)


ca = command(source_of)
