"""The CA's metrics, read from its state when they are asked for. Labels come from configuration."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from garrison.ca.status import CaStatus

NAMES = "garrison_ca"


def exposition(status: CaStatus) -> bytes:
    """Return all metrics in Prometheus' text format. Blocks on the store."""
    registry = CollectorRegistry()
    registry.register(_Reading(status))
    return generate_latest(registry)


class _Reading(Collector):
    def __init__(self, status: CaStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status
        yield _gauge("ready", "Whether certificates can be issued.", not status.lacking())
        yield from self._expiries()
        yield self._requests()
        yield _gauge("bundle_sequence", "Of the trust bundle.", status.bundles.bundle.sequence)
        entries = len(status.entries.current.entries) if status.entries.current else 0
        yield _gauge("entries", "Registration entries in force.", entries)
        trouble = status.entries.problem is not None
        yield _gauge("entries_stale", "Whether the newest commit was not taken.", trouble)
        live = status.live_identities()
        yield _gauge("live_identities", "Identities with a certificate in use.", len(live))
        certificates = sum(each.certificates for each in live)
        yield _gauge("live_svids", "Certificates that have not expired.", certificates)
        yield self._bundle_clients()
        yield self._key_ages()

    def _expiries(self) -> Iterable[Metric]:
        authority, svid = self._status.authority, self._status.credentials.svid
        certificates = {"issuing_key": authority.issuing, "root": authority.root}
        if svid is not None:
            certificates["serving_svid"] = svid.leaf
        for name, certificate in certificates.items():
            at = certificate.not_valid_after_utc.timestamp()
            text = "When it expires, in seconds since 1970."
            yield _gauge(f"{name}_expiry_timestamp_seconds", text, at)

    def _requests(self) -> Metric:
        requests = CounterMetricFamily(
            f"{NAMES}_requests", "Requests for a certificate, by outcome.", labels=["outcome"]
        )
        for outcome, number in self._status.tally.counts.items():
            requests.add_metric([outcome.value], number)
        return requests

    def _bundle_clients(self) -> Metric:
        holders, version = self._status.bundles.holders.all, self._status.bundles.version
        clients = GaugeMetricFamily(
            f"{NAMES}_bundle_clients",
            "Connected clients, by whether they acknowledged the current bundle.",
            labels=["in_sync"],
        )
        in_sync = sum(holder.bundle_version == version for holder in holders)
        clients.add_metric(["true"], in_sync)
        clients.add_metric(["false"], len(holders) - in_sync)
        return clients

    def _key_ages(self) -> Metric:
        ages = GaugeMetricFamily(
            f"{NAMES}_issuer_keys_age_seconds",
            "Since a token issuer's keys were last confirmed; absent if they never were.",
            labels=["attestor"],
        )
        for keys in self._status.keys:
            age = keys.source.age()
            if age is not None:
                ages.add_metric([keys.attestor], age.total_seconds())
        return ages


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{NAMES}_{name}", text, value=float(value))
