"""Properties of the streams' state machine: any client, any views, any interleaving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.xds import delta, state_of_the_world
from garrison.xds.accounts import bytes_of
from garrison.xds.client import Acknowledged, Refused
from garrison.xds.resource import Resource, View
from garrison.xds.service import AGGREGATED, Limits, Service, TypeRule
from garrison.xds.stream import Stream

A, B, C = (f"type.googleapis.com/{letter}" for letter in "ABC")
END = "end"
SERVICE = Service(
    AGGREGATED,
    (
        TypeRule(A, wildcard_if_unnamed=True),
        TypeRule(B, warms=A),
        TypeRule(C, last=frozenset({END})),
    ),
)
Content = dict[str, dict[str, str]]  # type to name to text

names = st.sampled_from("pqrs")
texts = st.sampled_from("12")


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """Three types; each resource of C names one of A that is there."""
    a = draw(st.dictionaries(names, texts, min_size=1))
    targets = st.sampled_from(sorted(a))
    return {
        A: a,
        B: draw(st.dictionaries(names, texts)),
        C: draw(st.dictionaries(names, targets)),
    }


def view_of(label: str, content: Content) -> View:
    by_type = {
        url: [Resource.of(n, wrappers_pb2.StringValue(value=t)) for n, t in sorted(each.items())]
        for url, each in content.items()
    }
    by_type[C].append(Resource.of(END, wrappers_pb2.StringValue(value=label)))
    return View.of(label, by_type)


def text_of(resource: discovery_pb2.Resource) -> str:
    value = wrappers_pb2.StringValue()
    assert resource.resource.Unpack(value)
    return value.value


@dataclass
class DeltaClient:
    """garrison-proxy's half of the protocol, which holds the server to its own."""

    view: View
    refuse_text: str | None = None  # resources with this text are refused
    stream: Stream = field(
        default_factory=lambda: Stream(SERVICE, Limits(response_bytes=130), whole_state=False)
    )
    held: Content = field(default_factory=lambda: {A: {}, B: {}, C: {}})
    wanted: dict[str, set[str]] = field(default_factory=dict)
    unanswered: dict[str, discovery_pb2.DeltaDiscoveryResponse] = field(default_factory=dict)
    refused_alone: dict[tuple[str, str], str] = field(default_factory=dict)
    enforced: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # types that have had a response
    awaited: set[tuple[str, str]] = field(default_factory=set)  # may come while A is unanswered

    def subscribe(self, url: str, asked: Iterable[str]) -> None:
        asked = list(asked)
        self.wanted.setdefault(url, set()).update(asked)
        for name in asked:
            self.refused_alone.pop((url, name), None)
            self.awaited.add((url, name))
        self._request(type_url=url, resource_names_subscribe=asked)

    def unsubscribe(self, url: str, asked: Iterable[str]) -> None:
        asked = list(asked)
        self._request(type_url=url, resource_names_unsubscribe=asked)
        self.wanted[url] -= set(asked)
        self.awaited |= {(url, name) for name in asked if self._wants(url, name)}
        for name in [n for n in self.held[url] if not self._wants(url, n)]:
            del self.held[url][name]
        for key in [k for k in self.refused_alone if k[0] == url and k[1] in asked]:
            del self.refused_alone[key]

    def receive(self) -> bool:
        """Take what the server sends next, if anything; it is answered later."""
        outgoing = self.stream.next_response(self.view)
        if outgoing is None:
            return False
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(delta.encode(outgoing))
        url = response.type_url
        self._check(url, response)
        self.unanswered[url] = response
        self.answered.add(url)
        self.awaited -= {(url, each.name) for each in response.resources}
        if url == A:
            self.awaited |= {(B, each.name) for each in response.resources}
        return True

    def answer(self, url: str) -> None:
        """ACK or NACK the response of this type that is unanswered."""
        response = self.unanswered.pop(url)
        fields: dict[str, object] = {"type_url": url, "response_nonce": response.nonce}
        bad = [each for each in response.resources if text_of(each) == self.refuse_text]
        if bad:
            fields["error_detail"] = {"code": 3, "message": "no good"}
            if len(response.resources) == 1:
                self.refused_alone[(url, bad[0].name)] = bad[0].version
            event = self._request(**fields)
            assert isinstance(event, Refused)
            return
        for each in response.resources:
            if self._wants(url, each.name):
                self.held[url][each.name] = text_of(each)
                self.refused_alone.pop((url, each.name), None)
        for name in response.removed_resources:
            self.held[url].pop(name, None)
        event = self._request(**fields)
        assert isinstance(event, Acknowledged)
        if event.versions.get(END):
            self.enforced.append(event.label)

    def settle(self) -> None:
        """Answer everything until nothing comes."""
        for _ in range(200):
            while self.receive():
                pass
            if not self.unanswered:
                return
            self.answer(next(iter(self.unanswered)))
        raise AssertionError("it never settles")

    def wanted_content(self, url: str) -> dict[str, str]:
        found = {}
        for name, resource in self.view.resources.get(url, {}).items():
            value = wrappers_pb2.StringValue()
            message = discovery_pb2.Resource(resource={"type_url": "", "value": b""})
            message.resource.ParseFromString(resource.body)
            assert message.resource.Unpack(value)
            if self._wants(url, name):
                found[name] = value.value
        return found

    def _check(self, url: str, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        assert url in self.wanted, "a type that was not asked for"
        assert url not in self.unanswered, "two responses in flight"
        sent = {each.name: each.version for each in response.resources}
        for name, version in sent.items():
            if name == END:
                continue
            assert self.refused_alone.get((url, name)) != version, "refused, and sent unchanged"
        earlier = [each for each in (A, B, C)[: (A, B, C).index(url)] if each in self.wanted]
        if url == B and B in self.answered and A in self.unanswered:
            assert all((B, name) in self.awaited for name in sent)
        elif url in self.answered and not response.removed_resources:
            for before in earlier:
                assert before not in self.unanswered, "the types before were not taken yet"
                assert self._has_all(before), "something of the types before was not sent"
        if END in sent:
            assert set(sent) == {END}
            assert not self.unanswered
            assert all(self._has_all(other) for other in (A, B, C))

    def _has_all(self, url: str) -> bool:
        return all(
            self.held[url].get(name) == text or (url, name) in self.refused_alone or name == END
            for name, text in self.wanted_content(url).items()
        )

    def _wants(self, url: str, name: str) -> bool:
        wanted = self.wanted.get(url, set())
        return "*" in wanted or name in wanted

    def _request(self, **fields: object) -> Acknowledged | Refused | None:
        request = discovery_pb2.DeltaDiscoveryRequest(**fields)
        return delta.on_request(self.stream, delta.parse(request.SerializeToString()))


def everything(content: Content, refuse_text: str | None = None) -> DeltaClient:
    client = DeltaClient(view_of("c0", content), refuse_text)
    for url in (A, B, C):
        client.subscribe(url, ["*"])
    return client


# What happens next: a response is taken, one is answered, or the view changes.
Step = str | Content
steps = st.lists(st.one_of(st.sampled_from(["receive", "A", "B", "C"]), contents()), max_size=25)


def play(client: DeltaClient, happenings: list[Step]) -> None:
    for number, step in enumerate(happenings):
        if isinstance(step, dict):
            client.view = view_of(f"c{number + 1}", step)
        elif step == "receive":
            client.receive()
        elif (url := f"type.googleapis.com/{step}") in client.unanswered:
            client.answer(url)


@settings(max_examples=150)
@given(contents(), steps)
def test_a_client_ends_with_exactly_the_newest_view(first: Content, happenings: list[Step]) -> None:
    client = everything(first)
    play(client, happenings)
    client.settle()
    assert {url: client.wanted_content(url) for url in (A, B, C)} == client.held
    assert client.enforced[-1] == client.view.label
    assert client.stream.is_settled(client.view)


@settings(max_examples=150)
@given(contents(), steps)
def test_no_reference_is_ever_dangling(first: Content, happenings: list[Step]) -> None:
    """Make before break: what C names is held at each moment, whatever the interleaving."""
    client = everything(first)
    client.settle()
    for step in happenings:
        play(client, [step])
        for name, target in client.held[C].items():
            assert name == END or target in client.held[A], (name, target)


@settings(max_examples=150)
@given(contents(), steps)
def test_what_is_refused_is_not_sent_again_and_never_enforced(
    first: Content, happenings: list[Step]
) -> None:
    client = everything(first, refuse_text="2")
    play(client, happenings)
    client.settle()
    for url in (A, B, C):
        for name, text in client.wanted_content(url).items():
            if text == "2":
                assert client.held[url].get(name) != text
                assert not client.stream.is_settled(client.view)
            elif name != END:
                assert client.held[url][name] == text, "a good neighbour was lost"


subscriptions = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.booleans(),
        st.lists(st.one_of(names, st.just("*"), st.just("unknown")), min_size=1, max_size=3),
    ),
    max_size=12,
)


@settings(max_examples=150)
@given(contents(), contents(), subscriptions)
def test_any_subscription_gets_what_it_names(
    first: Content, second: Content, asked: list[tuple[str, bool, list[str]]]
) -> None:
    client = DeltaClient(view_of("c0", first))
    for number, (url, is_more, some) in enumerate(asked):
        if url == A and url not in client.wanted and not is_more:
            continue  # a first request without names would mean all of them
        if is_more or url not in client.wanted:
            client.subscribe(url, some)
        else:
            client.unsubscribe(url, some)
        if number % 3 == 0:
            client.receive()
        if number == len(asked) // 2:
            client.view = view_of("c1", second)
    client.settle()
    for url in client.wanted:
        wanted = client.wanted_content(url)
        if len(client.wanted) < 3:
            wanted.pop(END, None)
        assert client.held[url] == wanted


def test_a_name_that_is_not_there_is_answered() -> None:
    client = DeltaClient(view_of("c0", {A: {"p": "1"}, B: {}, C: {}}))
    client.subscribe(A, ["unknown"])
    assert client.receive()
    assert list(client.unanswered[A].removed_resources) == ["unknown"]
    client.settle()
    client.view = view_of("c1", {A: {"unknown": "1"}, B: {}, C: {}})
    client.settle()
    assert client.held[A] == {"unknown": "1"}


def test_unknown_names_and_removals_go_in_parts_too() -> None:
    """Or one response would exceed what gRPC takes, and the client would never get past it."""
    client = DeltaClient(view_of("c0", {A: {}, B: {}, C: {}}))
    unknown = {f"unknown-{number:03}" for number in range(20)}
    client.subscribe(A, unknown)
    answered: list[str] = []
    while client.receive():
        parts = [list(each.removed_resources) for each in client.unanswered.values()]
        assert all(0 < 4 * len("".join(part)) <= 130 for part in parts)
        answered += [name for part in parts for name in part]
        client.answer(A)
    assert len(answered) == len(unknown)
    assert set(answered) == unknown

    client = DeltaClient(view_of("c1", {A: {}, B: {}, C: {}}))
    client.held[A] = dict.fromkeys(unknown, "1")
    client.wanted = {A: {"*"}}
    client._request(  # noqa: SLF001 - a request that the model has no word for
        type_url=A,
        resource_names_subscribe=["*"],
        initial_resource_versions=dict.fromkeys(unknown, "0"),
    )
    responses = 0
    while client.receive():
        responses += 1
        client.answer(A)
    assert client.held[A] == {}
    assert responses > len(unknown) // 4


def test_a_name_given_up_under_the_wildcard_is_answered_and_forgotten() -> None:
    client = DeltaClient(view_of("c0", {A: {"p": "1"}, B: {}, C: {}}))
    client.subscribe(A, ["*"])
    client.settle()
    for number in range(5):
        client.subscribe(A, [f"unknown-{number}"])
        client.unsubscribe(A, [f"unknown-{number}"])
    subscription, _ = client.stream.subscription(A)
    assert subscription.name_count == 1 + 5, "what is to be answered counts"
    client.settle()
    assert subscription.name_count == 1


def test_only_what_a_client_makes_up_counts_as_its_own() -> None:
    view = view_of("c0", {A: {"p": "1", "q": "1"}, B: {}, C: {}})
    client = DeltaClient(view)
    client.stream.view = view
    versions = {name: each.version for name, each in view.resources[A].items()}
    client.wanted = {A: {"p", "q"}}
    client._request(  # noqa: SLF001
        type_url=A, resource_names_subscribe=["p", "q"], initial_resource_versions=versions
    )
    assert client.stream.own_bytes == 0
    client.subscribe(A, ["x" * 100])
    grown = client.stream.own_bytes
    assert grown > 100
    client._request(type_url=B, initial_resource_versions={"p": "old"})  # noqa: SLF001
    more = client.stream.own_bytes
    assert more > grown
    client.unsubscribe(A, ["x" * 100])
    assert client.stream.own_bytes == more - grown


def test_names_taken_back_count_until_their_answer_is_answered() -> None:
    view = view_of("c0", {A: {"p": "1"}, B: {}, C: {}})
    client = DeltaClient(view)
    names = ["x" * 500 + str(number) for number in range(20)]
    request = client._request  # noqa: SLF001
    request(type_url=B, resource_names_subscribe=names)
    sent = client.stream.next_response(view)
    assert sent is not None
    assert sent.update.removed
    request(type_url=B, resource_names_unsubscribe=names)
    assert client.stream.own_bytes == bytes_of(sent.update.removed)
    request(type_url=B, response_nonce=sent.nonce)
    assert client.stream.own_bytes == 0


def test_an_empty_wildcard_is_answered() -> None:
    client = DeltaClient(view_of("c0", {A: {"p": "1"}, B: {}, C: {}}))
    client.subscribe(B, ["*"])
    assert client.receive()
    assert not client.unanswered[B].resources


def test_a_first_request_without_names_means_all_where_it_ever_did() -> None:
    client = DeltaClient(view_of("c0", {A: {"p": "1"}, B: {"p": "p"}, C: {}}))
    client.wanted = {A: {"*"}, B: set()}
    client._request(type_url=A)  # noqa: SLF001 - a request that the model has no word for
    client._request(type_url=B)  # noqa: SLF001
    client.settle()
    assert client.held == {A: {"p": "1"}, B: {}, C: {}}
    client.unsubscribe(A, ["*"])
    client._request(type_url=A)  # noqa: SLF001
    client.view = view_of("c1", {A: {"p": "2"}, B: {}, C: {}})
    client.settle()
    assert client.held[A] == {}


def test_what_a_client_has_from_before_is_not_sent_again() -> None:
    content: Content = {A: {"p": "1", "q": "1"}, B: {}, C: {}}
    before = view_of("c0", content)
    client = DeltaClient(view_of("c1", {A: {"p": "1", "q": "2"}, B: {}, C: {}}))
    versions = {name: each.version for name, each in before.resources[A].items()}
    client.held[A] = dict(content[A]) | {"gone": "1"}
    client.wanted = {A: {"*"}, B: {"*"}, C: {"*"}}
    client._request(  # noqa: SLF001 - a request that the model has no word for
        type_url=A,
        resource_names_subscribe=["*"],
        initial_resource_versions=versions | {"gone": "0"},
    )
    claimed = {END: client.view.resources[C][END].version}
    client._request(type_url=B, resource_names_subscribe=["*"])  # noqa: SLF001
    client._request(  # noqa: SLF001
        type_url=C, resource_names_subscribe=["*"], initial_resource_versions=claimed
    )
    assert client.receive()
    assert [each.name for each in client.unanswered[A].resources] == ["q"]
    client.settle()
    assert client.held[A] == {"p": "1", "q": "2"}
    assert client.enforced == ["c1"], "the marker is evidence: a claim of it is not believed"


def test_evidence_is_asked_for_even_if_all_is_claimed() -> None:
    content: Content = {A: {"p": "1"}, B: {"p": "p"}, C: {"p": "p"}}
    client = DeltaClient(view_of("c0", content))
    for url, asked in {A: ["p"], B: ["p"], C: ["p", END]}.items():
        client.wanted[url] = set(asked)
        versions = {name: each.version for name, each in client.view.resources[url].items()}
        client.held[url] = client.wanted_content(url)
        client._request(  # noqa: SLF001 - a request that the model has no word for
            type_url=url, resource_names_subscribe=asked, initial_resource_versions=versions
        )
    assert client.receive()
    assert [each.name for each in client.unanswered[C].resources] == [END]
    client.settle()
    assert client.enforced == ["c0"]


def test_the_marker_comes_again_after_anything_else_came() -> None:
    client = everything({A: {"p": "1"}, B: {}, C: {}})
    client.settle()
    assert client.enforced == ["c0"]
    client.view = view_of("c0", {A: {"p": "2"}, B: {}, C: {}})
    client.settle()
    assert client.enforced == ["c0", "c0"]


def test_a_name_that_the_wildcard_still_covers_is_sent_when_it_is_given_up() -> None:
    client = everything({A: {"p": "1"}, B: {}, C: {}})
    client.subscribe(A, ["p"])
    client.settle()
    client.wanted[A].add("p")
    client.unsubscribe(A, ["p"])
    assert client.receive()
    assert [each.name for each in client.unanswered[A].resources] == ["p"]


def test_what_was_refused_together_is_sent_once_more_alone() -> None:
    client = everything({A: {"p": "1", "q": "2"}, B: {}, C: {}}, refuse_text="2")
    assert client.receive()
    assert len(client.unanswered[A].resources) == 2
    client.answer(A)
    for name in ("p", "q"):
        assert client.receive()
        assert [each.name for each in client.unanswered[A].resources] == [name]
        client.answer(A)
    client.settle()
    assert client.held[A] == {"p": "1"}


def test_a_changed_resource_has_its_namesake_resent() -> None:
    client = everything({A: {"p": "1", "q": "1"}, B: {"p": "p", "q": "q"}, C: {}})
    client.settle()
    client.view = view_of("c1", {A: {"p": "2", "q": "1"}, B: {"p": "p", "q": "r"}, C: {}})
    assert client.receive()
    assert client.receive(), "the ACK of the change itself may wait for this"
    assert [each.name for each in client.unanswered[B].resources] == ["p"]
    client.answer(B)
    assert not client.receive(), "other changes wait for the types before"
    client.settle()
    assert client.held[B] == {"p": "p", "q": "r"}


def test_a_new_name_is_answered_while_what_it_warms_is_unanswered() -> None:
    client = DeltaClient(view_of("c0", {A: {"p": "1"}, B: {"p": "1", "q": "1"}, C: {}}))
    client.subscribe(A, ["*"])
    client.subscribe(B, ["p"])
    client.settle()
    client.view = view_of("c1", {A: {"p": "1", "q": "1"}, B: {"p": "1", "q": "1"}, C: {}})
    assert client.receive()
    client.subscribe(B, ["q"])
    assert client.receive()
    assert [each.name for each in client.unanswered[B].resources] == ["q"]


def test_a_name_asked_for_again_is_sent_again() -> None:
    client = everything({A: {"p": "1"}, B: {}, C: {}})
    client.settle()
    client.subscribe(A, ["p"])
    assert client.receive()
    assert [each.name for each in client.unanswered[A].resources] == ["p"]


def test_a_commit_that_still_has_what_was_refused_before_is_not_called_whole() -> None:
    client = everything({A: {"p": "1"}, B: {}, C: {}}, refuse_text="2")
    client.settle()
    client.view = view_of("c1", {A: {"p": "2"}, B: {}, C: {}})
    client.settle()
    assert client.enforced == ["c0", "c1"], "the client refuses this marker itself: it knows why"
    client.view = view_of("c2", {A: {"p": "2"}, B: {"q": "p"}, C: {}})
    client.settle()
    assert client.held[B] == {"q": "p"}
    assert "c2" not in client.enforced
    client.view = view_of("c3", {A: {"p": "3"}, B: {}, C: {}})
    client.settle()
    assert client.enforced[-1] == "c3"


@dataclass
class StateClient:
    """A client of the other variant, as grpc's own."""

    view: View
    asked: dict[str, list[str]]
    stream: Stream = field(default_factory=lambda: Stream(SERVICE, Limits(), whole_state=True))
    held: Content = field(default_factory=lambda: {A: {}, B: {}, C: {}})
    refuse_text: str | None = None
    versions: list[str] = field(default_factory=list)
    nonces: dict[str, str] = field(default_factory=dict)

    def ask(self, url: str, refusal: str | None = None) -> None:
        request = discovery_pb2.DiscoveryRequest(
            type_url=url, resource_names=self.asked[url], response_nonce=self.nonces.get(url, "")
        )
        if refusal:
            request.error_detail.message = refusal
        state_of_the_world.on_request(self.stream, request)

    def settle(self) -> None:
        for _ in range(100):
            outgoing = self.stream.next_response(self.view)
            if outgoing is None:
                return
            data = state_of_the_world.encode(outgoing)
            self._take(discovery_pb2.DiscoveryResponse.FromString(data))
        raise AssertionError("it never settles")

    def _take(self, response: discovery_pb2.DiscoveryResponse) -> None:
        url, held = response.type_url, {}
        self.nonces[url] = response.nonce
        self.versions.append(response.version_info)
        for each, name in zip(response.resources, self._names(url, response), strict=True):
            value = wrappers_pb2.StringValue()
            assert each.Unpack(value)
            held[name] = value.value
        if self.refuse_text in list(held.values()):
            self.ask(url, "no good")
            return
        self.held[url] = held
        self.ask(url)

    def _names(self, url: str, response: discovery_pb2.DiscoveryResponse) -> list[str]:
        """State of the world carries no names: find them by content, as the type's own field."""
        in_flight = self.stream.subscription(url)[0].in_flight
        assert in_flight is not None
        assert in_flight.nonce == response.nonce
        return [each.name for each in in_flight.update.carried]


@settings(max_examples=100)
@given(contents(), st.lists(contents(), max_size=5))
def test_a_state_of_the_world_client_ends_with_the_newest_view(
    first: Content, later: list[Content]
) -> None:
    client = StateClient(view_of("c0", first), {A: [], B: ["p", "q"], C: ["*"]})
    for url in (A, B, C):
        client.ask(url)
    client.settle()
    for number, content in enumerate([first, *later]):
        client.view = view_of(f"c{number}", content)
        client.settle()
        assert client.held[A] == content[A]
        assert client.held[B] == {n: t for n, t in content[B].items() if n in {"p", "q"}}
        assert client.held[C] == content[C] | {END: f"c{number}"}
        assert client.stream.is_settled(client.view)


def test_a_refused_state_is_not_sent_again_until_it_changes() -> None:
    client = StateClient(view_of("c0", {A: {"p": "2"}, B: {}, C: {}}), {A: ["*"]}, refuse_text="2")
    client.ask(A)
    client.settle()
    assert len(client.versions) == 1
    client.view = view_of("c1", {A: {"p": "2"}, B: {}, C: {}})
    client.settle()
    assert len(client.versions) == 1
    assert not client.stream.is_settled(client.view)
    client.view = view_of("c2", {A: {"p": "1"}, B: {}, C: {}})
    client.settle()
    assert client.held[A] == {"p": "1"}
    assert client.stream.is_settled(client.view)


def test_names_change_with_an_answer_and_a_stale_answer_counts_for_nothing() -> None:
    client = StateClient(view_of("c0", {A: {"p": "1", "q": "1"}, B: {}, C: {}}), {A: ["p"]})
    client.ask(A)
    client.settle()
    assert client.held[A] == {"p": "1"}
    client.asked[A] = ["p", "q"]
    client.ask(A)
    client.settle()
    assert client.held[A] == {"p": "1", "q": "1"}
    newest, client.nonces[A] = client.nonces[A], "0"
    client.asked[A] = []
    client.ask(A)
    client.view = view_of("c1", {A: {"p": "2", "q": "2"}, B: {}, C: {}})
    client.nonces[A] = newest
    client.asked[A] = ["p", "q"]
    client.settle()
    assert client.held[A] == {"p": "2", "q": "2"}
    client.asked[A] = []
    client.ask(A)
    client.view = view_of("c2", {A: {"p": "3", "q": "3"}, B: {}, C: {}})
    client.settle()
    assert client.held[A] == {"p": "2", "q": "2"}, "nothing is asked for any more"
