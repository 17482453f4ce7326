"""Authorization rules as the two extension configurations of a destination, deny before allow."""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2
from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2

from garrison.policies.compile.wire import packed
from garrison.policies.resources.fields import Name


def deny_name(service: Name) -> str:
    """Name the deny rules of a service."""
    return f"authz/{service}/deny"


def allow_name(service: Name) -> str:
    """Name the allow rules of a service."""
    return f"authz/{service}/allow"


def rules(name: str, rbac: rules_pb2.RBAC) -> extension_pb2.TypedExtensionConfig:
    """Wrap rules. They are set even when empty: absent, Envoy would enforce nothing."""
    wrapped = rbac_pb2.RBAC()
    wrapped.rules.CopyFrom(rbac)
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(wrapped))
