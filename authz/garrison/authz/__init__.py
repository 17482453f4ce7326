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
from garrison.authz.witness import Coverage, DisagreementError, check_against_casbin

__all__ = [
    "DEFAULT_MODEL",
    "AuthorizationRefusedError",
    "AuthorizationSources",
    "AuthzError",
    "Compiled",
    "Coverage",
    "Diagnostic",
    "DisagreementError",
    "Explanation",
    "NearMiss",
    "Place",
    "Request",
    "Rules",
    "SourceFile",
    "UnknownDestinationError",
    "check_against_casbin",
    "compile_authorization",
]
