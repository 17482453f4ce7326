"""`garrison ca`: the CA, given a reader of the repository that is the mesh.

Neither component knows of the other: the CA asks an `EntrySource`, the policies read commits.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from garrison.ca.cli import command
from garrison.identity.errors import RejectedError, UnavailableError

if TYPE_CHECKING:  # not for --help
    from garrison.ca.entries import EntrySource
    from garrison.ca.settings import CaSettings


def source_of(settings: CaSettings) -> EntrySource:
    """Follow the repository that the settings name.

    Raises `RejectedError` if it is none and no entries are known from before: then nobody could be
    issued anything, and the setting is a mistake.
    """
    from garrison.deploy.entry_source import RepositoryEntries  # noqa: PLC0415  # not for --help
    from garrison.policies.repository import open_repository  # noqa: PLC0415

    try:
        open_repository(settings.repository, settings.branch).head()
    except UnavailableError:
        pass  # it may come back
    except RejectedError:
        if not _knows_entries(settings):
            raise
    poll = timedelta(seconds=settings.poll_seconds)
    return RepositoryEntries(settings.repository, settings.branch, poll)


def _knows_entries(settings: CaSettings) -> bool:
    from garrison.ca.state import StateDirectory  # noqa: PLC0415  # not for --help
    from garrison.identity.credentials import utc_now  # noqa: PLC0415

    state = StateDirectory(settings.state)
    state.check()
    with contextlib.closing(state.open_store(utc_now)) as store:
        return store.load_entries() is not None


ca = command(source_of)
