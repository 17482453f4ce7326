"""Three HTTP applications whose speed, mood and patience a test sets while they serve."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web

START_SECONDS = 30


@dataclass(slots=True)
class Echo:
    """One instance. It answers with its version and what it was asked."""

    version: str
    listen: str
    status: int = 200
    delay: float = 0.0
    held: int = 0  # requests that wait for `hold` to end
    seen: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request for any path."""
        await request.read()
        self.seen += 1
        self.held += 1
        await self._open.wait()
        self.held -= 1
        await asyncio.sleep(self.delay)
        about = {
            "version": self.version,
            "path": request.path_qs,
            "method": request.method,
            "headers": {name.lower(): value for name, value in request.headers.items()},
        }
        return web.json_response(about, status=self.status)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Answer nothing until the block ends."""
        self._tell(opened=False)
        try:
            yield
        finally:
            self._tell(opened=True)

    def _tell(self, *, opened: bool) -> None:
        assert self._loop is not None
        told = threading.Event()

        def tell() -> None:
            (self._open.set if opened else self._open.clear)()
            told.set()

        self._loop.call_soon_threadsafe(tell)
        assert told.wait(START_SECONDS)

    async def serve(self) -> web.AppRunner:
        """Listen; what is returned is to be cleaned up."""
        self._loop = asyncio.get_running_loop()
        self._open.set()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=120)
        await runner.setup()
        host, _, port = self.listen.rpartition(":")
        await web.TCPSite(runner, host, int(port), backlog=1024).start()
        return runner


@contextlib.contextmanager
def running_echoes(listen: Mapping[str, str]) -> Iterator[dict[str, Echo]]:
    """Run an instance for each version, at these addresses, until the block ends."""
    echoes = {version: Echo(version, address) for version, address in listen.items()}
    loop = asyncio.new_event_loop()
    serving, end = threading.Event(), asyncio.Event()

    async def stand() -> None:
        runners = [await echo.serve() for echo in echoes.values()]
        serving.set()
        await end.wait()
        for runner in runners:
            await runner.cleanup()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(stand())

    thread = threading.Thread(target=run, name="echoes")
    thread.start()
    try:
        assert serving.wait(START_SECONDS), "the echoes do not serve"
        yield echoes
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(START_SECONDS)
