"""SPIFFE-ID §2, each MUST as a refusal beside what is accepted."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.identity.spiffe_id import (
    SpiffeIdRejectedError,
    certificate_authority,
    namespace_and_account,
    parse_spiffe_id,
    parse_trust_domain,
    policy_server,
    workload,
)

LOWER = string.ascii_lowercase + string.digits + "._-"
ANY_CASE = string.ascii_letters + string.digits + "._-"
names = st.text(LOWER, min_size=1, max_size=255)
segments = st.text(ANY_CASE, min_size=1, max_size=60).filter(lambda text: text not in {".", ".."})
ACCEPTED = [
    "spiffe://example.org",
    "spiffe://example.org/a",
    "spiffe://example.org/ns/shop/sa/web",
    "spiffe://example.org/Mixed.Case-1_2/...",
    "spiffe://127.0.0.1/a",
    "spiffe://" + "a" * 255 + "/b",
    "spiffe://a/" + "b" * (2048 - len("spiffe://a/")),
]
REFUSED = {
    "empty": "",
    "scheme alone": "spiffe://",
    "another scheme": "https://example.org/a",
    "upper-case scheme": "SPIFFE://example.org/a",
    "no authority": "spiffe:///a",
    "query": "spiffe://example.org/a?b",
    "fragment": "spiffe://example.org/a#b",
    "userinfo": "spiffe://u@example.org/a",
    "port": "spiffe://example.org:80/a",
    "IPv6": "spiffe://[::1]/a",
    "upper-case trust domain": "spiffe://Example.org/a",
    "percent-encoded trust domain": "spiffe://ex%61mple.org/a",
    "trust domain not ASCII": "spiffe://exämple.org/a",
    "percent-encoded path": "spiffe://example.org/%61",
    "encoded dot": "spiffe://example.org/a/%2e%2e/b",
    "empty segment": "spiffe://example.org/a//b",
    "dot segment": "spiffe://example.org/a/./b",
    "dot dot segment": "spiffe://example.org/a/../b",
    "trailing slash": "spiffe://example.org/a/",
    "root path": "spiffe://example.org/",
    "wildcard": "spiffe://example.org/*",
    "path not ASCII": "spiffe://example.org/ä",
    "digit not ASCII": "spiffe://example.org/٣",
    "newline at the end": "spiffe://example.org/a\n",
    "newline after the trust domain": "spiffe://example.org\n",
    "NUL": "spiffe://example.org/a\0",
    "space": " spiffe://example.org/a",
    "trust domain too long": "spiffe://" + "a" * 256 + "/b",
    "too long": "spiffe://a/" + "b" * 2048,
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_an_id_is_kept_as_written(text: str) -> None:
    assert str(parse_spiffe_id(text)) == text


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(SpiffeIdRejectedError):
        parse_spiffe_id(text)


@given(names, st.lists(segments, max_size=8))
def test_every_id_of_the_grammar_is_accepted(name: str, path: list[str]) -> None:
    text = "/".join([f"spiffe://{name}", *path])
    spiffe_id = parse_spiffe_id(text)
    assert (str(spiffe_id), spiffe_id.trust_domain.name) == (text, name)


@given(st.one_of(st.text(), st.text(ANY_CASE + "/:%?#@\n \0", max_size=30)))
def test_nothing_outside_the_grammar_is_accepted(rest: str) -> None:
    text = f"spiffe://{rest}"
    try:
        spiffe_id = parse_spiffe_id(text)
    except SpiffeIdRejectedError:
        return
    name, *path = rest.split("/")
    assert str(spiffe_id) == text
    assert name
    assert set(name) <= set(LOWER)
    assert all(set(part) <= set(ANY_CASE) and part not in {"", ".", ".."} for part in path)


@given(names.filter(lambda name: len(name) < 200), segments, segments)
def test_a_workload_reads_back(name: str, namespace: str, account: str) -> None:
    spiffe_id = workload(parse_trust_domain(name), namespace, account)
    assert namespace_and_account(spiffe_id) == (namespace, account)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a%2fb", "a\n", "*"])
def test_a_name_that_would_leave_its_segment_is_refused(name: str) -> None:
    with pytest.raises(SpiffeIdRejectedError):
        workload(parse_trust_domain("example.org"), name, "web")
    with pytest.raises(SpiffeIdRejectedError):
        workload(parse_trust_domain("example.org"), "shop", name)


@pytest.mark.parametrize(
    "path", ["", "/ns/a", "/ns/a/sa", "/ns/a/sa/b/c", "/sa/b/ns/a", "/NS/a/sa/b"]
)
def test_an_id_of_another_shape_is_no_workload(path: str) -> None:
    with pytest.raises(SpiffeIdRejectedError):
        namespace_and_account(parse_spiffe_id(f"spiffe://example.org{path}"))


def test_the_control_planes_own_names() -> None:
    trust_domain = parse_trust_domain("example.org")
    assert str(certificate_authority(trust_domain)) == "spiffe://example.org/ns/garrison/sa/ca"
    assert str(policy_server(trust_domain)) == "spiffe://example.org/ns/garrison/sa/policy-server"
