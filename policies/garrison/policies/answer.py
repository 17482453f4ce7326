"""What happens to a request, and how it is told to a person and to a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spiffe import SpiffeId

from garrison.authz import Explanation
from garrison.policies.resources.fields import Name
from garrison.policies.routing import NearRoute, Routed

NO_ROUTE = "outbound/no-route"
UNKNOWN_SERVICE = "outbound/unknown-service"


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to a request.

    `code` is set where the caller's own sidecar answers, before any rule is asked.
    """

    commit: str
    source: SpiffeId
    service: Name
    method: str
    path: str
    route: Routed | None
    nearest_routes: tuple[NearRoute, ...]
    decisions: Mapping[Name, Explanation]
    code: str | None
    notes: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Tell whether every destination that the request may be sent to allows it."""
        decided = [decision.allowed for decision in self.decisions.values()]
        return self.code is None and bool(decided) and all(decided)


def as_json(answer: Answer) -> dict[str, object]:
    """Return the form that `--json` prints; `rule`, `text`, `nearest` are of the deciding place."""
    deciding = _deciding(answer)
    return {
        "allowed": answer.allowed,
        "commit": answer.commit,
        "from": str(answer.source),
        "to": str(answer.service),
        "method": answer.method,
        "path": answer.path,
        "code": answer.code,
        "rule": deciding.rule if deciding else None,
        "text": deciding.text if deciding else None,
        "nearest": _nearest(deciding) if deciding else [],
        "route": answer.route
        and {
            "name": answer.route.name,
            "place": answer.route.rule and answer.route.rule.place,
            "clusters": [
                {"name": str(backend.service), "weight": backend.weight}
                for backend in answer.route.backends
            ],
        },
        "nearest_routes": [
            {"name": each.name, "place": each.place, "differs": list(each.differs)}
            for each in answer.nearest_routes
        ],
        "destinations": [
            {
                "service": str(name),
                "allowed": each.allowed,
                "rule": each.rule,
                "text": each.text,
                "nearest": _nearest(each),
            }
            for name, each in answer.decisions.items()
        ],
        "notes": list(answer.notes),
    }


def _deciding(answer: Answer) -> Explanation | None:
    decisions = list(answer.decisions.values())
    return next(
        (each for each in decisions if not each.allowed), decisions[0] if decisions else None
    )


def _nearest(explanation: Explanation) -> list[dict[str, object]]:
    return [
        {
            "rule": miss.rule,
            "text": miss.text,
            "effect": miss.effect,
            "differs": list(miss.differs),
        }
        for miss in explanation.nearest
    ]


def as_text(answer: Answer) -> str:
    """Return the form for people."""
    verdict = "allow" if answer.allowed else "deny"
    lines = [f"{verdict}: {answer.source} -> {answer.service} {answer.method} {answer.path}"]
    if answer.code:
        more = f"`garrison explain {answer.code}` says more"
        lines.append(f"  the caller's own sidecar answers {answer.code}; {more}")
    for name, decision in answer.decisions.items():
        lines += _text_of_decision(name, decision)
    if answer.route:
        lines += _text_of_route(answer.route)
    for near in answer.nearest_routes:
        lines.append(f"  not routed by {near.name} ({near.place}): {'; '.join(near.differs)}")
    lines += [f"  note: {note}" for note in answer.notes]
    lines.append(f"  commit {answer.commit[:12]}")
    return "\n".join(lines)


def _text_of_decision(name: Name, decision: Explanation) -> Iterator[str]:
    if decision.rule:
        yield f"  at {name}: {decision.rule}: {decision.text}"
        return
    yield f"  at {name}: no line allows it" + ("; the nearest:" if decision.nearest else "")
    for miss in decision.nearest:
        yield f"    {miss.rule}: {miss.text}"
        yield f"      differs in {'; '.join(miss.differs)}"


def _text_of_route(route: Routed) -> Iterator[str]:
    where = route.rule.place if route.rule else "there is no HTTPRoute"
    yield f"  route {route.name} ({where})"
    total = sum(backend.weight for backend in route.backends)
    for backend in route.backends:
        yield f"    cluster {backend.service}: {backend.weight} of {total}"
