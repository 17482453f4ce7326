"""A large mesh, generated: namespaces of twenty services, each of which may call ten."""

from __future__ import annotations

from tests.policies.bookstore import example_texts

NAMESPACES = 50
SERVICES = 20  # in each
LINES = 10  # of each service


def large_mesh(namespaces: int = NAMESPACES) -> dict[str, str]:
    """Return the policy files by path."""
    example = example_texts()
    texts = {name: example[name] for name in ("mesh.yaml", "authz/model.conf")}
    for namespace in range(namespaces):
        names = [f"s{number}" for number in range(SERVICES)]
        texts[f"n{namespace}.yaml"] = "---\n".join(
            text
            for number, name in enumerate(names, start=1)
            for text in (service(namespace, name, number), entry(namespace, name))
        )
        texts[f"authz/n{namespace}.csv"] = "".join(
            f"p, allow, n{namespace}/{name}, n{(namespace + line) % namespaces}/{name}, "
            f"{'read' if line % 2 else 'POST'}, /a{line}/*\n"
            for name in names
            for line in range(LINES)
        )
    return texts


def service(namespace: int, name: str, number: int) -> str:
    return f"""
apiVersion: garrison.dev/v1
kind: Service
metadata: {{name: {name}, namespace: n{namespace}}}
spec:
  protocol: http
  port: 80
  identities: [n{namespace}/{name}]
  endpoints:
    - {{address: 10.0.{namespace}.{number}, port: 15006}}
    - {{address: 10.1.{namespace}.{number}, port: 15006}}
"""


def entry(namespace: int, name: str) -> str:
    return f"""
apiVersion: garrison.dev/v1
kind: RegistrationEntry
metadata: {{name: {name}, namespace: n{namespace}}}
spec: {{identity: n{namespace}/{name}, selectors: ["local:sub:n{namespace}:{name}"]}}
"""
