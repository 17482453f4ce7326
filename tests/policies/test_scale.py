"""A large mesh: compiled in seconds, and each identity still gets only what it may call."""

import time

from garrison.policies.acceptance import BINDING, identities_of
from garrison.policies.commit_files import CommitFiles
from garrison.policies.compilation import compile_commit
from garrison.policies.snapshot import CLUSTER, ROUTES
from tests.policies.bookstore import COMMIT, example_texts

NAMESPACES = 50
SERVICES = 20  # in each
LINES = 10  # of each service
CPU_SECONDS = 60.0  # catches a quadratic pass; 2.6 to compile and 1.9 for all views on idle cores


def large_mesh() -> CommitFiles:
    example = example_texts()
    texts = {name: example[name] for name in ("mesh.yaml", "authz/model.conf")}
    for namespace in range(NAMESPACES):
        names = [f"s{number}" for number in range(SERVICES)]
        texts[f"n{namespace}.yaml"] = "---\n".join(
            text
            for number, name in enumerate(names, start=1)
            for text in (service(namespace, name, number), entry(namespace, name))
        )
        texts[f"authz/n{namespace}.csv"] = "".join(
            f"p, allow, n{namespace}/{name}, n{(namespace + line) % NAMESPACES}/{name}, "
            f"{'read' if line % 2 else 'POST'}, /a{line}/*\n"
            for name in names
            for line in range(LINES)
        )
    return CommitFiles(COMMIT, texts)


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


def test_a_thousand_services_and_ten_thousand_lines() -> None:
    files = large_mesh()
    start = time.process_time()
    snapshot = compile_commit(files)
    identities = identities_of(snapshot)
    views = [snapshot.view_for(each, BINDING, "garrison-proxy") for each in identities]
    assert time.process_time() - start < CPU_SECONDS
    assert len(views) == NAMESPACES * SERVICES
    for view in views:
        assert len(view.resources[CLUSTER]) == LINES + 1  # and the application
        assert len(view.resources[ROUTES]["outbound"].body) < LINES * 1000
