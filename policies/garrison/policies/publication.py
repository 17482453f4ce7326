"""From the repository's newest commit to the snapshot that is served: the swap, or the refusal.

A commit is published whole or not at all. What was refused is remembered with its reasons until
another commit is published; what is served stays. A server that has nothing to serve yet goes back
to the commit that was published last, before it was restarted. All of the work is done in a thread,
and the event loop only swaps a reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import structlog

from garrison.identity.errors import GarrisonError, UnavailableError
from garrison.policies.diagnostics import Diagnostic, Place
from garrison.policies.errors import CommitRefusedError
from garrison.policies.last_good import LastGood
from garrison.policies.snapshot import Snapshot

MAX_LOGGED = 20  # findings of one commit; all of them are in the status

log = structlog.get_logger()

OutcomeKind = Literal["published", "unchanged", "refused", "unavailable"]


class CommitSource(Protocol):
    """What is asked of the repository; its methods may block."""

    def refresh(self) -> None:
        """Fetch what is new."""

    def head(self) -> str:
        """Return the newest commit."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A commit that was refused, and everything that was found wrong with it."""

    error: CommitRefusedError
    at: datetime

    @property
    def commit(self) -> str:
        """The commit's name."""
        return self.error.commit

    def as_json(self) -> Mapping[str, object]:
        """Return the form of `/status` (docs/seams.md, "Status")."""
        return {
            "commit": self.commit,
            "at": self.at.isoformat(),
            "total": self.error.total,
            "diagnostics": [each.as_json() for each in self.error.diagnostics],
        }


@dataclass(frozen=True, slots=True)
class Published:
    """The snapshot that is served, and since when."""

    snapshot: Snapshot
    at: datetime


class Publication:
    """What is served, what was refused last, and what keeps the repository from being read."""

    def __init__(
        self,
        source: CommitSource,
        prepare: Callable[[str], Snapshot],
        publish: Callable[[Snapshot], None],
        last_good: LastGood,
        clock: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._prepare = prepare  # in a thread: read, check, compile; raises CommitRefusedError
        self._publish = publish  # on the loop, after the swap
        self._last_good = last_good
        self._is_confirmed = False
        self._lost: str | None = None  # the last good commit, if it is good no more
        self._clock = clock
        self._turn = asyncio.Lock()
        self.first = asyncio.Event()  # once there is a snapshot
        self.current: Published | None = None
        self.refusal: Refusal | None = None
        self.trouble: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit that is served."""
        return self.current.snapshot.commit if self.current else None

    async def refresh(self) -> OutcomeKind:
        """Look at the repository, and publish its newest commit if it is new and good."""
        async with self._turn:
            try:
                head = await asyncio.to_thread(self._newest)
                outcome = await self._take(head)
            except GarrisonError as error:
                self._note_trouble(str(error))
                outcome = "unavailable"
            else:
                self.trouble = None
            if self.current is None:
                await self._go_back()
            return outcome

    async def confirm(self) -> None:
        """Take what is published, and all that follows it, for fit to be served: remember it."""
        async with self._turn:
            self._is_confirmed = True
            if self.commit:
                await asyncio.to_thread(self._last_good.remember, self.commit)

    def withdraw(self, error: CommitRefusedError) -> None:
        """Refuse what was published after all, before anybody was served with it."""
        self.current = None
        self.first.clear()
        self._refuse(error)

    def _newest(self) -> str:
        self._source.refresh()
        return self._source.head()

    async def _take(self, head: str) -> OutcomeKind:
        if head == self.commit:
            self.refusal = None  # the branch was set back to what is served
            return "unchanged"
        if self.refusal and head == self.refusal.commit:
            return "refused"
        try:
            snapshot = await asyncio.to_thread(self._prepare, head)
        except CommitRefusedError as error:
            return self._refuse(error)
        except GarrisonError:
            raise
        except Exception:
            # Whatever a commit holds, it may not end the service of the last good one.
            log.exception("commit could not be judged", commit=head)
            return self._refuse(_beyond_us(head))
        if self._is_confirmed:
            await asyncio.to_thread(self._last_good.remember, head)
        self.refusal = None
        self._swap(snapshot)
        log.info("commit published", commit=head)
        return "published"

    async def _go_back(self) -> None:
        """Serve what was published last, before this process was."""
        commit = await asyncio.to_thread(self._last_good.recall)
        refused = self.refusal and self.refusal.commit
        if commit is None or commit in {refused, self._lost}:
            return
        try:
            snapshot = await asyncio.to_thread(self._prepare, commit)
        except UnavailableError as error:
            log.warning("last good commit not served yet", commit=commit, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 -- as in `_take`
            self._lost = commit
            reason = str(error) if isinstance(error, GarrisonError) else repr(error)
            log.error("last good commit not served", commit=commit, reason=reason)  # noqa: TRY400
            return
        self._swap(snapshot)
        log.warning("last good commit served again", commit=commit, refused=refused)

    def _swap(self, snapshot: Snapshot) -> None:
        self.current = Published(snapshot, self._clock())
        self.first.set()
        self._publish(snapshot)

    def _refuse(self, error: CommitRefusedError) -> OutcomeKind:
        self.refusal = Refusal(error, self._clock())
        _log_refusal(error, self.commit)
        return "refused"

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("repository not looked at", reason=trouble, still=self.commit)
        self.trouble = trouble


def _beyond_us(commit: str) -> CommitRefusedError:
    finding = Diagnostic(
        Place("(compiler)"),
        "compiler/error",
        "an error of garrison's own: the log of the policy server has its traceback",
        "report it; the change since the last good commit shows what brought it about",
    )
    return CommitRefusedError(commit, (finding,), 1)


def _log_refusal(error: CommitRefusedError, serving: str | None) -> None:
    for finding in error.diagnostics[:MAX_LOGGED]:
        log.error("finding", commit=error.commit, **finding.as_json())
    log.error("commit refused", commit=error.commit, findings=error.total, still=serving)
