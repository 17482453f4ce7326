"""From facts to one identity: no entry, or two, give none."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.ca.entries import EntriesAtCommit, EntrySet, describe_entry, read_entry
from garrison.ca.errors import EntriesRejectedError, NotEntitledError
from garrison.identity.registration import RegistrationEntry, Selector
from garrison.identity.spiffe_id import parse_spiffe_id
from tests.ca.authorities import TRUST_DOMAIN, CaInDirectory

FACTS = [Selector("local", "sub", letter) for letter in "abcde"]
facts = st.frozensets(st.sampled_from(FACTS), min_size=1)


def entry(name: str, selectors: frozenset[Selector]) -> RegistrationEntry:
    return RegistrationEntry(parse_spiffe_id(f"spiffe://example.org/ns/n/sa/{name}"), selectors)


def entry_set(*entries: RegistrationEntry) -> EntrySet:
    return EntrySet(TRUST_DOMAIN, EntriesAtCommit("c", entries))


@given(st.sets(facts, max_size=8), st.frozensets(st.sampled_from(FACTS)))
def test_the_index_finds_what_a_scan_finds(
    wanted: set[frozenset[Selector]], attested: frozenset[Selector]
) -> None:
    entries = [entry(f"w{number}", each) for number, each in enumerate(wanted)]
    matching = [each for each in entries if each.selectors <= attested]
    found = entry_set(*entries)
    if len(matching) == 1:
        assert found.entitle(attested).spiffe_id == matching[0].spiffe_id
    else:
        with pytest.raises(NotEntitledError):
            found.entitle(attested)


def test_two_matches_are_told_with_their_selectors() -> None:
    both = entry_set(entry("one", frozenset(FACTS[:1])), entry("two", frozenset(FACTS[1:2])))
    assert both.entitle(frozenset(FACTS[:1]))
    with pytest.raises(NotEntitledError, match=r"2 entries at c match.*local:sub:a.*local:sub:b"):
        both.entitle(frozenset(FACTS[:2]))


def test_an_entry_of_another_trust_domain_is_refused() -> None:
    foreign = RegistrationEntry(
        parse_spiffe_id("spiffe://other.example/ns/n/sa/w"), frozenset(FACTS)
    )
    with pytest.raises(EntriesRejectedError, match=r"not in example\.org"):
        entry_set(foreign)


def test_two_entries_with_the_same_selectors_are_refused() -> None:
    assert entry_set(entry("one", frozenset(FACTS)))
    with pytest.raises(EntriesRejectedError, match="same selectors"):
        entry_set(entry("one", frozenset(FACTS)), entry("two", frozenset(FACTS)))


entries = st.builds(
    RegistrationEntry,
    st.just(parse_spiffe_id("spiffe://example.org/ns/n/sa/w")),
    facts,
    st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=2)),
    st.lists(st.sampled_from(["a", "b.c", "x-1.y"]), max_size=3).map(tuple),
)


@given(entries)
def test_an_entry_reads_back(one: RegistrationEntry) -> None:
    assert read_entry(describe_entry(one)) == one


def test_the_store_remembers_entries(fresh_ca: CaInDirectory) -> None:
    assert fresh_ca.store.load_entries() is None
    for commit, kept in (("1" * 40, (entry("one", frozenset(FACTS)),)), ("2" * 40, ())):
        found = EntriesAtCommit(commit, kept)
        fresh_ca.store.record_entries(found, EntrySet(TRUST_DOMAIN, found).digest)
        assert fresh_ca.store.load_entries() == found


def test_equal_entries_have_one_digest() -> None:
    one, two = entry("one", frozenset(FACTS[:1])), entry("two", frozenset(FACTS[1:]))
    assert entry_set(one, two).digest == entry_set(two, one).digest != entry_set(one).digest
