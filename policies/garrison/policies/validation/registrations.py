"""Registration entries: each can be issued, and no two answer the same caller."""

from __future__ import annotations

from garrison.identity.errors import RejectedError
from garrison.identity.spiffe_id import parse_trust_domain
from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.resources import Placed, RegistrationEntry


def check_registrations(catalogue: Catalogue, diagnostics: Diagnostics) -> None:
    """Find entries that the CA would refuse, and callers that would have two identities."""
    by_selectors: dict[frozenset[str], Placed[RegistrationEntry]] = {}
    for entry in catalogue.entries.values():
        _check_issuable(catalogue, entry, diagnostics)
        first = by_selectors.setdefault(frozenset(entry.value.spec.selectors), entry)
        if first is not entry:
            diagnostics.add(
                entry.place("spec", "selectors"),
                "registration/ambiguous",
                f"the same selectors are at {first.place('spec', 'selectors')}; "
                "whom they match would have two identities, and gets none",
                "add a selector that tells the two apart, or remove one",
            )


def _check_issuable(
    catalogue: Catalogue, entry: Placed[RegistrationEntry], diagnostics: Diagnostics
) -> None:
    for mesh in catalogue.meshes[:1]:
        try:
            entry.value.entry_in(parse_trust_domain(mesh.value.spec.trust_domain))
        except RejectedError as error:
            remedy = "say what the CA can issue"
            diagnostics.add(entry.place("spec"), "registration/refused", str(error), remedy)
