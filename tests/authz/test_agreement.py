"""Compiled rules and pycasbin agree on generated models, policies and requests: as Python reads
them, as garrison-proxy does and as a live Envoy does. One generator, three judges.

GARRISON_TEST_DECISIONS says how many decisions Python's reading makes; garrison-proxy makes a
quarter, Envoy a few thousand.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.authz import Request, Rules
from garrison.authz.evaluate import Attributes, Decision, RuleSet
from garrison.proxy.executable import find_executable
from tests.authz.agreement import DECISIONS, hold_against_casbin, rounds, rules_of
from tests.authz.generator import METHODS, TRUST_DOMAIN, Case
from tests.authz.live_envoy import running

BATCHES = 8
ENVOY_DECISIONS = min(DECISIONS // 40, 20_000)
HERE = "127.0.0.1"


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def python(rules: Mapping[str, Rules], requests: Sequence[Request]) -> list[Decision]:
    """Decide by the reference, which reads the published messages."""
    read = {service: RuleSet.of(each.deny, each.allow) for service, each in rules.items()}
    return [read[each.dst].decide(Attributes.of(each, TRUST_DOMAIN)) for each in requests]


class Proxy:
    """Decides by `garrison-proxy decide`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, rules: Mapping[str, Rules], requests: Sequence[Request]) -> list[Decision]:
        """Set the rules of each service in turn, and ask for its requests."""
        decisions: dict[int, Decision] = {}
        for service, each in rules.items():
            mine = [(at, request) for at, request in enumerate(requests) if request.dst == service]
            self._write({"deny": _encoded(each.deny), "allow": _encoded(each.allow)})
            for _, request in mine:
                self._write(_question(request))
            assert self._process.stdin is not None
            self._process.stdin.flush()
            for at, _ in mine:
                decisions[at] = self._read()
        return [decisions[at] for at in range(len(requests))]

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")

    def _read(self) -> Decision:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        return Decision(answer["allowed"], answer["rule"])


def _encoded(rules: object) -> str:
    return base64.b64encode(rules.SerializeToString()).decode()  # type: ignore[attr-defined] # RBAC


def _question(request: Request) -> dict[str, object]:
    attributes = Attributes.of(request, TRUST_DOMAIN)
    return {
        "principal": attributes.uri,
        "method": request.method,
        "path": request.path,
        "query": None,
        "host": "service.test",
        "headers": list(request.headers.items()),
    }


@contextmanager
def proxy() -> Iterator[Proxy]:
    """Start garrison-proxy as a judge."""
    with subprocess.Popen(
        [str(find_executable()), "decide"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Proxy(process)


def without_addresses(case: Case) -> bool:
    """Leave out models that ask for IP addresses, which garrison-proxy does not."""
    return "ipMatch" not in case.sources.model.text


@pytest.mark.parametrize("batch", range(BATCHES))
def test_python_agrees_with_casbin(batch: int) -> None:
    for each in rounds(1000 + batch, DECISIONS // BATCHES):
        hold_against_casbin(python, each)


@pytest.mark.parametrize("batch", range(2))
def test_garrison_proxy_agrees_with_casbin(batch: int) -> None:
    with proxy() as judge:
        for each in rounds(2000 + batch, DECISIONS // 8, without_addresses):
            hold_against_casbin(judge, each)


def as_envoy_gets_it(request: Request) -> Request:
    """Change what cannot be sent: methods that Envoy refuses, addresses that are not ours."""
    return replace(request, method=request.method if request.method in METHODS else "GET", ip=HERE)


def test_envoy_agrees_with_casbin(envoy_executable: Path, tmp_path: Path, unused_port: int) -> None:
    made = list(rounds(3000, ENVOY_DECISIONS, adapt=as_envoy_gets_it))
    policies = [rules_of(each) for each in made]
    with running(envoy_executable, tmp_path, policies, unused_port) as envoy:
        for index, each in enumerate(made):

            def judge(
                _rules: Mapping[str, Rules], requests: Sequence[Request], policy: int = index
            ) -> list[Decision]:
                return envoy.decide(policy, requests)

            hold_against_casbin(judge, each, names_rules=False)
