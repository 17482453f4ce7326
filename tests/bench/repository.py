"""The policy repository that is measured with: one caller, two services, 20 routes, 100 lines.

All lines name the caller, so that none of them is left out of account beforehand.
"""

from __future__ import annotations

from pathlib import Path

from tests.policies.bookstore import EXAMPLE

ROUTES = 20
LINES = 100
CALLER, CALLEE = "bench/client", "bench/api"
TRUST_DOMAIN = "bench.example"
HTTP_HOST, GRPC_HOST = "api.bench", "rpc.bench"
METHOD = "/Bench/Call"
PREFIXES = tuple(f"/t{line}" for line in range(LINES))
ROUTED = PREFIXES[:: LINES // ROUTES]
ASKED = ROUTED[15]  # neither the first nor the last
REFUSED = "/elsewhere/16"


def path_of(size: int) -> str:
    """Name what is answered with that many bytes."""
    return f"{ASKED}/{size}"


def write_repository(directory: Path) -> Path:
    """Write the files."""
    for name, text in texts().items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return directory


def texts() -> dict[str, str]:
    """Return the files by path."""
    return {
        "mesh.yaml": _MESH,
        "services.yaml": _service("api", "http", 11) + "---\n" + _service("rpc", "grpc", 12),
        "registration.yaml": "---\n".join(
            (
                _entry("client", "bench", ""),
                _entry("api", "bench", f"{HTTP_HOST}, {GRPC_HOST}"),  # peers have both with it
                _entry("rpc", "bench", ""),
                _entry("policy-server", "garrison", "policy.garrison"),
            )
        ),
        "routes.yaml": _ROUTE + "".join(map(_rule, ROUTED)),
        "authz/model.conf": (EXAMPLE / "authz" / "model.conf").read_text(encoding="utf-8"),
        "authz/bench.csv": "".join(
            f"p, allow, {CALLER}, bench/api, GET, {prefix}/*\n" for prefix in PREFIXES
        )
        + f"p, allow, {CALLER}, bench/rpc, POST, {METHOD}\n",
    }


_MESH = f"""\
apiVersion: garrison.dev/v1
kind: Mesh
metadata: {{name: bench}}
spec: {{trustDomain: {TRUST_DOMAIN}}}
"""

_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: bench}
spec:
  parentRefs:
    - {group: garrison.dev, kind: Service, name: api}
  rules:
"""


def _rule(prefix: str) -> str:
    return f"""\
    - matches:
        - path: {{type: PathPrefix, value: {prefix}}}
      backendRefs:
        - {{name: api}}
"""


def _service(name: str, protocol: str, host: int) -> str:
    return f"""\
apiVersion: garrison.dev/v1
kind: Service
metadata: {{name: {name}, namespace: bench}}
spec:
  protocol: {protocol}
  port: 80
  identities: [bench/{name}]
  endpoints:
    - {{address: 127.0.20.{host}, port: 15006}}
"""


def _entry(name: str, namespace: str, dns: str) -> str:
    return f"""\
apiVersion: garrison.dev/v1
kind: RegistrationEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  identity: {namespace}/{name}
  selectors: ["local:sub:system:serviceaccount:{namespace}:{name}"]
  dnsNames: [{dns}]
"""
