"""A client that knows nothing of proxies calls a port, and arrives at the service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.e2e.mesh import Mesh

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url(mesh: Mesh, caller: str) -> str:
    return f"http://{mesh.instance(caller).address}:9101/books/7"


def test_a_port_is_the_service(mesh: Mesh) -> None:
    with DIRECT.open(url(mesh, "web-1"), timeout=30) as answer:
        assert json.load(answer)["instance"].startswith("catalog-")


def test_authorization_is_the_same_behind_it(mesh: Mesh) -> None:
    request = urllib.request.Request(url(mesh, "web-1"), method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="403") as denied, DIRECT.open(request):
        pass
    with denied.value as answer:
        assert answer.headers["x-garrison-code"] == "inbound/denied"


def test_who_may_not_call_has_no_such_port(mesh: Mesh) -> None:
    with pytest.raises(urllib.error.URLError, match="refused"):
        DIRECT.open(url(mesh, "ratings-1"), timeout=30)
