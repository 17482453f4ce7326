"""A live Envoy as a judge: one virtual host for each policy and service, with their two filters.

Rules stand in the route (`RBACPerRoute`), so that one process holds hundreds of policies. Callers
are told apart by client certificates, whose one URI is their SPIFFE ID.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.rbac.v3.rbac_pb2 import RBAC
from google.protobuf.json_format import MessageToDict

from garrison.authz import Request, Rules
from garrison.authz.evaluate import Attributes, Decision
from tests.authz.generator import TRUST_DOMAIN

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


@dataclass
class RbacEnvoy:
    """A running Envoy, and the connections of each caller to it."""

    certificates: Certificates
    address: tuple[str, int]
    _connections: dict[str | None, http.client.HTTPSConnection] = field(default_factory=dict)

    def decide(self, policy: int, requests: Sequence[Request]) -> list[Decision]:
        """Send requests to the virtual hosts of one policy."""
        return [self._ask(policy, request) for request in requests]

    def _ask(self, policy: int, request: Request) -> Decision:
        attributes = Attributes.of(request, TRUST_DOMAIN)
        connection = self._connection(attributes.uri)
        headers = {**request.headers, "host": _host(policy, request.dst)}
        connection.request(request.method, request.path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in {200, 403}, (request, answer.status)
        return Decision(answer.status == 200, None)

    def _connection(self, uri: str | None) -> http.client.HTTPSConnection:
        if uri not in self._connections:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(self.certificates.roots)
            if uri is not None:
                context.load_cert_chain(self.certificates.issue(uri))
            connection = http.client.HTTPSConnection(*self.address, context=context, timeout=10)
            self._connections[uri] = connection
        return self._connections[uri]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


@contextmanager
def running(
    executable: Path, directory: Path, policies: Sequence[Mapping[str, Rules]], port: int
) -> Iterator[RbacEnvoy]:
    """Run an Envoy that holds `policies`."""
    certificates = Certificates(directory)
    address = ("127.0.0.1", port)
    config = directory / "envoy.json"
    config.write_text(json.dumps(_bootstrap(certificates, address, policies)))
    log = directory / "envoy.log"
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, "-c", config, *options], stdout=output, stderr=subprocess.STDOUT
        )
    envoy = RbacEnvoy(certificates, address)
    try:
        _wait(envoy, process, log)
        yield envoy
    finally:
        envoy.close()
        process.terminate()
        process.wait(10)


def _wait(envoy: RbacEnvoy, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        connection = envoy._connection(None)  # noqa: SLF001 - of this module
        try:
            connection.request("GET", "/", headers={"host": "nobody.test"})
            connection.getresponse().read()
        except OSError:
            connection.close()
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"envoy has not become ready:\n{log.read_text()[-4000:]}")


def _host(policy: int, service: str) -> str:
    return f"{service.replace('/', '.')}.p{policy}.test"


def _bootstrap(
    certificates: Certificates, address: tuple[str, int], policies: Sequence[Mapping[str, Rules]]
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
    host, port = address
    listener = {
        "name": "rbac",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [chain],
    }
    larger = {"re2.max_program_size.error_level": 20_000}
    return {
        "static_resources": {"listeners": [listener]},
        "layered_runtime": {"layers": [{"name": "regex", "static_layer": larger}]},
    }


def _virtual_host(index: int, service: str, rules: Rules) -> dict[str, object]:
    return {
        "name": _host(index, service),
        "domains": [_host(index, service)],
        "routes": [{"match": {"prefix": ""}, "direct_response": {"status": 200}}],
        "typed_per_filter_config": {
            "deny": _per_route(rules.deny),
            "allow": _per_route(rules.allow),
        },
    }


def _per_route(rules: RBAC) -> dict[str, object]:
    return {"@type": f"{_RBAC}PerRoute", "rbac": {"rules": MessageToDict(rules)}}
