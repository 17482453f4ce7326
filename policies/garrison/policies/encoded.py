"""Resources of a mesh, each encoded when it is first needed and then shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.struct_pb2 import Struct

from garrison.policies.compile import authorization, clusters, endpoints, listeners, routes
from garrison.policies.compile.wire import packed
from garrison.xds import wire
from garrison.xds.resource import Resource, type_url_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from garrison.authz import Compiled
    from garrison.policies.mesh import Mesh, Service
    from garrison.policies.resources.fields import Name

MARKER = "garrison.commit"
_ROUTES_NAME = RouteConfiguration.DESCRIPTOR.fields_by_name["name"].number
_ROUTES_HOSTS = RouteConfiguration.DESCRIPTOR.fields_by_name["virtual_hosts"].number


class EncodedResources:
    """What is a service's own is kept; what follows a node's addresses is cheap and made anew."""

    def __init__(self, mesh: Mesh, rules: Compiled) -> None:
        """Encode nothing yet."""
        self._mesh = mesh
        self._rules = rules
        self._kept: dict[tuple[str, object], Resource] = {}
        self._hosts: dict[tuple[Name, bool], bytes] = {}

    def cluster(self, name: Name) -> Resource:
        """Return the cluster of a service or version."""
        service = self._mesh.services[name]
        return self._keep(
            ("cluster", name),
            str(name),
            lambda: clusters.of_service(service, self._mesh.trust_domain),
        )

    def endpoints(self, name: Name) -> Resource:
        """Return the endpoints of a service or version."""
        service = self._mesh.services[name]
        return self._keep(("endpoints", name), str(name), lambda: endpoints.assignment(service))

    def rules(self, service: Service) -> tuple[Resource, Resource]:
        """Return the deny and the allow rules of a destination."""
        deny, allow = authorization.deny_name(service.name), authorization.allow_name(service.name)
        compiled = self._rules.rules(str(service.name))
        return (
            self._keep(("rules", deny), deny, lambda: authorization.rules(deny, compiled.deny)),
            self._keep(("rules", allow), allow, lambda: authorization.rules(allow, compiled.allow)),
        )

    def routes_of_service(self, name: Name) -> Resource:
        """Return the routes of a listener for one service."""
        return self._keep(
            ("routes", name),
            routes.service_listener(name),
            lambda: routes.of_service(self._mesh, name),
        )

    def routes_of_caller(self, namespace: str | None, hosts: tuple[Name, ...]) -> Resource:
        """Return the forward proxy's routes, joined from virtual hosts that are encoded once."""
        name = listeners.OUTBOUND
        joined = b"".join(self._host(host, own=host.namespace == namespace) for host in hosts)
        value = wire.field(_ROUTES_NAME, name.encode()) + joined
        return Resource.encoded(name, type_url_of(RouteConfiguration), value)

    def _host(self, name: Name, *, own: bool) -> bytes:
        key = (name, own)
        if key not in self._hosts:
            host = routes.virtual_host(self._mesh, name, in_namespace=own)
            self._hosts[key] = wire.field(_ROUTES_HOSTS, host.SerializeToString(deterministic=True))
        return self._hosts[key]

    def _keep(self, key: tuple[str, object], name: str, make: Callable[[], Message]) -> Resource:
        if key not in self._kept:
            self._kept[key] = Resource.of(name, make())
        return self._kept[key]


def commit_marker(commit: str) -> Resource:
    """Return the resource by which garrison-proxy knows that it has the whole commit."""
    content = Struct()
    content.update({"commit": commit})
    return Resource.of(MARKER, TypedExtensionConfig(name=MARKER, typed_config=packed(content)))
