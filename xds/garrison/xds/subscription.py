"""What one client has of one type, and what it is still to get: a state machine without I/O.

For each name the state is what the client was last known to have, and each event moves it:

| event | held | refused | owed |
| --- | --- | --- | --- |
| subscribe | - | forgotten | + name, unless claimed at the start of the stream |
| unsubscribe | forgotten | forgotten | + name if the wildcard still covers it |
| response sent | - | - | its names are answered |
| ACK | the versions sent | forgotten | - |
| NACK of several | - | each is sent once more, alone | - |
| NACK of one | - | that version | - |

A name is sent when it is wanted and its version is neither held nor refused, or when it is owed. At
most one response is in flight; what changes meanwhile is sent, once, after its ACK. So a (name,
version) that was refused alone is not sent again unless the client asks for that name anew.

State of the world differs in one thing only: a response carries all that the client is to have, not
the difference.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from garrison.xds.accounts import bytes_of
from garrison.xds.resource import Resource
from garrison.xds.service import WILDCARD, TypeRule

Resources = Mapping[str, Resource]
NOTHING: Resources = {}


class Phase(enum.Enum):
    """The order within one view: what is new, then what goes, then what says that this was all."""

    CHANGES = enum.auto()
    REMOVALS = enum.auto()
    LAST = enum.auto()


@dataclass(frozen=True, slots=True)
class Update:
    """What one response says: `changed` and `removed` are its reason, `carried` is what travels."""

    phase: Phase
    changed: tuple[Resource, ...]
    removed: tuple[str, ...]
    carried: tuple[Resource, ...]

    @property
    def versions(self) -> dict[str, str | None]:
        """The versions by name of what travels; None for what goes."""
        return {each.name: each.version for each in self.carried} | dict.fromkeys(self.removed)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A response that the client has not answered yet."""

    nonce: str
    label: str
    update: Update


class Subscription:
    """The state of one client's one type."""

    def __init__(self, rule: TypeRule, *, whole_state: bool, part_bytes: int) -> None:
        self.rule = rule
        self.in_flight: InFlight | None = None
        self.last_nonce = ""  # of the newest response; empty: nothing was ever sent
        self._was_named = False
        self._whole_state = whole_state
        self._part_bytes = part_bytes  # of a delta response; the rest follows its ACK
        self._names: set[str] = set()
        self._wildcard = False
        self._answer_due = False  # also if there is nothing: an empty answer ends the client's wait
        self._held: dict[str, str] = {}
        self._kept: dict[str, Resource] = {}  # of state of the world: the bytes of what is held
        self._owed: set[str] = set()
        self._again: set[str] = (
            set()
        )  # as owed, but by our own reason: a refused version stays refused
        self._alone: dict[str, str] = {}
        self._refused: dict[str, tuple[str, str]] = {}  # name to version and label

    # -- What the client asks for ------------------------------------------------------------

    @property
    def name_count(self) -> int:
        """How many names the client makes us remember."""
        return len(self._names | self._owed) + len(self._held)

    def own_bytes(self, known: Resources) -> int:
        """Return about how many bytes we remember that are of the client's making."""
        held = (
            text
            for name, version in self._held.items()
            if name not in known or known[name].version != version
            for text in (name, version)
        )
        return bytes_of((self._names | self._owed) - known.keys()) + bytes_of(held)

    @property
    def given_up_bytes(self) -> int:
        """About how many bytes of names stay with an unanswered response alone.

        A client that takes its names back and never answers must not have us keep them for nothing.
        """
        if self.in_flight is None:
            return 0
        kept = (self._names, self._owed, self._held)
        removed = self.in_flight.update.removed
        return bytes_of(name for name in removed if not any(name in each for each in kept))

    def claim(self, versions: Mapping[str, str], known: Resources = NOTHING) -> None:
        """Believe what a client says that it has, save of what is sent last: that is evidence."""
        for name, version in versions.items():
            ours = known.get(name)
            if name in self.rule.last:
                continue
            if ours is not None and ours.version == version:
                self._held[ours.name] = ours.version  # the view's own strings, which all share
                if self.rule.anew:
                    self._again.add(ours.name)
            else:
                self._held[name] = version

    def subscribe(self, names: Iterable[str], claimed: Iterable[str] = ()) -> None:
        """Add names, or the wildcard; a name that the client already has is sent anew."""
        self._add(self._or_all(set(names)), set(claimed))

    def _or_all(self, names: set[str]) -> set[str]:
        """Return the wildcard for a client that has never named anything, where that means all."""
        self._was_named = self._was_named or bool(names)
        if self.rule.wildcard_if_unnamed and not self._was_named and not self._wildcard:
            return {WILDCARD}
        return names

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Take names or the wildcard away; unknown ones are ignored."""
        for name in names:
            self._was_named = True
            if name == WILDCARD:
                self._wildcard = False
                for other in (self._held.keys() | self._owed) - self._names:
                    self._forget(other)
            elif name in self._names:
                self._names.discard(name)
                self._forget(name)
                if self._wildcard:
                    self._owed.add(name)

    def replace(self, names: Iterable[str]) -> None:
        """Take exactly these names (state of the world)."""
        asked = self._or_all(set(names))
        if asked or self._was_named:
            self.unsubscribe((self._names | {WILDCARD}) - asked)
            self._add(asked - self._names, set())

    def _add(self, asked: set[str], claimed: set[str]) -> None:
        if WILDCARD in asked:
            self._answer_due = self._answer_due or not self._wildcard
            self._wildcard = True
        asked = asked - {WILDCARD}
        self._names |= asked
        self._owed |= asked - claimed
        for name in asked:
            self._refused.pop(name, None)
            self._alone.pop(name, None)

    def send_again(self, names: Iterable[str]) -> None:
        """Send the wanted ones of these once more: something that they hang on has changed."""
        self._again.update(name for name in names if self._wildcard or name in self._names)

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        self._kept.pop(name, None)
        self._refused.pop(name, None)
        self._alone.pop(name, None)
        self._owed.discard(name)
        self._again.discard(name)

    # -- What it is to get -------------------------------------------------------------------

    def pending(
        self,
        phase: Phase,
        resources: Resources,
        *,
        force: bool = False,
        awaited_only: bool = False,
    ) -> Update | None:
        """Return what this phase would send now, or as much of it as one response may carry.

        force: send the last ones whatever is held.
        awaited_only: of the changes, only names that were asked for, or are to be sent again.
        """
        match phase:
            case Phase.CHANGES:
                changed, removed = self._changes(resources, awaited_only=awaited_only)
                due = self._answer_due and not awaited_only
            case Phase.REMOVALS:
                changed, due = (), False
                removed = self._removals(resources)
            case Phase.LAST:
                changed, removed, due = self._last(resources, force=force), (), False
        if not (changed or removed or due):
            return None
        update = Update(phase, changed, removed, changed)
        return (
            replace(update, carried=self._whole(phase, resources)) if self._whole_state else update
        )

    def _wanted(self, resources: Resources) -> Iterable[str]:
        if not self._wildcard:
            return self._names
        return [*resources, *(name for name in self._owed if name not in resources)]

    def _removals(self, resources: Resources) -> tuple[str, ...]:
        gone = [name for name in self._held if name not in resources]
        return tuple(gone if self._whole_state else self._part([], gone)[1])

    def _changes(
        self, resources: Resources, *, awaited_only: bool
    ) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
        fresh: list[Resource] = []
        suspects: list[Resource] = []
        unknown: list[str] = []
        for name in self._wanted(resources):
            if awaited_only and name not in self._owed and name not in self._again:
                continue
            resource = resources.get(name)
            if resource is None:
                if name in self._owed:
                    unknown.append(name)
            elif name not in self.rule.last and self._needs(resource):
                suspected = self._alone.get(name) == resource.version
                (suspects if suspected else fresh).append(resource)
        if not fresh and not unknown:
            fresh = suspects[:1]
        if not self._whole_state:
            fresh, unknown = self._part(fresh, unknown)
        return tuple(fresh), tuple(unknown)

    def _part(
        self, resources: list[Resource], names: list[str]
    ) -> tuple[list[Resource], list[str]]:
        """Return as many as one response may carry, and one at least."""
        sizes = [len(each.body) for each in resources]
        sizes += [4 * len(name) for name in names]  # in UTF-8, at most
        total = itertools.accumulate(sizes)
        fit = max(1, sum(size <= self._part_bytes for size in total))
        return resources[:fit], names[: max(0, fit - len(resources))]

    def _needs(self, resource: Resource) -> bool:
        if resource.name in self._owed:
            return True
        if self._refused.get(resource.name, ("", ""))[0] == resource.version:
            return False
        return resource.name in self._again or self._held.get(resource.name) != resource.version

    def _last(self, resources: Resources, *, force: bool) -> tuple[Resource, ...]:
        wanted = self.rule.last if self._wildcard else self.rule.last & self._names
        found = [resources[name] for name in sorted(wanted) if name in resources]
        return tuple(found) if force or any(map(self._needs, found)) else ()

    def _whole(self, phase: Phase, resources: Resources) -> tuple[Resource, ...]:
        """Return all that the client is to have: what will go stays until its phase has come."""
        kept_back = frozenset() if phase is Phase.LAST else self.rule.last
        new = [
            resources[name]
            for name in self._wanted(resources)
            if name in resources and name not in kept_back
        ]
        old = [
            each
            for name, each in self._kept.items()
            if name in kept_back or (phase is Phase.CHANGES and name not in resources)
        ]
        return (*new, *old)

    # -- What became of it -------------------------------------------------------------------

    def sent(self, update: Update, nonce: str, label: str) -> None:
        """Remember the response that is in flight now."""
        self.in_flight = InFlight(nonce, label, update)
        self.last_nonce = nonce
        if update.phase is Phase.CHANGES:
            self._answer_due = False
        for name in (*(each.name for each in update.carried), *update.removed):
            self._owed.discard(name)
            self._again.discard(name)

    def acknowledge(self, nonce: str) -> InFlight | None:
        """Take an ACK; None if it answers nothing that is in flight."""
        answered = self._answered(nonce)
        if answered is None:
            return None
        for each in answered.update.carried:
            if self._wildcard or each.name in self._names:
                self._held[each.name] = each.version
                if self._whole_state:
                    self._kept[each.name] = each
            self._refused.pop(each.name, None)
            self._alone.pop(each.name, None)
        self._drop(answered.update.removed)
        return answered

    def refuse(self, nonce: str) -> InFlight | None:
        """Take a NACK; None if it answers nothing that is in flight."""
        answered = self._answered(nonce)
        if answered is None:
            return None
        changed = answered.update.changed
        if len(changed) > 1 and not self._whole_state and answered.update.phase is Phase.CHANGES:
            self._alone.update((each.name, each.version) for each in changed)
        else:
            self._refused.update((each.name, (each.version, answered.label)) for each in changed)
        self._drop(answered.update.removed)
        return answered

    def refusals(self, resources: Resources) -> set[str]:
        """Return the labels under which versions were refused that the client should have."""
        return {
            label
            for name, (version, label) in self._refused.items()
            if name in resources and resources[name].version == version
        }

    def _answered(self, nonce: str) -> InFlight | None:
        answered = self.in_flight
        if answered is None or answered.nonce != nonce:
            return None
        self.in_flight = None
        return answered

    def _drop(self, names: Iterable[str]) -> None:
        """Forget what the client does not have any more."""
        for name in names:
            self._held.pop(name, None)
            self._kept.pop(name, None)
