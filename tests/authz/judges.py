"""Two of the three judges of compiled rules; the third, a live Envoy, is `live_envoy`."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from envoy.config.rbac.v3.rbac_pb2 import RBAC

from garrison.authz import Request, Rules
from garrison.authz.evaluate import Attributes, Decision, RuleSet
from garrison.proxy.executable import find_executable
from tests.authz.agreement import Round
from tests.authz.generator import TRUST_DOMAIN


def python(made: Sequence[Round]) -> Iterator[list[Decision]]:
    """Decide by the reference, which reads the published messages."""
    for each in made:
        read = {name: RuleSet.of(rules.deny, rules.allow) for name, rules in each.rules.items()}
        yield [
            read[request.dst].decide(Attributes.of(request, TRUST_DOMAIN))
            for request in each.requests
        ]


class Proxy:
    """Decides by `garrison-proxy decide`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, made: Sequence[Round]) -> Iterator[Sequence[Decision | None]]:
        """Decide whatever garrison-proxy can be asked."""
        for each in made:
            if each.asks_addresses:
                yield [None] * len(each.requests)
            else:
                yield self._round(each)

    def ask(self, rules: Rules, requests: Iterable[Request]) -> list[Decision]:
        """Set the rules of a service, and ask for requests."""
        questions = [_question(request) for request in requests]
        filters = {"deny": _encoded(rules.deny), "allow": _encoded(rules.allow)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            "".join(json.dumps(line) + "\n" for line in (filters, *questions))
        )
        self._process.stdin.flush()
        answers = [json.loads(self._process.stdout.readline()) for _ in questions]
        return [Decision(answer["allowed"], answer["rule"]) for answer in answers]

    def _round(self, each: Round) -> list[Decision]:
        decisions: dict[int, Decision] = {}
        for service, rules in each.rules.items():
            mine = [at for at, request in enumerate(each.requests) if request.dst == service]
            answers = self.ask(rules, (each.requests[at] for at in mine))
            decisions.update(zip(mine, answers, strict=True))
        return [decisions[at] for at in range(len(each.requests))]


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


def _encoded(rules: RBAC) -> str:
    return base64.b64encode(rules.SerializeToString()).decode()


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
