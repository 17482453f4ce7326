"""Requests that are spelt so that a line might miss them, at a live Envoy and at garrison-proxy.

garrison-proxy decides what it made of the request: its canonical form. Envoy decides what it
normalized, as far as it does.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.authz import Request
from garrison.authz.oracle import Oracle
from garrison.authz.schema import is_canonical
from garrison.proxy.executable import find_executable
from tests.authz.judges import Proxy, proxy
from tests.authz.live_envoy import Certificates, RbacEnvoy, head, host_of, running
from tests.authz.sources import SERVICES, compiled, model_of

WEB = "spiffe://bookstore.example/ns/bookstore/sa/web"
CATALOG, ORDERS = "bookstore/catalog", "bookstore/orders"
PASSES, REFUSED, DENIED = 200, 400, 403

PATHS = """\
p, allow, bookstore/web, bookstore/catalog, GET, /*
p, deny, bookstore/web, bookstore/catalog, GET, /@admin
p, deny, bookstore/web, bookstore/catalog, GET, /a;b/:id
p, deny, bookstore/web, bookstore/catalog, GET, /caf%C3%A9
p, allow, bookstore/web, bookstore/orders, GET, /users/:id
"""
DENIED_WORDS = "p, allow, ^\np, deny, ^\\w+$\n"
ALLOWED_BUT_WORDS = "p, allow, ^\\w+$\n"
TENANT = "r.headers['x-tenant']"
DENY = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"

COMPILED = (
    compiled(PATHS),
    compiled(DENIED_WORDS, model_of(f"regexMatch({TENANT}, p.w)", "eft, w", effect=DENY)),
    compiled(ALLOWED_BUT_WORDS, model_of(f"!(regexMatch({TENANT}, p.w))", "eft, w")),
)
RULES = [{service: each.rules(service) for service in SERVICES} for each in COMPILED]


@pytest.fixture(scope="module")
def envoy(envoy_executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RbacEnvoy]:
    certificates = Certificates(tmp_path_factory.mktemp("envoy"))
    with running(envoy_executable, certificates, RULES) as started:
        yield started


@pytest.fixture(scope="module")
def garrison_proxy() -> Iterator[Proxy]:
    with proxy() as started:
        yield started


def canonical(paths: Sequence[str]) -> list[str | None]:
    """Have garrison-proxy bring paths into their canonical form; None where it refuses to."""
    lines = [{"method": "GET", "target": path, "headers": [["host", "a.b"]]} for path in paths]
    answers = subprocess.run(
        [find_executable(), "canonicalize"],
        input="".join(json.dumps(line) + "\n" for line in lines),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()
    return [json.loads(answer).get("path") for answer in answers]


def at_envoy(envoy: RbacEnvoy, service: str, path: str) -> int:
    [status] = envoy.ask(WEB, [head("GET", host_of(0, service), path.encode(), {})])
    return status


def at_garrison_proxy(garrison_proxy: Proxy, service: str, path: str) -> int:
    [form] = canonical([path])
    if form is None:
        return REFUSED
    [decision] = garrison_proxy.ask(RULES[0][service], [Request(WEB, service, "GET", form)])
    return PASSES if decision.allowed else DENIED


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/@admin", DENIED),
        ("/%40admin", DENIED),
        ("/a;b/7", DENIED),
        ("/a%3Bb/7", DENIED),
        ("/a%3bb/7", DENIED),
        ("/a%3Bb/%37", DENIED),
        ("/caf%C3%A9", DENIED),
        ("/caf%c3%a9", DENIED),
        ("/caf%C3%A8", PASSES),
        ("/%7Eme/a@b;c", PASSES),
    ],
)
def test_deny_line_holds_in_every_spelling(
    envoy: RbacEnvoy, garrison_proxy: Proxy, path: str, status: int
) -> None:
    assert at_garrison_proxy(garrison_proxy, CATALOG, path) == status
    assert at_envoy(envoy, CATALOG, path) == status


@pytest.mark.parametrize(
    ("path", "status"), [("/users%40x", PASSES), ("/x[1]", PASSES), ("/x%ff", REFUSED)]
)
def test_envoy_denies_what_it_cannot_bring_into_canonical_form(
    envoy: RbacEnvoy, garrison_proxy: Proxy, path: str, status: int
) -> None:
    assert at_garrison_proxy(garrison_proxy, CATALOG, path) == status
    assert at_envoy(envoy, CATALOG, path) == DENIED


@pytest.mark.parametrize("path", ["/users/a@b", "/users/a%40b", "/users/a%5b", "/users/a%c3%a9"])
def test_every_spelling_passes_where_no_line_could_miss_it(
    envoy: RbacEnvoy, garrison_proxy: Proxy, path: str
) -> None:
    assert at_garrison_proxy(garrison_proxy, ORDERS, path) == PASSES
    assert at_envoy(envoy, ORDERS, path) == PASSES


pieces = st.one_of(
    st.sampled_from(("/", "//", "a", "%40", "%3b", "%2e", "..", ".", ";", "%c3%a9", "{", "%25")),
    st.from_regex(r"%[0-9a-fA-F]{2}|[!-~]", fullmatch=True),
)
raw_paths = st.lists(pieces, max_size=10).map(lambda found: "/" + "".join(found))


@settings(max_examples=15)
@given(st.lists(raw_paths, min_size=100, max_size=100))
def test_canonical_form_is_the_one_that_lines_are_checked_for(paths: list[str]) -> None:
    for raw, form in zip(paths, canonical(paths), strict=True):
        assert form is None or is_canonical(form), (raw, form)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"gold", DENIED),
        (b"go-ld", PASSES),
        ("gold\xe9".encode("latin-1"), DENIED),
        ("gold\xe9".encode(), DENIED),
        (b"gold\xff\xfe", DENIED),
        (b"go-ld\r\nx-tenant: \xe9", DENIED),
    ],
)
@pytest.mark.parametrize("policy", [1, 2])
def test_no_expression_is_evaded_by_a_value_that_is_not_ascii(
    envoy: RbacEnvoy, policy: int, value: bytes, status: int
) -> None:
    request = head("GET", host_of(policy, CATALOG), b"/", {"x-tenant": value})
    assert envoy.ask(WEB, [request]) == [status]


@pytest.mark.parametrize("value", ["gold", "go-ld", "gold\xe9"])
@pytest.mark.parametrize("policy", [1, 2])
def test_garrison_proxy_and_casbin_read_such_a_value_alike(
    garrison_proxy: Proxy, policy: int, value: str
) -> None:
    request = Request(WEB, CATALOG, "GET", "/", {"x-tenant": value})
    [decision] = garrison_proxy.ask(RULES[policy][CATALOG], [request])
    assert decision.allowed == Oracle.whole(COMPILED[policy].compilation).allows(request)
    assert decision.allowed == (value == "go-ld")
