"""What can go wrong before the sidecar runs."""

from garrison.identity.errors import GarrisonError, RejectedError, UnavailableError


class ProxyError(GarrisonError):
    """Base of the errors of this component."""


class ExecutableMissingError(ProxyError, UnavailableError):
    """There is no garrison-proxy to run."""


class UnknownCodeError(ProxyError, RejectedError):
    """What should be explained is no code of the mesh."""
