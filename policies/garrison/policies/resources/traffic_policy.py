"""`TrafficPolicy`: how callers balance, eject and limit. A field that is not here is not built.

Named as in Envoy Gateway where it has the same thing, since people know those words.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from garrison.policies.resources.fields import Label, Metadata, PositiveDuration, Shape

Algorithm = Literal["LeastLatency", "RoundRobin", "Random"]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Percent = Annotated[int, Field(ge=1, le=100)]


class TargetRef(Shape):
    """A service, or version, of the policy's own namespace."""

    group: Literal["garrison.dev", ""]
    kind: Literal["Service"]
    name: Label


class LoadBalancing(Shape):
    """How an endpoint is chosen."""

    algorithm: Algorithm = Field(
        default="LeastLatency",
        description="LeastLatency: the better of two, by latency and requests under way.",
    )


class OutlierDetection(Shape):
    """When an endpoint that fails is left alone, and for how long."""

    consecutive_errors: Annotated[int, Field(ge=1, le=1000)] = 5
    interval: PositiveDuration = timedelta(seconds=5)
    base_ejection_time: PositiveDuration = timedelta(seconds=10)
    max_ejection_time: PositiveDuration = timedelta(seconds=300)
    max_ejection_percent: Percent = 50

    @model_validator(mode="after")
    def _in_order(self) -> OutlierDetection:
        if self.max_ejection_time < self.base_ejection_time:
            raise ValueError("maxEjectionTime is below baseEjectionTime")
        return self


class RetryBudget(Shape):
    """Retries may be `percent` of the active requests; `minConcurrency` are always allowed."""

    percent: Percent = 20
    min_concurrency: Annotated[int, Field(ge=0, le=1000)] = 3


class Circuit(Shape):
    """Limits of one caller's sidecar towards the service; beyond them it fails at once."""

    max_connections: Count = 1024
    max_pending_requests: Count = 1024
    max_requests: Count = 1024
    retry_budget: RetryBudget = RetryBudget()


class TrafficSettings(Shape):
    """Whatever is left out has the default of its field, as has a service without a policy."""

    load_balancing: LoadBalancing = LoadBalancing()
    outlier_detection: OutlierDetection = OutlierDetection()
    circuit: Circuit = Circuit()
    connect_timeout: PositiveDuration = timedelta(seconds=1)


class TrafficPolicySpec(TrafficSettings):
    """The settings, and whose they are."""

    target_refs: tuple[TargetRef, ...] = Field(min_length=1, max_length=256)


class TrafficPolicy(Shape):
    """How callers treat a service's endpoints."""

    api_version: Literal["garrison.dev/v1"]
    kind: Literal["TrafficPolicy"]
    metadata: Metadata
    spec: TrafficPolicySpec
