"""What no resource can say of itself: that names exist, rules reach something, none clash."""

from __future__ import annotations

from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.validation.registrations import check_registrations
from garrison.policies.validation.routes import check_routes
from garrison.policies.validation.services import check_services
from garrison.policies.validation.traffic import check_traffic_policies

__all__ = ["validate"]


def validate(catalogue: Catalogue, diagnostics: Diagnostics) -> None:
    """Check resources against each other; one pass over each kind."""
    check_registrations(catalogue, diagnostics)
    check_services(catalogue, diagnostics)
    check_routes(catalogue, diagnostics)
    check_traffic_policies(catalogue, diagnostics)
