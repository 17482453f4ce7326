"""All subscriptions of one client, and which response may go next: make before break, without I/O.

Types are sent in the order of the service. A type waits until nothing of the types before it is
pending or unanswered, save for its first response, for which a starting client waits, and for what
a type `warms`. Removals go when all changes were taken, in reverse order; what is `last` goes when
nothing else is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import grpc

from garrison.xds.client import Acknowledged, Refused, StreamRefusedError
from garrison.xds.resource import View
from garrison.xds.service import Limits, Service, TypeRule
from garrison.xds.subscription import NOTHING, Phase, Resources, Subscription, Update


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A response to be encoded: the update, and what the protocol puts around it."""

    type_url: str
    nonce: str
    label: str
    update: Update


class Stream:
    """The state of one stream over all types of a service."""

    def __init__(self, service: Service, limits: Limits, *, whole_state: bool) -> None:
        self._service = service
        self._limits = limits
        self._whole_state = whole_state
        self._subscriptions: dict[str, Subscription] = {}
        self._nonces = itertools.count(1)
        self._sent_since_last = False
        self._idle: View | None = None  # for which nothing is left to send
        self._own_bytes: dict[str, int] = {}
        self.view = View("", {})  # the newest that we know of

    @property
    def own_bytes(self) -> int:
        """About how many bytes we remember that are of the client's making."""
        given_up = sum(each.given_up_bytes for each in self._subscriptions.values())
        return sum(self._own_bytes.values()) + given_up

    def known(self, subscription: Subscription) -> Resources:
        """Return what there is of a subscription's type."""
        return self.view.resources.get(subscription.rule.url, NOTHING)

    def subscription(self, type_url: str) -> tuple[Subscription, bool]:
        """Return the subscription that a request is about, and whether the request is its first.

        Raises `StreamRefusedError` for a type that this service does not have.
        """
        self._idle = None
        if not type_url and len(self._service.types) == 1:
            type_url = self._service.types[0].url
        known = self._subscriptions.get(type_url)
        if known is not None:
            return known, False
        made = Subscription(
            self._rule(type_url),
            whole_state=self._whole_state,
            part_bytes=self._limits.response_bytes,
        )
        self._subscriptions[type_url] = made
        return made, True

    def check_names(self, *asked: Iterable[str]) -> None:
        """Raise `StreamRefusedError` for a name or version that is longer than any real one."""
        longest = self._limits.name_characters
        if any(len(each) > longest for each in itertools.chain(*asked)):
            text = f"a name or version of over {longest} characters"
            raise StreamRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def check_size(self, subscription: Subscription) -> None:
        """Raise `StreamRefusedError` if the client makes us remember too much."""
        if subscription.name_count > 2 * self._limits.names:
            text = f"more than {self._limits.names} names of {subscription.rule.url}"
            raise StreamRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        own_bytes = subscription.own_bytes(self.known(subscription))
        self._own_bytes[subscription.rule.url] = own_bytes

    def answer(
        self, subscription: Subscription, nonce: str, refusal: str | None
    ) -> Acknowledged | Refused | None:
        """Take an ACK, or a NACK with its reason; None if it answers nothing that is in flight."""
        url = subscription.rule.url
        if refusal is None:
            taken = subscription.acknowledge(nonce)
            return Acknowledged(url, taken.label, taken.update.versions) if taken else None
        refused = subscription.refuse(nonce)
        reason = refusal[: self._limits.reason_characters]
        return Refused(url, refused.label, refused.update.versions, reason) if refused else None

    def next_response(self, view: View) -> Outgoing | None:
        """Return what may go now, taken as sent; None until a request or another view comes."""
        self.view = view
        if view is self._idle:
            return None
        for phase in Phase:
            found = self._next_of(phase, view)
            if found is not None:
                return self._sent(*found, view)
            if any(each.in_flight for each in self._subscriptions.values()):
                return None
        self._idle = view
        return None

    def is_settled(self, view: View) -> bool:
        """Tell whether the client has taken all that it subscribed to of this view."""
        return (
            self._idle is view
            and bool(self._subscriptions)
            and not any(
                each.in_flight or each.refusals(view.resources.get(url, NOTHING))
                for url, each in self._subscriptions.items()
            )
        )

    def _rule(self, type_url: str) -> TypeRule:
        for rule in self._service.types:
            if rule.url == type_url:
                return rule
        text = f"type {type_url[:200]!r} is not served by {self._service.method.service}"
        raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)

    def _ordered(self, phase: Phase) -> Iterable[Subscription]:
        rules = self._service.types if phase is not Phase.REMOVALS else self._service.types[::-1]
        return [self._subscriptions[r.url] for r in rules if r.url in self._subscriptions]

    def _next_of(self, phase: Phase, view: View) -> tuple[Subscription, Update] | None:
        if phase is Phase.LAST and not self._may_end(view):
            return None
        unanswered: set[str] = set()  # types before
        for subscription in self._ordered(phase):
            rule = subscription.rule
            if subscription.in_flight:
                unanswered.add(rule.url)
                continue
            is_first = not subscription.last_nonce and phase is Phase.CHANGES
            warms = phase is Phase.CHANGES and unanswered == {rule.warms}
            if unanswered and not is_first and not warms:
                continue
            update = subscription.pending(
                phase,
                view.resources.get(rule.url, NOTHING),
                force=self._sent_since_last,
                awaited_only=warms and not is_first,
            )
            if update is not None:
                return subscription, update
        return None

    def _may_end(self, view: View) -> bool:
        """Tell whether the last ones may go: to a client of all types that knows what it lacks.

        What was refused under this label the client knows of. What was refused under an earlier one
        is not sent again, so the client could take this view for whole: it is told nothing.
        """
        return len(self._subscriptions) == len(self._service.types) and not any(
            each.refusals(view.resources.get(url, NOTHING)) - {view.label}
            for url, each in self._subscriptions.items()
        )

    def _sent(self, subscription: Subscription, update: Update, view: View) -> Outgoing:
        nonce = str(next(self._nonces))
        subscription.sent(update, nonce, view.label)
        self._sent_since_last = update.phase is not Phase.LAST
        for rule in self._service.types:
            dependent = self._subscriptions.get(rule.url)
            if rule.warms == subscription.rule.url and dependent is not None:
                dependent.send_again(each.name for each in update.changed)
        return Outgoing(subscription.rule.url, nonce, view.label, update)
