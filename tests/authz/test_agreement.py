"""Compiled rules and pycasbin agree on generated models, policies and requests: as Python reads
them, as garrison-proxy does and as a live Envoy does. One generator, one verdict, three judges.

Each judge makes 100,000 decisions; `make test-long` has it make a million, from another seed each
time (`agreement`). garrison-proxy is not asked about models with addresses, nor Envoy about
addresses that are not this machine's: they are made beyond that number.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.authz.agreement import DECISIONS, SEED, Judge, hold_against_casbin, rounds
from tests.authz.judges import proxy, python
from tests.authz.live_envoy import Certificates, running

BATCHES = 8
PER_BATCH = -(-DECISIONS // BATCHES)
AT_ONCE = 12_500  # decisions whose policies one Envoy holds


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_reading_agrees_with_casbin(
    batch: int, envoy_executable: Path, tmp_path: Path
) -> None:
    random = Random(f"{SEED}/{batch}")
    certificates = Certificates(tmp_path)
    decisions: Counter[str] = Counter()
    with proxy() as garrison_proxy:
        for start in range(0, PER_BATCH, AT_ONCE):
            made = list(rounds(random, min(AT_ONCE, PER_BATCH - start)))
            with running(envoy_executable, certificates, [each.rules for each in made]) as envoy:
                judges: dict[str, Judge] = {
                    "python": python,
                    "garrison-proxy": garrison_proxy,
                    "envoy": envoy,
                }
                for name, judge in judges.items():
                    decisions[name] += hold_against_casbin(judge, made)
    assert len(decisions) == 3
    assert min(decisions.values()) >= PER_BATCH, decisions
