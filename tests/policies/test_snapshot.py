"""What each client gets of a commit: all that it needs, nothing of what it may not call."""

from collections.abc import Iterator

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (  # noqa: E501
    HttpConnectionManager,
)
from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.identity.spiffe_id import parse_spiffe_id
from garrison.policies.acceptance import BINDING, identities_of
from garrison.policies.binding import Address, Binding
from garrison.policies.commit_files import CommitFiles
from garrison.policies.compilation import compile_commit
from garrison.policies.encoded import MARKER
from garrison.policies.errors import BindingRejectedError
from garrison.policies.snapshot import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    TYPES,
    Snapshot,
)
from garrison.xds.resource import View
from tests.policies.bookstore import COMMIT, example_with
from tests.policies.test_validation import example, route

BOOKSTORE = compile_commit(example_with({}))


def view(who: str, binding: Binding = BINDING, snapshot: Snapshot = BOOKSTORE) -> View:
    identity = parse_spiffe_id(f"spiffe://bookstore.example/ns/{who.replace('/', '/sa/')}")
    return snapshot.view_for(identity, binding, "garrison-proxy")


def names(of: View) -> dict[str, list[str]]:
    return {url.rpartition(".")[2]: sorted(of.resources[url]) for url in TYPES}


def decoded(of: View, url: str) -> Iterator[Any]:
    for resource in of.resources[url].values():
        yield Any.FromString(resource.body)


def test_a_service_has_its_door_and_what_it_may_call() -> None:
    assert names(view("bookstore/orders")) == {
        "Cluster": [
            "application",
            "bookstore/catalog-v1",
            "bookstore/catalog-v2",
            "bookstore/payments",
        ],
        "ClusterLoadAssignment": [
            "bookstore/catalog-v1",
            "bookstore/catalog-v2",
            "bookstore/payments",
        ],
        "Listener": ["inbound", "outbound", "outbound/bookstore/catalog"],
        "RouteConfiguration": ["outbound", "outbound/bookstore/catalog"],
        "TypedExtensionConfig": [
            "authz/bookstore/orders/allow",
            "authz/bookstore/orders/deny",
            MARKER,
        ],
    }


def test_who_may_call_nothing_learns_of_nothing() -> None:
    found = names(view("bookstore/payments"))
    assert found["Cluster"] == ["application"]
    assert found["ClusterLoadAssignment"] == []
    assert "bookstore/catalog" not in str(
        view("bookstore/payments").resources[ROUTES]["outbound"].body
    )


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://bookstore.example/ns/garrison/sa/policy-server",
        "spiffe://bookstore.example/ns/bookstore/sa/unknown",
        "spiffe://bookstore.example/else",
        "spiffe://other.example/ns/bookstore/sa/web",
    ],
)
def test_a_valid_svid_alone_gets_no_service(identity: str) -> None:
    found = names(BOOKSTORE.view_for(parse_spiffe_id(identity), BINDING, "garrison-proxy"))
    assert found["Cluster"] == found["ClusterLoadAssignment"] == []
    assert found["Listener"] == found["RouteConfiguration"] == ["outbound"]
    assert found["TypedExtensionConfig"] == [MARKER]


def test_who_only_calls_has_no_door() -> None:
    found = names(view("ops/admin"))
    assert "inbound" not in found["Listener"]
    assert "application" not in found["Cluster"]


def test_a_node_gets_only_the_listeners_that_it_makes() -> None:
    inbound_only = Binding(inbound=BINDING.inbound, application=BINDING.application)
    assert names(view("bookstore/orders", inbound_only))["Listener"] == ["inbound"]
    assert names(view("bookstore/orders", inbound_only))["Cluster"] == ["application"]
    without_application = Binding(inbound=BINDING.inbound)
    assert names(view("bookstore/orders", without_application))["Listener"] == []
    outbound_only = Binding(outbound=Address("127.0.0.7", 15001))
    of = view("bookstore/orders", outbound_only)
    listeners = {
        message.name: message.address.socket_address
        for packed in decoded(of, LISTENER)
        for message in [Listener.FromString(packed.value)]
    }
    assert {name: (each.address, each.port_value) for name, each in listeners.items()} == {
        "outbound": ("127.0.0.7", 15001),
        "outbound/bookstore/catalog": ("127.0.0.7", 9101),
    }


def test_envoy_gets_the_same_without_the_marker() -> None:
    identity = parse_spiffe_id("spiffe://bookstore.example/ns/bookstore/sa/orders")
    envoy = BOOKSTORE.view_for(identity, BINDING, "envoy")
    proxy = BOOKSTORE.view_for(identity, BINDING, "garrison-proxy")
    for url in TYPES:
        common = {name: each for name, each in proxy.resources[url].items() if name != MARKER}
        assert envoy.resources[url] == common
    assert MARKER not in envoy.resources[EXTENSION]


def test_the_marker_names_the_commit() -> None:
    marker = Any.FromString(view("bookstore/web").resources[EXTENSION][MARKER].body)
    config, content = TypedExtensionConfig(), Struct()
    assert marker.Unpack(config)
    assert config.typed_config.Unpack(content)
    assert dict(content) == {"commit": COMMIT}
    assert view("bookstore/web").label == COMMIT


def test_resources_are_encoded_once_and_shared() -> None:
    web, orders = view("bookstore/web"), view("bookstore/orders")
    name = "bookstore/catalog-v1"
    assert web.resources[CLUSTER][name] is orders.resources[CLUSTER][name]
    assert view("bookstore/web") is web


def test_what_a_commit_does_not_touch_keeps_its_version() -> None:
    files = example_with(example("services/ratings.yaml", "127.0.20.31", "127.0.20.32"))
    other = compile_commit(CommitFiles("f" * 40, files.texts))
    old, new = view("bookstore/web").resources, view("bookstore/web", snapshot=other).resources
    changed = {
        name
        for url in TYPES
        for name, resource in new[url].items()
        if old[url][name].version != resource.version
    }
    assert changed == {"bookstore/ratings", MARKER}
    assert old[CLUSTER]["bookstore/ratings"] == new[CLUSTER]["bookstore/ratings"]


def referenced(of: View) -> Iterator[tuple[str, str]]:
    """Go through everything that a view's resources name."""
    for packed in decoded(of, CLUSTER):
        cluster = Cluster.FromString(packed.value)
        if cluster.type == Cluster.EDS:
            yield ENDPOINTS, cluster.eds_cluster_config.service_name
    for packed in decoded(of, ROUTES):
        yield from clusters_of(RouteConfiguration.FromString(packed.value))
    for packed in decoded(of, LISTENER):
        manager = HttpConnectionManager()
        listener = Listener.FromString(packed.value)
        assert listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
        if manager.HasField("rds"):
            yield ROUTES, manager.rds.route_config_name
        yield from clusters_of(manager.route_config)
        filters = (each for each in manager.http_filters if each.HasField("config_discovery"))
        yield from ((EXTENSION, each.name) for each in filters)


def clusters_of(configuration: RouteConfiguration) -> Iterator[tuple[str, str]]:
    actions = [each.route for host in configuration.virtual_hosts for each in host.routes]
    yield from ((CLUSTER, action.cluster) for action in actions if action.cluster)
    weighted = (each for action in actions for each in action.weighted_clusters.clusters)
    yield from ((CLUSTER, each.name) for each in weighted)


def assert_whole(snapshot: Snapshot) -> None:
    for identity in identities_of(snapshot):
        of = snapshot.view_for(identity, BINDING, "garrison-proxy")
        for url, name in referenced(of):
            assert name in of.resources[url], (identity, url, name)


SERVICES = ["web", "catalog", "catalog-v1", "catalog-v2", "orders", "ratings", "payments"]


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["web", "orders", "ratings"]),
        st.dictionaries(st.sampled_from(SERVICES), st.integers(0, 9), min_size=1),
    )
)
def test_every_name_that_a_view_references_is_in_it(splits: dict[str, dict[str, int]]) -> None:
    texts: dict[str, str | None] = {}
    for parent, weights in splits.items():
        refs = ", ".join(f"{{name: {name}, weight: {w}}}" for name, w in weights.items())
        if any(weights.values()):
            text = route(parent, f"{{backendRefs: [{refs}]}}", parent=parent)
            texts[f"routes/{parent}.yaml"] = text
    assert_whole(compile_commit(example_with(texts)))


def test_a_host_is_known_where_its_routes_lead_and_not_by_its_name() -> None:
    """Web may call catalog, and payments not: so it may know what leads to catalog only."""
    rule = "{backendRefs: [{name: catalog-v1}]}"
    snapshot = compile_commit(
        example_with({"routes/payments.yaml": route("payments", rule, parent="payments")})
    )
    assert "bookstore/payments" in [str(name) for name in snapshot.scopes["bookstore/web"].hosts]
    assert "bookstore/payments" not in names(view("bookstore/web", snapshot=snapshot))["Cluster"]


@pytest.mark.parametrize(
    "value",
    ["", "127.0.0.1", "127.0.0.1:", ":80", "localhost:80", "127.0.0.1:0", "1.2.3.4:65536", 7, None],
)
def test_addresses_of_a_node_that_are_refused(value: object) -> None:
    with pytest.raises(BindingRejectedError, match="inbound"):
        Binding.of_metadata({"inbound": value})


def test_addresses_of_a_node() -> None:
    metadata = {"inbound": "127.0.0.1:1", "outbound": "[::1]:2", "other": 7}
    assert Binding.of_metadata(metadata) == Binding(
        inbound=Address("127.0.0.1", 1), outbound=Address("::1", 2)
    )
