"""A live Envoy as a judge: one virtual host for each policy and service, with their two filters.

Rules stand in the route (`RBACPerRoute`), so that one process holds hundreds of policies. Callers
are told apart by client certificates, whose one URI is their SPIFFE ID. Paths are normalized as
docs/seams.md has it for the sidecars of the mesh.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.rbac.v3.rbac_pb2 import RBAC
from google.protobuf.json_format import MessageToDict

from garrison.authz import Request, Rules
from garrison.authz.evaluate import Attributes, Decision
from tests.authz.agreement import UNNAMED, Round
from tests.authz.generator import TRUST_DOMAIN

HERE = "127.0.0.1"
CONNECTIONS = 4

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_HCM = (
    "type.googleapis.com/"
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


class Certificates:
    """A certificate authority in a directory, and a client's file for each SPIFFE ID."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])
        root = self._sign(self._key.public_key(), None)
        self.roots = directory / "roots.pem"
        self.roots.write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def issue(self, uri: str) -> Path:
        """Write a chain and its key into one file."""
        file = self.directory / (uri.replace("/", "_").replace(":", "") + ".pem")
        if not file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            pem = serialization.Encoding.PEM
            private = key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            file.write_bytes(self._sign(key.public_key(), uri).public_bytes(pem) + private)
        return file

    def context(self, uri: str | None) -> ssl.SSLContext:
        """Make, once, what a client with this SPIFFE ID connects by."""
        if uri not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(self.roots)
            if uri is not None:
                context.load_cert_chain(self.issue(uri))
            self._contexts[uri] = context
        return self._contexts[uri]

    def _sign(self, key: ec.EllipticCurvePublicKey, uri: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]) if uri else self._name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=uri is None, path_length=None), critical=True)
        )
        if uri:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self._key, hashes.SHA256())


class RbacEnvoy:
    """A running Envoy, which is a judge of the policies that it was started with.

    A caller has some connections, and a request on each of them before it reads: so both sides
    find much to do at a time. Envoy closes a connection on which more than two responses queue up.
    """

    def __init__(self, certificates: Certificates, port: int) -> None:
        self._certificates = certificates
        self._port = port

    def __call__(self, made: Sequence[Round]) -> list[list[Decision | None]]:
        """Send each request to the virtual host of its policy and service."""
        decisions: list[list[Decision | None]] = [[None] * len(each.requests) for each in made]
        asked: dict[tuple[str | None, str], list[tuple[int, int]]] = defaultdict(list)
        for policy, each in enumerate(made):
            for at, request in enumerate(each.requests):
                source = request.ip if each.asks_addresses else HERE
                if ip_address(source).is_loopback and ":" not in source:
                    uri = Attributes.of(request, TRUST_DOMAIN).uri
                    asked[uri, source].append((policy, at))
        for (uri, source), places in asked.items():
            heads = [_head(policy, made[policy].requests[at]) for policy, at in places]
            for (policy, at), status in zip(places, self.ask(uri, heads, source), strict=True):
                assert status in (200, 403), (made[policy].requests[at], status)
                decisions[policy][at] = Decision(status == 200, UNNAMED)
        return decisions

    def ask(self, uri: str | None, heads: Sequence[bytes], source: str = HERE) -> list[int]:
        """Send requests from one caller; return the status of each."""
        statuses: list[int] = []
        with ExitStack() as opened:
            connections = [
                opened.enter_context(self._connection(uri, source)) for _ in heads[:CONNECTIONS]
            ]
            for start in range(0, len(heads), CONNECTIONS):
                pairs = list(zip(connections, heads[start : start + CONNECTIONS], strict=False))
                for connection, request in pairs:
                    connection.sendall(request)
                statuses += [_status(connection) for connection, _ in pairs]
        return statuses

    def _connection(self, uri: str | None, source: str) -> ssl.SSLSocket:
        address, bound = (HERE, self._port), (source, 0)
        connection = socket.create_connection(address, timeout=60, source_address=bound)
        return self._certificates.context(uri).wrap_socket(connection)


def head(method: str, host: str, path: bytes, headers: Mapping[str, bytes]) -> bytes:
    """Write a request that has no body."""
    fields = {"host": host.encode(), **headers}
    lines = [f"{name}: ".encode() + value for name, value in fields.items()]
    return b"\r\n".join([method.encode() + b" " + path + b" HTTP/1.1", *lines, b"", b""])


def host_of(policy: int, service: str) -> str:
    """Name the virtual host of a policy and a service."""
    return f"{service.replace('/', '.')}.p{policy}.test"


def _head(policy: int, request: Request) -> bytes:
    headers = {name: value.encode() for name, value in request.headers.items()}
    return head(request.method, host_of(policy, request.dst), request.path.encode(), headers)


def _status(connection: ssl.SSLSocket) -> int:
    """Read one response, which Envoy sends whole."""
    found = _STATUS.match(connection.recv(1 << 14))
    assert found, "the connection was closed"
    return int(found[1])


@contextmanager
def running(
    executable: Path, certificates: Certificates, policies: Sequence[Mapping[str, Rules]]
) -> Iterator[RbacEnvoy]:
    """Run an Envoy that holds `policies`."""
    with socket.create_server((HERE, 0)) as server:
        port = int(server.getsockname()[1])
    config = certificates.directory / f"envoy-{port}.json"
    config.write_text(json.dumps(_bootstrap(certificates, port, policies)))
    log = config.with_suffix(".log")
    options = ["--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, "-c", config, *options], stdout=output, stderr=subprocess.STDOUT
        )
    envoy = RbacEnvoy(certificates, port)
    try:
        _wait(envoy, process, log)
        yield envoy
    finally:
        process.terminate()
        process.wait(60)


def _wait(envoy: RbacEnvoy, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            envoy.ask(None, [head("GET", "nobody.test", b"/", {})])
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"envoy has not become ready:\n{log.read_text()[-4000:]}")


def _bootstrap(
    certificates: Certificates, port: int, policies: Sequence[Mapping[str, Rules]]
) -> dict[str, object]:
    certificate = str(certificates.issue("spiffe://mesh.test/server"))
    tls = {
        "@type": _TLS,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": certificate},
                    "private_key": {"filename": certificate},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(certificates.roots)}},
        },
    }
    manager = {
        "@type": _HCM,
        "stat_prefix": "rbac",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "http_protocol_options": {"allow_custom_methods": True},
        "route_config": {
            "virtual_hosts": [
                _virtual_host(index, service, rules)
                for index, policy in enumerate(policies)
                for service, rules in policy.items()
            ]
        },
        "http_filters": [
            {"name": "deny", "typed_config": {"@type": _RBAC}},
            {"name": "allow", "typed_config": {"@type": _RBAC}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    chain = {
        "filters": [{"name": "hcm", "typed_config": manager}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    listener = {
        "name": "rbac",
        "address": {"socket_address": {"address": HERE, "port_value": port}},
        "filter_chains": [chain],
    }
    larger = {"re2.max_program_size.error_level": 20_000}
    return {
        "static_resources": {"listeners": [listener]},
        "layered_runtime": {"layers": [{"name": "regex", "static_layer": larger}]},
    }


def _virtual_host(index: int, service: str, rules: Rules) -> dict[str, object]:
    return {
        "name": host_of(index, service),
        "domains": [host_of(index, service)],
        "routes": [{"match": {"prefix": ""}, "direct_response": {"status": 200}}],
        "typed_per_filter_config": {
            "deny": _per_route(rules.deny),
            "allow": _per_route(rules.allow),
        },
    }


def _per_route(rules: RBAC) -> dict[str, object]:
    return {"@type": f"{_RBAC}PerRoute", "rbac": {"rules": MessageToDict(rules)}}
