"""A stock Envoy as a sidecar: the same policy server and CA, none of our code.

Envoy cannot ask for a certificate by itself, so the test fetches the SVID and lays it down as
files, which Envoy watches; the trust bundle it takes from the CA by SDS, and everything else from
the policy server by delta ADS.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def envoy_executable() -> Path:
    """Where `make test` put Envoy; a test that needs it fails without."""
    return Path(os.environ.get("GARRISON_ENVOY", ".venv/peers/envoy/_bin/envoy"))


@dataclass(frozen=True)
class ControlPlane:
    trust_domain: str
    policy: str
    """host:port of ADS."""
    bundles: str
    """host:port of the CA's SDS."""
    api_type: str = "DELTA_GRPC"
    """Or GRPC: state of the world."""


@dataclass(frozen=True)
class Envoy:
    admin: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def counter(self, name: str) -> int:
        """Read one counter or gauge; 0 if Envoy never made it."""
        line = self.get(f"/stats?filter=^{name}$")
        return int(line.rsplit(":", 1)[1]) if line else 0

    def wait_ready(self, listeners: int, seconds: float = 20) -> None:
        """Wait until Envoy has that many listeners warm and serving."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                active = self.counter("listener_manager.total_listeners_active")
                if self.counter("listener_manager.workers_started") and active >= listeners:
                    return
            except OSError:
                pass  # its admin port is not open yet
            time.sleep(0.05)
        raise AssertionError(f"envoy has not become ready:\n{self.log.read_text()[-4000:]}")


@contextmanager
def running_envoy(
    directory: Path, node: str, control: ControlPlane, bind: Mapping[str, str], admin: str
) -> Iterator[Envoy]:
    """Run Envoy with the identity in `directory` until the block ends.

    The directory holds svid.pem (leaf first), key.pem and roots.pem.

    `bind` is what docs/seams.md calls the node's metadata: inbound, application, outbound.
    """
    config = directory / "envoy.json"
    config.write_text(json.dumps(bootstrap(directory, node, control, bind, admin)))
    log = directory / "envoy.log"
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [envoy_executable(), "-c", config, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Envoy(admin, process, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def bootstrap(
    directory: Path, node: str, control: ControlPlane, bind: Mapping[str, str], admin: str
) -> dict[str, object]:
    """What Envoy must know before the policy server can tell it the rest."""
    account = f"spiffe://{control.trust_domain}/ns/garrison/sa"
    policy = _control_cluster(
        "garrison-policy", control.policy, directory, f"{account}/policy-server"
    )
    authority = _control_cluster("garrison-ca", control.bundles, directory, f"{account}/ca")
    return {
        "node": {"id": node, "cluster": "mesh", "metadata": dict(bind)},
        "admin": {"address": _address(admin)},
        "layered_runtime": {
            "layers": [
                {"name": "regex", "static_layer": {"re2.max_program_size.error_level": 20_000}}
            ]
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": control.api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "garrison-policy"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [policy, authority],
            "secrets": [{"name": "svid", "tls_certificate": _certificate(directory)}],
        },
    }


def _control_cluster(name: str, target: str, directory: Path, spiffe_id: str) -> dict[str, object]:
    validation = {
        "trusted_ca": {"filename": str(directory / "roots.pem")},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": spiffe_id}}],
    }
    endpoint = {"endpoint": {"address": _address(target)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TLS}.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "tls_certificate_sds_secret_configs": [{"name": "svid"}],
                    "validation_context": validation,
                },
            },
        },
    }


def _certificate(directory: Path) -> dict[str, object]:
    return {
        "certificate_chain": {"filename": str(directory / "svid.pem")},
        "private_key": {"filename": str(directory / "key.pem")},
        "watched_directory": {"path": str(directory)},
    }


def _address(target: str) -> dict[str, object]:
    host, _, port = target.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
