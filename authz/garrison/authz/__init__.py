"""Authorization: a Casbin model and its policy lines, compiled into rules named after them."""

from garrison.authz.compiled import Compiled, Explanation, NearMiss, Rules, compile_authorization
from garrison.authz.errors import (
    AuthorizationRefusedError,
    AuthzError,
    Diagnostic,
    UnknownDestinationError,
)
from garrison.authz.schema import Request
from garrison.authz.sources import AuthorizationSources, Place, SourceFile

__all__ = [
    "AuthorizationRefusedError",
    "AuthorizationSources",
    "AuthzError",
    "Compiled",
    "Diagnostic",
    "Explanation",
    "NearMiss",
    "Place",
    "Request",
    "Rules",
    "SourceFile",
    "UnknownDestinationError",
    "compile_authorization",
]
