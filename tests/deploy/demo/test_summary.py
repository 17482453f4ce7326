"""What the demo tells, to people and to scripts."""

from __future__ import annotations

import io
import json
import re

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


def test_terminal_keeps_what_was_told_whole() -> None:
    """Also where it is narrow, and where it has fewer lines than there is to tell."""
    for width in (80, 120):
        written = io.StringIO()
        shown = Show(Console(file=written, force_terminal=True, width=width, height=10))
        detail = " ".join(f"word{number}" for number in range(40))
        with shown.running():
            for number in range(10):
                shown.doing(f"scene {number}")
                shown.checked(Check(f"check-{number}", ok=number != 3, detail=detail))
            shown.summed_up()
        lines = [
            re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in written.getvalue().split("\n")
        ]
        assert max(len(line.rpartition("\r")[2].rstrip()) for line in lines) <= width
        told = " ".join("".join(f"{line} " for line in lines).split())
        assert told.count(detail) == 10
        assert "✘ FAILED check-3" in told
        assert "9 of 10 checks passed" in told


def test_commands_are_told_whole_on_a_narrow_terminal() -> None:
    written = io.StringIO()
    command = "curl " + "x" * 200
    Show(Console(file=written, width=80)).suggest({"do [this]": command})
    assert f"  # do [this]\n  {command}\n" in written.getvalue()
