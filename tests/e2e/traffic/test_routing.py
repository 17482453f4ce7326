"""HTTPRoutes in git decide which version answers, in the order of precedence of Gateway API.

Gateway API v1, HTTPRouteRule.matches. In each place below the rule that must lose is written first.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from tests.e2e.traffic.lab import Lab, route, to


def path(kind: str, value: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- as YAML takes it
    return {"path": {"type": kind, "value": value}, **more}


def prefix(value: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return path("PathPrefix", value, **more)


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"name": f"x-{name}", "value": value} for name, value in values.items()]


def expression(name: str, value: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "RegularExpression", "value": value}]


# Where two rules match, `echo-a` is the less specific one.
RULES = (
    to("echo-a", matches=[prefix("/exact"), path("RegularExpression", "/exact/[a-z]+")]),
    to("echo-b", matches=[path("Exact", "/exact"), path("Exact", "/exact/one")]),
    to("echo-a", matches=[prefix("/regex/longer/than/it")]),
    to("echo-b", matches=[path("RegularExpression", "/regex/.+/it")]),
    to("echo-a", matches=[prefix("/long")]),
    to("echo-b", matches=[prefix("/long/er")]),
    to("echo-a", matches=[prefix("/path", method="GET", headers=pairs(one="1"))]),
    to("echo-b", matches=[prefix("/path/further")]),
    to("echo-a", matches=[prefix("/method", headers=pairs(one="1", two="2"))]),
    to("echo-b", matches=[prefix("/method", method="POST")]),
    to("echo-a", matches=[prefix("/headers", headers=pairs(one="1"))]),
    to("echo-b", matches=[prefix("/headers", headers=pairs(one="1", two="2"))]),
    to("echo-a", matches=[prefix("/query", queryParams=pairs(one="1", two="2"))]),
    to("echo-b", matches=[prefix("/query", headers=pairs(one="1"))]),
    to("echo-a", matches=[prefix("/params", queryParams=pairs(one="1"))]),
    to("echo-b", matches=[prefix("/params", queryParams=pairs(one="1", two="2"))]),
    to("echo-c", matches=[prefix("/value", headers=expression("x-value", "[0-9]+"))]),
    to("echo-c", matches=[prefix("/param", queryParams=expression("v", "[0-9]+"))]),
)
ONE, TWO = {"x-one": "1"}, {"x-one": "1", "x-two": "2"}
ANSWERS: tuple[tuple[str, str, dict[str, str], str | None], ...] = (
    ("GET", "/exact", {}, "b"),
    ("GET", "/exact/", {}, "a"),
    ("GET", "/exact/one", {}, "b"),
    ("GET", "/exact/two", {}, "a"),
    ("GET", "/exact/2", {}, "a"),
    ("GET", "/exactly", {}, None),
    ("GET", "/regex/longer/than/it", {}, "b"),
    ("GET", "/regex/longer/than/it/is", {}, "a"),
    ("GET", "/long", {}, "a"),
    ("GET", "/long/er", {}, "b"),
    ("GET", "/long/er/still", {}, "b"),
    ("GET", "/long/erst", {}, "a"),
    ("GET", "/longer", {}, None),
    ("GET", "/path/further", ONE, "b"),
    ("GET", "/path/near", ONE, "a"),
    ("POST", "/path/near", ONE, None),
    ("POST", "/method", TWO, "b"),
    ("PUT", "/method", TWO, "a"),
    ("PUT", "/method", {}, None),
    ("GET", "/headers", TWO, "b"),
    ("GET", "/headers", ONE, "a"),
    ("GET", "/headers", {"x-one": "2"}, None),
    ("GET", "/query?x-one=1&x-two=2", ONE, "b"),
    ("GET", "/query?x-one=1&x-two=2", {}, "a"),
    ("GET", "/params?x-two=2&x-one=1", {}, "b"),
    ("GET", "/params?x-one=1", {}, "a"),
    ("GET", "/params?x-one=1&x-one=3", {}, None),
    ("GET", "/value", {"X-Value": "17"}, "c"),
    ("GET", "/value", {"x-value": "17a"}, None),
    ("GET", "/param?v=17", {}, "c"),
    ("GET", "/param?v=a17", {}, None),
    ("GET", "/%65xact", {}, "b"),
    ("GET", "/long/../exact", {}, "b"),
)


@pytest.mark.parametrize(("method", "asked", "headers", "version"), ANSWERS)
def test_the_most_specific_rule_decides(
    lab: Lab, method: str, asked: str, headers: dict[str, str], version: str | None
) -> None:
    lab.enforce(route(*RULES))
    if version is not None:
        assert lab.version(asked, method, **headers) == version
        return
    answer = lab.get(asked, method, **headers)
    assert (answer.status, answer.headers["x-garrison-code"]) == (404, "outbound/no-route")


def test_weights_are_shares(lab: Lab) -> None:
    weights = {"a": 70, "b": 30, "c": 0}
    backends = [{"name": f"echo-{name}", "weight": share} for name, share in weights.items()]
    lab.enforce(route({"backendRefs": backends}))
    calls = 300
    answered = lab.versions(calls)
    deviation = sqrt(calls * 0.7 * 0.3)
    assert abs(answered["a"] - 0.7 * calls) < 6 * deviation, answered
    assert answered["c"] == 0


def test_a_commit_moves_all_of_it(lab: Lab) -> None:
    for version in "ab":
        lab.enforce(route(to(f"echo-{version}")))
        assert lab.versions(10) == {version: 10}
