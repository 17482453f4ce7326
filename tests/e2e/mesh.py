"""A whole mesh for tests that are plain functions: the demo's stage, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.network import random_block
from garrison.deploy.demo.observer import Answer
from garrison.deploy.demo.stage import POLICY_SERVER, Options, Stage, open_stage

OPEN_SECONDS = 120
STEP_SECONDS = 90
Result = TypeVar("Result")


@dataclass(frozen=True)
class Mesh:
    """A running mesh. `stage` has its parts; what is async of it goes through `run`.

    Processes are named ca, policy-server, NAME (an application) and NAME.sidecar.
    """

    stage: Stage
    loop: asyncio.AbstractEventLoop
    opened: concurrent.futures.Future[None]

    def run(self, step: Coroutine[Any, Any, Result], seconds: float = STEP_SECONDS) -> Result:
        """Do something in the stage's loop, and return what came of it."""
        future = asyncio.run_coroutine_threadsafe(step, self.loop)
        both: list[concurrent.futures.Future[Any]] = [future, self.opened]
        concurrent.futures.wait(both, seconds, concurrent.futures.FIRST_COMPLETED)
        if self.opened.done():
            self.opened.result()  # a part crashed: says which
        return future.result(timeout=0)

    def instance(self, name: str) -> Instance:
        return self.stage.instance(name)

    def call(
        self,
        caller: str,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call as an instance's application does: through its sidecar."""
        return self.run(self.stage.observer.call(self.instance(caller), url, method, headers))

    def commit(self, files: Mapping[str, str | None], message: str = "change") -> str:
        """Write the files (None removes one), commit and push; return the commit."""
        return self.run(self.stage.policies.commit(files, message))

    def commit_and_wait(self, files: Mapping[str, str | None], message: str = "change") -> str:
        """Likewise, and wait until every sidecar enforces it."""
        commit = self.commit(files, message)
        self.until(lambda: self.run(self.stage.all_enforce(commit)))
        return commit

    def head(self) -> str:
        return self.run(self.stage.policies.head())

    def reset(self, commit: str) -> None:
        """Go back to an earlier commit, and wait until every sidecar enforces it."""
        self.run(self.stage.policies.reset(commit))
        self.until(lambda: self.run(self.stage.all_enforce(commit)))

    def status(self) -> dict[str, Any]:
        """Return the policy server's status."""
        status: dict[str, Any] = self.run(self.stage.observer.status())
        return status

    def metric(self, instance: str, name: str, **labels: str) -> float:
        """Return the sum of a sidecar's samples of that name and those labels."""
        return self.run(self.stage.observer.metric(self.instance(instance), name, **labels))

    def access_log(self, instance: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of a sidecar's access log that have these values."""
        return self.stage.observer.access_log(self.instance(instance), **fields)

    def log(self, process: str) -> str:
        """Return what a process wrote to stderr."""
        return self.stage.places.log(process).read_text(encoding="utf-8", errors="replace")

    def kill(self, process: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a process; `start` brings it back."""
        self.run(self.stage.processes[process].end(how))

    def drain(self, process: str) -> concurrent.futures.Future[int]:
        """Tell a process to end in its own time; the exit status comes when it has."""

        async def told() -> int:
            running = self.stage.processes[process]
            running.tell_to_end()
            return await running.ended()

        return asyncio.run_coroutine_threadsafe(told(), self.loop)

    def start(self, process: str) -> None:
        """Start a process again, and wait until it is ready."""
        admins = {"ca": self.stage.places.ca_admin, POLICY_SERVER: self.stage.places.policy_admin}
        name, _, sidecar = process.partition(".")
        if process not in admins:
            instance = self.instance(name)
            admins[process] = instance.admin if sidecar else instance.application
        started = self.run(self.stage.processes.start(self.stage.processes[process].program))
        self.run(self.stage.ready(started, admins[process]))

    def until(
        self, claim: Callable[[], object], seconds: float = 30, otherwise: str = "not in time"
    ) -> None:
        """Wait until a function returns something true."""
        deadline = time.monotonic() + seconds
        while not claim():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.02)


@contextlib.contextmanager
def running_mesh(svid_seconds: int = 3600) -> Iterator[Mesh]:
    """Run a mesh on a network of its own until the block ends."""
    ready: concurrent.futures.Future[tuple[Stage, asyncio.Event]] = concurrent.futures.Future()
    opened: concurrent.futures.Future[None] = concurrent.futures.Future()
    loop = asyncio.new_event_loop()

    async def stand() -> None:
        end = asyncio.Event()
        options = Options(first_network=random_block(), svid_seconds=svid_seconds)
        async with open_stage(options) as stage:
            ready.set_result((stage, end))
            await end.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(stand())
            opened.set_result(None)
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's thread
            opened.set_exception(error)
            if not ready.done():
                ready.set_exception(error)

    thread = threading.Thread(target=run, name="mesh")
    thread.start()
    stage, end = ready.result(OPEN_SECONDS)
    try:
        yield Mesh(stage, loop, opened)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed: a part crashed
            loop.call_soon_threadsafe(end.set)
        thread.join(STEP_SECONDS)
    opened.result(timeout=0)
