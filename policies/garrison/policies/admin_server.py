"""What the policy server tells operators: its status and metrics, and that it is to look now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from garrison.identity import admin_port
from garrison.policies import metrics
from garrison.policies.publication import OutcomeKind

_STATUS_OF: Mapping[OutcomeKind, HTTPStatus] = {
    "published": HTTPStatus.OK,
    "unchanged": HTTPStatus.OK,
    "refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}


class Told(metrics.Measured, Protocol):
    """What the admin port tells of."""

    def status(self) -> Mapping[str, object]:
        """Return the form of `/status`."""

    async def refresh(self) -> OutcomeKind:
        """Look at the repository now."""


def serving(told: Told, address: str) -> AbstractAsyncContextManager[int]:
    """Serve while the block runs; raises `PortUnavailableError` if the port cannot be had."""

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

    return admin_port.serving(
        address,
        [
            *admin_port.health_routes(told.lacking),
            web.get("/status", status),
            web.get("/metrics", exposition),
            web.post("/refresh", refresh),
        ],
    )
