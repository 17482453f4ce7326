"""Each kind's shape: what is refused, where, and the nearest thing that is not."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from garrison.policies.diagnostics import Diagnostics
from garrison.policies.resources import KINDS, Placed, Resource, parse_resources

SERVICE: dict[str, Any] = {
    "apiVersion": "garrison.dev/v1",
    "kind": "Service",
    "metadata": {"name": "catalog", "namespace": "bookstore"},
    "spec": {
        "protocol": "http",
        "port": 80,
        "identities": ["bookstore/catalog"],
        "endpoints": [{"address": "127.0.20.11", "port": 15006}],
    },
}
VERSION: dict[str, Any] = {
    **SERVICE,
    "metadata": {"name": "catalog-v1", "namespace": "bookstore"},
    "spec": {"versionOf": "catalog", "labels": {"version": "v1"}},
}
ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "catalog", "namespace": "bookstore"},
    "spec": {
        "parentRefs": [{"group": "garrison.dev", "kind": "Service", "name": "catalog"}],
        "rules": [
            {
                "matches": [{"path": {"type": "Exact", "value": "/books"}}],
                "backendRefs": [{"name": "catalog"}],
                "timeouts": {"request": "5s"},
            }
        ],
    },
}
POLICY: dict[str, Any] = {
    "apiVersion": "garrison.dev/v1",
    "kind": "TrafficPolicy",
    "metadata": {"name": "catalog", "namespace": "bookstore"},
    "spec": {"targetRefs": [{"group": "garrison.dev", "kind": "Service", "name": "catalog"}]},
}
ENTRY: dict[str, Any] = {
    "apiVersion": "garrison.dev/v1",
    "kind": "RegistrationEntry",
    "metadata": {"name": "web", "namespace": "bookstore"},
    "spec": {"identity": "bookstore/web", "selectors": ["local:sub:web"]},
}
MESH: dict[str, Any] = {
    "apiVersion": "garrison.dev/v1",
    "kind": "Mesh",
    "metadata": {"name": "bookstore"},
    "spec": {"trustDomain": "bookstore.example"},
}
ALL = [MESH, SERVICE, VERSION, ROUTE, POLICY, ENTRY]
REMOVED = object()
RULE = "spec.rules[0]"


def parse(text: str) -> tuple[list[Placed[Resource]], Diagnostics]:
    diagnostics = Diagnostics()
    return parse_resources("file.yaml", text, diagnostics), diagnostics


def changed(value: Any, path: list[str | int], new: object) -> Any:  # noqa: ANN401 -- YAML
    if not path:
        return new
    head, *rest = path
    if isinstance(value, list):
        return [changed(v, rest, new) if i == head else v for i, v in enumerate(value)]
    inner = changed(value.get(head, {}), rest, new)
    others = {key: each for key, each in value.items() if key != head}
    return others if inner is REMOVED else {**others, head: inner}


@pytest.mark.parametrize("resource", ALL, ids=lambda each: each["metadata"]["name"])
def test_each_kind_is_read(resource: dict[str, Any]) -> None:
    resources, diagnostics = parse(yaml.safe_dump(resource))
    assert list(diagnostics) == []
    assert [type(each.value) for each in resources] == [KINDS[resource["kind"]]]


@pytest.mark.parametrize(
    ("resource", "path", "new", "code", "field"),
    [
        (MESH, ["spec", "trustDomain"], "Bookstore", "resource/field", "spec.trustDomain"),
        (MESH, ["spec", "trustDomian"], "x", "resource/unknown-field", "spec.trustDomian"),
        (MESH, ["metadata", "namespace"], "x", "resource/unknown-field", "metadata.namespace"),
        (SERVICE, ["apiVersion"], "v1", "resource/field", "apiVersion"),
        (SERVICE, ["kind"], "Deployment", "resource/kind", "kind"),
        (SERVICE, ["kind"], REMOVED, "resource/kind", "kind"),
        (SERVICE, ["metadata", "name"], "Catalog", "resource/field", "metadata.name"),
        (
            SERVICE,
            ["metadata", "namespace"],
            REMOVED,
            "resource/missing-field",
            "metadata.namespace",
        ),
        (
            SERVICE,
            ["metadata", "annotations"],
            {"garrison.dev/idempotent": "true"},
            "resource/unknown-annotation",
            "metadata.annotations.garrison.dev/idempotent",
        ),
        (SERVICE, ["spec", "protocol"], REMOVED, "resource/field", "spec"),
        (SERVICE, ["spec", "protocol"], "https", "resource/field", "spec.protocol"),
        (SERVICE, ["spec", "port"], "80", "resource/field", "spec.port"),
        (SERVICE, ["spec", "port"], 65536, "resource/field", "spec.port"),
        (SERVICE, ["spec", "identities"], [], "resource/field", "spec"),
        (SERVICE, ["spec", "identities", 0], "catalog", "resource/field", "spec.identities[0]"),
        (SERVICE, ["spec", "endpoints"], [], "resource/field", "spec"),
        (SERVICE, ["spec", "labels"], {"a": "b"}, "resource/field", "spec"),
        (SERVICE, ["spec", "selector"], {"a": "b"}, "resource/unknown-field", "spec.selector"),
        (
            SERVICE,
            ["spec", "endpoints", 0, "address"],
            "catalog.example",
            "resource/field",
            "spec.endpoints[0].address",
        ),
        (
            SERVICE,
            ["spec", "endpoints", 0, "address"],
            "0.0.0.0",
            "resource/field",
            "spec.endpoints[0].address",
        ),
        (VERSION, ["spec", "port"], 80, "resource/field", "spec"),
        (VERSION, ["spec", "clientPort"], 80, "resource/field", "spec"),
        (VERSION, ["spec", "labels"], REMOVED, "resource/field", "spec"),
        (ROUTE, ["spec", "hostnames"], ["a"], "resource/unknown-field", "spec.hostnames"),
        (ROUTE, ["spec", "rules", 0, "filters"], [], "resource/unknown-field", RULE + ".filters"),
        (
            ROUTE,
            ["spec", "parentRefs", 0, "kind"],
            "Gateway",
            "resource/field",
            "spec.parentRefs[0].kind",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "timeouts", "request"],
            "5",
            "resource/field",
            RULE + ".timeouts.request",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "timeouts", "backendRequest"],
            "6s",
            "resource/field",
            RULE + ".timeouts",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "matches", 0, "path", "value"],
            "/a/../b",
            "resource/field",
            RULE + ".matches[0].path",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "matches", 0, "path"],
            {"type": "RegularExpression", "value": "(a"},
            "resource/field",
            RULE + ".matches[0].path",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "matches", 0, "method"],
            "get",
            "resource/field",
            RULE + ".matches[0].method",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "matches", 0, "headers"],
            [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
            "resource/field",
            RULE + ".matches[0]",
        ),
        (
            ROUTE,
            ["spec", "rules", 0, "matches", 0, "headers"],
            [{"name": "x_a", "value": "1"}],
            "resource/field",
            RULE + ".matches[0].headers[0].name",
        ),
        (
            POLICY,
            ["spec", "loadBalancing", "algorithm"],
            "LeastRequest",
            "resource/field",
            "spec.loadBalancing.algorithm",
        ),
        (
            POLICY,
            ["spec", "outlierDetection", "successRate"],
            5,
            "resource/unknown-field",
            "spec.outlierDetection.successRate",
        ),
        (
            POLICY,
            ["spec", "outlierDetection", "maxEjectionTime"],
            "1s",
            "resource/field",
            "spec.outlierDetection",
        ),
        (POLICY, ["spec", "connectTimeout"], "0s", "resource/field", "spec.connectTimeout"),
        (ENTRY, ["spec", "selectors"], [], "resource/field", "spec.selectors"),
        (ENTRY, ["spec", "selectors", 0], "web", "resource/field", "spec.selectors[0]"),
        (ENTRY, ["spec", "ttl"], "0s", "resource/field", "spec.ttl"),
    ],
)
def test_what_is_refused(
    resource: dict[str, Any], path: list[str | int], new: object, code: str, field: str
) -> None:
    resources, diagnostics = parse(yaml.safe_dump(changed(resource, path, new)))
    assert resources == []
    assert [(each.code, each.place.field) for each in diagnostics] == [(code, field)]
    assert all(each.place.line and each.remedy for each in diagnostics)


def test_all_findings_of_a_file_are_collected() -> None:
    service = changed(changed(SERVICE, ["spec", "port"], 0), ["spec", "protocol"], "smtp")
    texts = [yaml.safe_dump(each) for each in (service, MESH, {"kind": "Nothing"})]
    resources, diagnostics = parse("---\n".join(texts))
    assert len(resources) == 1
    assert len(list(diagnostics)) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(ALL), st.data())
def test_junk_in_any_place_is_a_finding_or_a_resource(
    resource: dict[str, Any], data: st.DataObject
) -> None:
    path: list[str | int] = []
    value: Any = resource
    while isinstance(value, dict | list) and value and (not path or data.draw(st.booleans())):
        steps: dict[Any, Any] = dict(enumerate(value)) if isinstance(value, list) else value
        path.append(data.draw(st.sampled_from(list(steps))))
        value = steps[path[-1]]
    resources, diagnostics = parse(json.dumps(changed(resource, path, data.draw(JSON))))
    assert bool(resources) != bool(diagnostics)
