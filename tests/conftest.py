"""What every test may rely on."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# How long an example takes says how busy the machine is; `timeout` bounds each test.
settings.register_profile("garrison", deadline=None)
settings.load_profile("garrison")

ROOT = Path(__file__).parent.parent

# A shell that runs us in the background has us ignore Ctrl-C, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test is a failure where everything is meant to be there."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, and CI skips nothing: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logs_end_with_the_test() -> Iterator[None]:
    """A command run by a test logs to that test's stderr, which is closed afterwards."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_remembered_outside(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what servers remember by default from the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def envoy_executable() -> Path:
    """Stock Envoy, which `make test` puts beside the environment."""
    default = ROOT / ".venv" / "peers" / "envoy" / "_bin" / "envoy"
    executable = Path(os.environ.get("GARRISON_ENVOY", default))
    if not executable.exists():
        pytest.skip("Envoy is not installed: make .venv/peers/.locked")
    return executable
