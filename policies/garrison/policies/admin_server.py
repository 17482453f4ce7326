"""What the policy server tells operators: HTTP on loopback, without a secret in it.

A name in `Host` is refused: a web page that had its own name resolve to loopback could read all
this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Protocol

from aiohttp import web

from garrison.policies import metrics
from garrison.policies.errors import ListenError
from garrison.policies.policy_settings import split_address
from garrison.policies.publication import OutcomeKind

_STATUS_OF: Mapping[OutcomeKind, HTTPStatus] = {
    "published": HTTPStatus.OK,
    "unchanged": HTTPStatus.OK,
    "refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Told(metrics.Measured, Protocol):
    """What the admin port tells of."""

    def status(self) -> Mapping[str, object]:
        """Return the form of `/status`."""

    async def refresh(self) -> OutcomeKind:
        """Look at the repository now."""


@asynccontextmanager
async def serving(told: Told, address: str) -> AsyncIterator[None]:
    """Serve while the block runs; raises `ListenError` if the port cannot be had."""
    runner = web.AppRunner(_application(told), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, port = split_address(address)
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            text = f"{address}: cannot be listened on: {error.strerror}"
            raise ListenError(f"{text}; choose another address by `admin_listen`") from error
        yield
    finally:
        await runner.cleanup()


def _application(told: Told) -> web.Application:
    async def live(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(_: web.Request) -> web.Response:
        lacking = told.lacking()
        status = HTTPStatus.SERVICE_UNAVAILABLE if lacking else HTTPStatus.OK
        return web.json_response({"ready": not lacking, "lacking": lacking}, status=status)

    async def status(_: web.Request) -> web.Response:
        return web.json_response(told.status())

    async def exposition(_: web.Request) -> web.Response:
        body = metrics.exposition(told)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def refresh(_: web.Request) -> web.Response:
        outcome = await told.refresh()
        known = told.status()
        answer = {key: known[key] for key in ("commit", "refused", "unavailable")}
        return web.json_response({"outcome": outcome, **answer}, status=_STATUS_OF[outcome])

    application = web.Application(middlewares=[_refuse_names], client_max_size=1024)
    application.add_routes(
        [
            web.get("/live", live),
            web.get("/ready", ready),
            web.get("/status", status),
            web.get("/metrics", exposition),
            web.post("/refresh", refresh),
        ]
    )
    return application


@web.middleware
async def _refuse_names(request: web.Request, handler: _Handler) -> web.StreamResponse:
    host = request.url.host or ""
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            raise web.HTTPForbidden(text="the Host must be an IP address or localhost\n") from None
    return await handler(request)
