"""What the demo tells, to people and to scripts."""

from __future__ import annotations

import io
import json

from rich.console import Console

from garrison.deploy.demo.summary import Check, Show

GOOD = Check("allowed-call", ok=True, detail="web read a [book]")
BAD = Check("denied-call", ok=False, detail="nobody refused")


def show(*, terminal: bool = False) -> tuple[Show, io.StringIO]:
    written = io.StringIO()
    return Show(Console(file=written, force_terminal=terminal, width=120)), written


def test_report_is_json_of_all_checks() -> None:
    shown, _ = show()
    shown.checked(GOOD)
    shown.checked(BAD)
    assert json.loads(shown.report()) == {
        "checks": [
            {"name": "allowed-call", "ok": True, "detail": "web read a [book]"},
            {"name": "denied-call", "ok": False, "detail": "nobody refused"},
        ],
        "ok": False,
    }


def test_one_failure_or_nothing_shown_is_not_ok() -> None:
    shown, _ = show()
    assert not shown.ok
    shown.checked(GOOD)
    assert shown.ok
    shown.checked(BAD)
    assert not shown.ok


def test_plain_output_has_a_line_for_each_check() -> None:
    shown, written = show()
    with shown.running():
        shown.doing("starting")
        shown.checked(GOOD)
        shown.checked(BAD)
    assert written.getvalue().splitlines() == [
        "... starting",
        "ok      allowed-call: web read a [book]",
        "FAILED  denied-call: nobody refused",
    ]


def test_terminal_shows_a_table_that_stays() -> None:
    shown, written = show(terminal=True)
    with shown.running():
        shown.doing("starting")
        shown.checked(GOOD)
    assert "web read a [book]" in written.getvalue()
