"""An entry cannot say what would make it match everybody or name what is not a workload."""

from datetime import timedelta

import pytest

from garrison.identity.errors import RejectedError
from garrison.identity.registration import RegistrationEntry, Selector, parse_selector
from garrison.identity.spiffe_id import parse_spiffe_id

WEB = parse_spiffe_id("spiffe://example.org/ns/shop/sa/web")
ISSUER = parse_selector("local:iss:https://issuer.example")
SUBJECT = parse_selector("local:sub:system:serviceaccount:shop:web")


def test_a_selector_reads_back() -> None:
    assert Selector("local", "sub", "system:serviceaccount:shop:web") == SUBJECT
    assert parse_selector(str(SUBJECT)) == SUBJECT


@pytest.mark.parametrize(
    "text", ["", "local", "local:sub", "local:sub:", ":sub:x", "Local:sub:x", "a::x", "a:b:x\ny"]
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        parse_selector(text)


def test_an_entry_matches_only_when_all_its_selectors_are_attested() -> None:
    entry = RegistrationEntry(WEB, frozenset({ISSUER, SUBJECT}))
    assert entry.matches(frozenset({ISSUER, SUBJECT, parse_selector("local:aud:x")}))
    assert not entry.matches(frozenset({SUBJECT}))
    assert not entry.matches(frozenset())


def test_an_entry_without_selectors_is_refused() -> None:
    with pytest.raises(RejectedError, match="no selector"):
        RegistrationEntry(WEB, frozenset())


@pytest.mark.parametrize("path", ["", "/web", "/ns/shop/sa/web/x"])
def test_an_entry_is_a_workloads(path: str) -> None:
    with pytest.raises(RejectedError):
        RegistrationEntry(parse_spiffe_id(f"spiffe://example.org{path}"), frozenset({SUBJECT}))


def test_nobody_registers_as_the_ca() -> None:
    own = parse_spiffe_id("spiffe://example.org/ns/garrison/sa/ca")
    with pytest.raises(RejectedError, match="CA's own"):
        RegistrationEntry(own, frozenset({SUBJECT}))


def test_nobody_else_takes_the_name_of_a_service_of_the_mesh() -> None:
    """Clients that check a host name would take it for the CA, or for the policy server."""
    server = parse_spiffe_id("spiffe://example.org/ns/garrison/sa/policy-server")
    assert RegistrationEntry(server, frozenset({SUBJECT}), dns_names=("policy.garrison",))
    for claimant, name in ((WEB, "policy.garrison"), (WEB, "ca.garrison"), (server, "ca.garrison")):
        with pytest.raises(RejectedError, match=f"claims {name}"):
            RegistrationEntry(claimant, frozenset({SUBJECT}), dns_names=(name,))


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
def test_a_ttl_is_above_zero(ttl: timedelta) -> None:
    with pytest.raises(RejectedError, match="ttl"):
        RegistrationEntry(WEB, frozenset({SUBJECT}), ttl)


@pytest.mark.parametrize("name", ["", "*", "*.shop", "Web", "a..b", "-a", "a" * 64, "a.\n", "a b"])
def test_a_dns_name_is_a_plain_host_name(name: str) -> None:
    assert RegistrationEntry(WEB, frozenset({SUBJECT}), dns_names=("web.shop",))
    with pytest.raises(RejectedError, match="dnsName"):
        RegistrationEntry(WEB, frozenset({SUBJECT}), dns_names=(name,))
