"""Checks across resources: each finding beside the nearest repository that has none."""

import pytest

from garrison.policies.catalogue import Catalogue, catalogue_of
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.mesh import Mesh, resolve
from garrison.policies.resources import parse_resources
from garrison.policies.resources.fields import Name
from garrison.policies.validation import validate
from tests.policies.bookstore import example_texts


def judged(changes: dict[str, str | None]) -> tuple[Catalogue, Diagnostics]:
    """Check the example after replacements; `file+` adds to a file."""
    texts: dict[str, str | None] = dict(example_texts())
    for path, text in changes.items():
        old = texts.get(path.removesuffix("+"))
        texts[path.removesuffix("+")] = f"{old or ''}\n---\n{text}" if path[-1] == "+" else text
    diagnostics = Diagnostics()
    resources = [
        resource
        for path, text in sorted(texts.items())
        if text is not None and path.endswith(".yaml")
        for resource in parse_resources(path, text, diagnostics)
    ]
    assert list(diagnostics) == []
    catalogue = catalogue_of(resources, diagnostics)
    validate(catalogue, diagnostics)
    return catalogue, diagnostics


def mesh_of(changes: dict[str, str | None]) -> Mesh:
    catalogue, diagnostics = judged(changes)
    assert list(diagnostics) == []
    return resolve(catalogue)


def example(path: str, old: str, new: str) -> dict[str, str | None]:
    text = example_texts()[path]
    assert old in text
    return {path: text.replace(old, new)}


def service(name: str, spec: str) -> str:
    return (
        "apiVersion: garrison.dev/v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: bookstore}}\nspec: {{{spec}}}\n"
    )


def own_service(name: str, protocol: str = "http", extra: str = "") -> str:
    number = sum(name.encode()) % 200
    return service(
        name,
        f"protocol: {protocol}, port: 80, identities: [bookstore/{name}], "
        f"endpoints: [{{address: 127.0.21.{number}, port: 15006}}]{extra}",
    ) + "---\n" + entry(name)  # fmt: skip


def entry(name: str, selector: str | None = None) -> str:
    return (
        "apiVersion: garrison.dev/v1\nkind: RegistrationEntry\n"
        f"metadata: {{name: {name}, namespace: bookstore}}\n"
        f"spec: {{identity: bookstore/{name}, selectors: ['{selector or f'local:sub:{name}'}']}}\n"
    )


def route(name: str, rules: str, parent: str = "orders", annotations: str = "") -> str:
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        f"metadata: {{name: {name}, namespace: bookstore, annotations: {{{annotations}}}}}\n"
        f"spec:\n  parentRefs: [{{group: garrison.dev, kind: Service, name: {parent}}}]\n"
        f"  rules: [{rules}]\n"
    )


def policy(name: str, target: str) -> str:
    return (
        "apiVersion: garrison.dev/v1\nkind: TrafficPolicy\n"
        f"metadata: {{name: {name}, namespace: bookstore}}\n"
        f"spec: {{targetRefs: [{{group: garrison.dev, kind: Service, name: {target}}}]}}\n"
    )


TO_ORDERS = "backendRefs: [{name: orders}]"
GOOD: list[dict[str, str | None]] = [
    {},
    {"x.yaml": own_service("extra")},
    {"x.yaml": own_service("extra", extra=", clientPort: 9102")},
    {"x.yaml": own_service("extra", "tcp")},
    {"x.yaml": service("catalog-v3", "versionOf: catalog, labels: {version: v2}")},
    {"x.yaml": entry("extra")},
    {"x.yaml": policy("orders", "orders")},
    {"x.yaml": policy("canary", "catalog-v2")},
    {"x.yaml": route("r", f"{{{TO_ORDERS}}}")},
    {"x.yaml": route("r", "{backendRefs: [{name: orders, port: 80}]}")},
    {"x.yaml": route("r", "{backendRefs: [{name: orders, weight: 0}, {name: ratings}]}")},
    {
        "x.yaml": route("r", f"{{name: a, {TO_ORDERS}, matches: [{{method: GET}}]}}"),
        "y.yaml": route("s", f"{{name: a, {TO_ORDERS}, matches: [{{method: POST}}]}}"),
    },
    {
        "x.yaml": route(
            "r",
            f"{{name: a, {TO_ORDERS}, retry: {{codes: [503]}}}}",
            annotations="garrison.dev/idempotent: a",
        )
    },
    {"x.yaml": route("r", f"{{name: a, {TO_ORDERS}, retry: {{attempts: 3}}}}")},
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_is_right_has_no_findings(changes: dict[str, str | None]) -> None:
    assert list(judged(changes)[1]) == []


BAD: list[tuple[dict[str, str | None], str, str, str]] = [
    ({"mesh.yaml": None}, "mesh/missing", "mesh.yaml", ""),
    ({"mesh.yaml+": example_texts()["mesh.yaml"]}, "mesh/duplicate", "mesh.yaml:13", "mesh.yaml:3"),
    (
        {"x.yaml": example_texts()["services/web.yaml"]},
        "resource/duplicate",
        "x.yaml:5",
        "services/web.yaml:5",
    ),
    (
        {"x.yaml": own_service("extra").split("---")[0]},
        "service/unregistered-identity",
        "x.yaml:4",
        "bookstore/extra",
    ),
    (
        example("services/web.yaml", "[bookstore/web]", "[bookstore/orders]"),
        "service/shared-identity",
        "services/web.yaml:10",
        "services/orders.yaml:10",
    ),
    (
        example("services/web.yaml", "127.0.20.1,", "127.0.20.31,"),
        "service/shared-endpoint",
        "services/web.yaml:13",
        "services/ratings.yaml:12",
    ),
    (
        {"x.yaml": own_service("extra", extra=", clientPort: 9101")},
        "service/shared-client-port",
        "x.yaml:4",
        "services/catalog.yaml:12",
    ),
    (
        {"x.yaml": own_service("extra", extra=", clientPort: 15001")},
        "service/reserved-port",
        "x.yaml:4",
        "15000",
    ),
    (
        {"x.yaml": service("catalog-v3", "versionOf: catalogue, labels: {version: v2}")},
        "service/unknown-parent",
        "x.yaml:4",
        "bookstore/catalogue",
    ),
    (
        {"x.yaml": service("catalog-v3", "versionOf: catalog-v2, labels: {version: v2}")},
        "service/unknown-parent",
        "x.yaml:4",
        "bookstore/catalog-v2",
    ),
    (
        {"x.yaml": service("catalog-v3", "versionOf: catalog, labels: {version: v3}")},
        "service/empty-version",
        "x.yaml:4",
        "services/catalog.yaml:13",
    ),
    (
        {"x.yaml": entry("extra", "local:sub:system:serviceaccount:bookstore:web")},
        "registration/ambiguous",
        "x.yaml:4",
        "registration/bookstore.yaml:10",
    ),
    (
        {"x.yaml": entry("ca").replace("bookstore/ca", "garrison/ca")},
        "registration/refused",
        "x.yaml:4",
        "the CA's own identity",
    ),
    ({"x.yaml": policy("p", "order")}, "traffic/unknown-service", "x.yaml:4", "bookstore/order"),
    (
        {"x.yaml": policy("p", "catalog")},
        "traffic/conflict",
        "x.yaml:4",
        "traffic/catalog.yaml:10",
    ),
    (
        {"x.yaml": own_service("extra", "tcp"), "y.yaml": policy("p", "extra")},
        "traffic/opaque-service",
        "y.yaml:4",
        "bookstore/extra",
    ),
    (
        {"x.yaml": route("r", f"{{{TO_ORDERS}}}", parent="order")},
        "route/unknown-service",
        "x.yaml:5",
        "bookstore/order",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: order}]}")},
        "route/unknown-service",
        "x.yaml:6",
        "bookstore/order",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: catalog-v2}]}", parent="catalog-v1")},
        "route/version-parent",
        "x.yaml:5",
        "is a version",
    ),
    (
        {
            "x.yaml": own_service("extra", "tcp"),
            "y.yaml": route("r", f"{{{TO_ORDERS}}}", parent="extra"),
        },
        "route/opaque-service",
        "y.yaml:5",
        "x.yaml:4",
    ),
    (
        {
            "x.yaml": own_service("extra", "tcp"),
            "y.yaml": route("r", "{backendRefs: [{name: extra}]}"),
        },
        "route/opaque-service",
        "y.yaml:6",
        "x.yaml:4",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: orders, namespace: shop}]}")},
        "route/namespace",
        "x.yaml:6",
        "another namespace",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: orders, port: 81}]}")},
        "route/port",
        "x.yaml:6",
        "is 80",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: orders, weight: 0}]}")},
        "route/no-weight",
        "x.yaml:6",
        "weights are 0",
    ),
    (
        {"x.yaml": route("r", "{backendRefs: [{name: orders}, {name: orders}]}")},
        "route/duplicate-backend",
        "x.yaml:6",
        "already",
    ),
    (
        {
            "x.yaml": route("r", f"{{{TO_ORDERS}, matches: [{{path: {{value: /a}}}}]}}"),
            "y.yaml": route("s", f"{{{TO_ORDERS}, matches: [{{path: {{value: /a/}}}}]}}"),
        },
        "route/conflict",
        "y.yaml:6",
        "x.yaml:6",
    ),
    (
        {"x.yaml": route("r", f"{{name: a, {TO_ORDERS}, retry: {{codes: [503]}}}}")},
        "route/retry-not-idempotent",
        "x.yaml:6",
        "twice",
    ),
    (
        {
            "x.yaml": route(
                "r", f"{{name: a, {TO_ORDERS}}}", annotations="garrison.dev/idempotent: b"
            )
        },
        "route/idempotent",
        "x.yaml:3",
        "'b'",
    ),
    (
        {"x.yaml": route("r", f"{{name: '1', {TO_ORDERS}}}")},
        "route/rule-name",
        "x.yaml:6",
        "digits",
    ),
]


@pytest.mark.parametrize(("changes", "code", "place", "says"), BAD, ids=[case[1] for case in BAD])
def test_what_is_wrong_is_found_with_both_places(
    changes: dict[str, str | None], code: str, place: str, says: str
) -> None:
    found = list(judged(changes)[1])
    assert [(each.code, str(each.place)) for each in found] == [(code, place)]
    assert says in found[0].reason


def test_the_mesh_is_resolved() -> None:
    mesh = mesh_of({})
    version = mesh.services[Name("bookstore", "catalog-v1")]
    assert [endpoint.address for endpoint in version.endpoints] == ["127.0.20.11", "127.0.20.12"]
    assert version.parent == Name("bookstore", "catalog")
    assert version.traffic.outlier_detection.consecutive_errors == 3
    assert (
        mesh.services[Name("bookstore", "orders")].traffic.outlier_detection.consecutive_errors == 5
    )
    assert mesh.destinations(Name("bookstore", "catalog")) == {Name("bookstore", "catalog")}


def test_a_version_may_have_a_policy_of_its_own() -> None:
    mesh = mesh_of({"x.yaml": policy("canary", "catalog-v2")})
    version = mesh.services[Name("bookstore", "catalog-v2")]
    assert version.traffic.outlier_detection.consecutive_errors == 5


def test_a_route_may_lead_to_another_service() -> None:
    mesh = mesh_of({"x.yaml": route("r", "{backendRefs: [{name: ratings}]}")})
    assert mesh.destinations(Name("bookstore", "orders")) == {Name("bookstore", "ratings")}
