"""The port on which a process tells operators of itself: HTTP on loopback, without a secret in it.

A name in `Host` is refused: a web page whose own name resolves to loopback could read all this.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address

from aiohttp import web

from garrison.identity.addresses import split_address
from garrison.identity.listening import PortUnavailableError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(address: str, routes: Iterable[web.RouteDef]) -> AsyncIterator[int]:
    """Serve while the block runs; the value is the port.

    Raises `PortUnavailableError`.
    """
    application = web.Application(middlewares=[_refuse_names], client_max_size=1024)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, port = split_address(address)
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise PortUnavailableError(address, "admin_listen", error.strerror) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def health_routes(lacking: Callable[[], list[str]]) -> list[web.RouteDef]:
    """Return `/live`, and `/ready` for what keeps the process from serving: nothing if it is."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(_: web.Request) -> web.Response:
        lacks = lacking()
        status = HTTPStatus.SERVICE_UNAVAILABLE if lacks else HTTPStatus.OK
        return web.json_response({"ready": not lacks, "lacking": lacks}, status=status)

    return [web.get("/live", live), web.get("/ready", ready)]


@web.middleware
async def _refuse_names(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer programs only: neither a rebound name nor a page of another site gets through."""
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise web.HTTPForbidden(text="web pages are not answered\n")
    host = request.url.host or ""
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            raise web.HTTPForbidden(text="the Host must be an IP address or localhost\n") from None
    return await handler(request)
