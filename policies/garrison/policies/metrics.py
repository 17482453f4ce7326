"""The policy server's metrics, read from its state when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from garrison.policies.convergence import Census, kind_of
from garrison.policies.publication import Publication

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Measured(Protocol):
    """What is measured."""

    @property
    def census(self) -> Census:
        """The connected clients."""

    @property
    def publication(self) -> Publication:
        """What is served."""

    def lacking(self) -> list[str]:
        """Return what keeps the server from serving."""

    def svid_expires_at(self) -> datetime | None:
        """Return when its own SVID expires."""


def exposition(measured: Measured) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Reading(measured))
    return generate_latest(registry)


class _Reading(Collector):
    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterable[Metric]:
        measured, publication = self._measured, self._measured.publication
        yield _gauge("ready", "Whether sidecars are served.", not measured.lacking())
        yield _gauge("commit_refused", "Whether the newest commit is bad.", publication.refusal)
        yield _gauge("repository_unavailable", "Whether it cannot be read.", publication.trouble)
        expires_at = measured.svid_expires_at()
        if expires_at:
            name = "svid_expiry_timestamp_seconds"
            yield _gauge(name, "When the server's own SVID expires.", expires_at.timestamp())
        if publication.current:
            commit = InfoMetricFamily("garrison_policy_commit", "The commit that is served.")
            commit.add_metric([], {"commit": publication.current.snapshot.commit})
            yield commit
            name = "commit_published_timestamp_seconds"
            at = publication.current.at.timestamp()
            yield _gauge(name, "When the commit that is served was published.", at)
        yield _nacks(measured.census)
        yield _clients(measured.census, publication.commit)
        text = "Clients that went away in the last hour and have not come back."
        yield _gauge("clients_gone", text, float(len(measured.census.gone)))


def _gauge(name: str, text: str, value: object) -> Metric:
    number = value if isinstance(value, float) else float(bool(value))
    return GaugeMetricFamily(f"garrison_policy_{name}", text, value=number)


def _nacks(census: Census) -> Metric:
    name = "garrison_policy_nacks"
    return CounterMetricFamily(name, "Responses that clients refused.", value=census.nacks)


def _clients(census: Census, commit: str | None) -> Metric:
    counted = Counter((kind_of(each.client), each.enforces(commit)) for each in census.standings)
    clients = GaugeMetricFamily(
        "garrison_policy_clients",
        "Connected clients, by whether they are known to enforce the commit that is served.",
        labels=["kind", "in_sync"],
    )
    for (kind, in_sync), number in counted.items():
        clients.add_metric([kind, str(in_sync).lower()], number)
    return clients
