"""Looks at a stage from outside: calls through sidecars, their metrics and logs, the status."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.settings_files import Places

POLL_SECONDS = 0.02
CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, whole; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The mesh's own code, or nothing where the application answered."""
        return self.headers.get("x-garrison-code", "")

    @property
    def request_id(self) -> str:
        """What the caller's and the callee's log have in common."""
        return self.headers.get("x-request-id", "")

    def json(self) -> Any:  # noqa: ANN401  # whatever the application said
        """Parse the body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Observer:
    """Everything that is seen of a stage."""

    client: aiohttp.ClientSession
    places: Places

    async def call(
        self,
        caller: Instance,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call as the application of `caller` does: through its sidecar's forward proxy."""
        return await self._request(method, url, headers, proxy=f"http://{caller.outbound}")

    async def look(self, url: str, method: str = "GET") -> Answer:
        """Ask an address directly."""
        return await self._request(method, url)

    async def status(self) -> Any:  # noqa: ANN401  # the policy server's JSON
        """Return the policy server's status."""
        return (await self._request("GET", f"http://{self.places.policy_admin}/status")).json()

    async def metric(self, instance: Instance, name: str, **labels: str) -> float:
        """Return the sum of a sidecar's samples of that name and those labels."""
        page = await self._request("GET", f"http://{instance.admin}/metrics")
        return sum(_samples(page.body.decode(), name, labels))

    def access_log(self, instance: Instance, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of a sidecar's access log that have these values."""
        log = self.places.output(f"{instance.name}.sidecar").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in log.splitlines() if line.endswith("}")]
        return [line for line in lines if fields.items() <= line.items()]

    async def becomes_ready(self, admin: str, seconds: float) -> bool:
        """Wait until `/ready` answers 200; claim that it did."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if (await self._request("GET", f"http://{admin}/ready")).status == HTTPStatus.OK:
                    return True
            except (aiohttp.ClientError, TimeoutError):
                pass  # not listening yet
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
    ) -> Answer:
        limit = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with self.client.request(
            method, url, headers=headers, proxy=proxy, timeout=limit
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, await response.read())


def _samples(page: str, name: str, labels: Mapping[str, str]) -> Iterator[float]:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value
