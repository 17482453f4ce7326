"""A commit as the resources of each of its clients.

A snapshot is immutable and depends on nothing but the commit's files. What is a service's is
encoded once and shared by all views; a view is put together when a client first asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from spiffe import SpiffeId

from garrison.authz import Compiled, Coverage
from garrison.identity.spiffe_id import SpiffeIdRejectedError, Workload, namespace_and_account
from garrison.policies.binding import Address, Binding
from garrison.policies.compile import clusters, listeners, routes
from garrison.policies.encoded import EncodedResources, commit_marker
from garrison.policies.mesh import Mesh
from garrison.policies.scope import Scope, scopes_of
from garrison.xds.resource import Resource, View, type_url_of

ClientKind = Literal["garrison-proxy", "envoy"]

CLUSTER = type_url_of(Cluster)
ENDPOINTS = type_url_of(ClusterLoadAssignment)
LISTENER = type_url_of(Listener)
ROUTES = type_url_of(RouteConfiguration)
EXTENSION = type_url_of(TypedExtensionConfig)
TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, EXTENSION)  # in the order in which they are sent

MAX_VIEWS = 20_000  # kept for the next who asks; nodes choose their bindings, so there is a bound

_ViewKey = tuple[SpiffeId, Binding, ClientKind]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every client of one commit is to have."""

    commit: str
    mesh: Mesh
    authorization: Compiled
    scopes: dict[str, Scope]
    _encoded: EncodedResources
    checked: Coverage | None = None  # what Casbin was asked about its rules
    _views: OrderedDict[_ViewKey, View] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, commit: str, mesh: Mesh, authorization: Compiled) -> Snapshot:
        """Compile a mesh that was found to be right. Resources are encoded as they are needed."""
        scopes = dict(scopes_of(mesh, authorization))
        return cls(commit, mesh, authorization, scopes, EncodedResources(mesh, authorization))

    def view_for(self, spiffe_id: SpiffeId, binding: Binding, kind: ClientKind) -> View:
        """Return all that a client is to have: of its identity, where it listens, and no more.

        An identity that no file knows gets a view without services: a valid SVID is no permission.
        """
        key = (spiffe_id, binding, kind)
        view = self._views.pop(key, None) or self._view(*key)
        self._views[key] = view
        if len(self._views) > MAX_VIEWS:
            self._views.popitem(last=False)
        return view

    def _view(self, spiffe_id: SpiffeId, binding: Binding, kind: ClientKind) -> View:
        found: dict[str, list[Resource]] = {url: [] for url in TYPES}
        self._add_inbound(found, spiffe_id, binding)
        if binding.outbound:
            self._add_outbound(found, self._workload(spiffe_id), binding.outbound)
        if kind == "garrison-proxy":
            found[EXTENSION].append(commit_marker(self.commit))
        return View.of(self.commit, found)

    def _workload(self, spiffe_id: SpiffeId) -> Workload | None:
        if spiffe_id.trust_domain != self.mesh.trust_domain:
            return None
        try:
            return namespace_and_account(spiffe_id)
        except SpiffeIdRejectedError:
            return None

    def _add_inbound(
        self, found: dict[str, list[Resource]], spiffe_id: SpiffeId, binding: Binding
    ) -> None:
        name = self.mesh.served.get(spiffe_id)
        if name is None or binding.inbound is None or binding.application is None:
            return
        service = self.mesh.services[name]
        if not service.is_carried:
            return
        door = listeners.inbound(service, self.mesh.trust_domain, binding.inbound)
        application = clusters.of_application(service, binding.application)
        found[LISTENER].append(Resource.of(door.name, door))
        found[CLUSTER].append(Resource.of(application.name, application))
        found[EXTENSION].extend(self._encoded.rules(service))

    def _add_outbound(
        self, found: dict[str, list[Resource]], caller: Workload | None, address: Address
    ) -> None:
        scope = self.scopes.get(str(caller), Scope())
        namespace = caller.namespace if caller else None
        door = listeners.outbound(listeners.OUTBOUND, address)
        found[LISTENER].append(Resource.of(door.name, door))
        found[ROUTES].append(self._encoded.routes_of_caller(namespace, scope.hosts))
        for name in scope.clusters:
            found[CLUSTER].append(self._encoded.cluster(name))
            found[ENDPOINTS].append(self._encoded.endpoints(name))
        for name in scope.hosts:
            port = self.mesh.services[name].client_port
            if port is not None:
                door = listeners.outbound(
                    routes.service_listener(name), Address(address.host, port)
                )
                found[LISTENER].append(Resource.of(door.name, door))
                found[ROUTES].append(self._encoded.routes_of_service(name))
