"""A service of the bookstore: an HTTP program that knows nothing of the mesh.

It answers every request with who it is, and one for `/` with what the services that it calls
answered. It reaches them as any program does: by their names, through the proxy of HTTP_PROXY.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """One instance of a service."""

    instance: str
    version: str
    calls: tuple[str, ...]
    fault: Path  # while this file exists, every answer is a 503
    client: aiohttp.ClientSession

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request for any path."""
        await request.read()
        about = {"instance": self.instance, "version": self.version, "path": request.path}
        if self.fault.exists():
            return web.json_response({**about, "fault": "switched on"}, status=503)
        async with asyncio.TaskGroup() as group:
            calls = self.calls if request.path == "/" else ()
            called = {url: group.create_task(self._call(url)) for url in calls}
        answers = {url: task.result() for url, task in called.items()}
        return web.json_response({**about, "called": answers} if answers else about)

    async def _call(self, url: str) -> object:
        try:
            async with self.client.get(url) as response:
                return {"status": response.status, "body": await response.json()}
        except (aiohttp.ClientError, TimeoutError) as error:
            return {"error": repr(error)}


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the process is told to end."""
    limit = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(trust_env=True, timeout=limit) as client:
        service = Service(
            arguments.instance, arguments.version, tuple(arguments.call), arguments.fault, client
        )
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", service.answer)
        host, _, port = arguments.listen.rpartition(":")
        # Longer than the sidecar keeps an idle connection, so none closes under a request.
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=120)
        await runner.setup()
        await web.TCPSite(runner, host, int(port)).start()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instance")
    parser.add_argument("--version", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--fault", required=True, type=Path, metavar="FILE")
    parser.add_argument("--call", action="append", default=[], metavar="URL")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
