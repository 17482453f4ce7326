"""Authorization: a Casbin model and its policy lines, compiled into rules named after them."""

from garrison.authz.compiled import Compiled, Rules, compile_authorization
from garrison.authz.errors import (
    AuthorizationRefusedError,
    AuthzError,
    Diagnostic,
    UnknownDestinationError,
)
from garrison.authz.explain import Explanation, NearMiss
from garrison.authz.policy import DEFAULT_MODEL
from garrison.authz.schema import Request
from garrison.authz.sources import AuthorizationSources, Place, SourceFile

__all__ = [
    "DEFAULT_MODEL",
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
