"""Who gets how many calls, by the algorithm that a TrafficPolicy names."""

from __future__ import annotations

from math import sqrt

from tests.e2e.traffic.lab import CALM, Lab, route, to, traffic_policy


def algorithm(name: str) -> dict[str, object]:
    return traffic_policy(loadBalancing={"algorithm": name}, outlierDetection=CALM)


def deviation(calls: int, share: float) -> float:
    return sqrt(calls * share * (1 - share))


def test_a_slow_instance_gets_less_than_its_share(lab: Lab) -> None:
    lab.enforce(algorithm("LeastLatency"), route(to("echo-slow")))
    lab.echoes["a"].delay = 0.3
    calls = 120
    answered = lab.versions(calls)
    assert answered["a"] < calls / 3 - 6 * deviation(calls, 1 / 3), answered
    assert min(answered["b"], answered["c"]) > 0


def test_a_slow_instance_has_its_turn_like_others(lab: Lab) -> None:
    lab.enforce(algorithm("RoundRobin"))
    lab.echoes["a"].delay = 0.05
    assert lab.versions(30) == {"a": 10, "b": 10, "c": 10}


def test_chance_gives_each_its_share(lab: Lab) -> None:
    lab.enforce(algorithm("Random"))
    calls = 300
    answered = lab.versions(calls)
    for version in lab.echoes:
        assert abs(answered[version] - calls / 3) < 6 * deviation(calls, 1 / 3), answered
    assert answered != {"a": 100, "b": 100, "c": 100} or lab.versions(calls) != answered


def test_an_ejected_instances_share_goes_to_all_others(lab: Lab) -> None:
    strict = {"consecutiveErrors": 1, "baseEjectionTime": "60s", "maxEjectionTime": "60s"}
    strict_policy = traffic_policy(outlierDetection=strict)
    lab.enforce(strict_policy, route(to("echo-ejected"), idempotent=True))
    lab.echoes["a"].status = 503
    lab.mesh.until(
        lambda: lab.get().status and lab.counted("ejected_endpoints", "lab/echo-ejected")
    )
    assert lab.versions(20) == {"b": 10, "c": 10}
