"""Many threads' writes in one transaction: the disk is waited for once, and all learn of it.

Whoever finds no transaction under way leads the next one, with all that was handed in meanwhile.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class _Ticket(Generic[Work, Result]):
    def __init__(self, work: Work) -> None:
        self.work = work
        self.is_done = False
        self.result: Result | None = None
        self.error: Exception | None = None


class GroupCommit(Generic[Work, Result]):
    """Runs `commit` on all work at hand; one call at a time, in whichever thread leads."""

    def __init__(self, commit: Callable[[Sequence[Work]], Sequence[Result]], longest: int) -> None:
        """Take what commits: it answers for each work in order, or raises and did nothing."""
        self._commit = commit
        self._longest = longest
        self._waiting: list[_Ticket[Work, Result]] = []
        self._waiting_lock = threading.Lock()
        self._leading = threading.Lock()

    def submit(self, work: Work) -> Result:
        """Return when `work` is committed; raises what `commit` raised for its batch."""
        ticket: _Ticket[Work, Result] = _Ticket(work)
        with self._waiting_lock:
            self._waiting.append(ticket)
        while not ticket.is_done:
            with self._leading:
                if not ticket.is_done:
                    self._lead()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # set when it is done without an error

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Wait for the transaction under way; the next one starts after the block."""
        with self._leading:
            yield

    def _lead(self) -> None:
        with self._waiting_lock:
            batch, self._waiting = self._waiting[: self._longest], self._waiting[self._longest :]
        try:
            results = self._commit([ticket.work for ticket in batch])
            for ticket, result in zip(batch, results, strict=True):
                ticket.result = result
        except Exception as error:  # noqa: BLE001, each waiting thread raises it
            for ticket in batch:
                ticket.error = error
        finally:
            for ticket in batch:
                ticket.is_done = True
