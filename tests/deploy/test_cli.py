"""The command tree: what it mounts, and what becomes of errors."""

from __future__ import annotations

import click
import pytest

from garrison.deploy import cli
from garrison.identity.errors import RejectedError, UnavailableError


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in cli.MOUNTED)


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"]])
def test_unknown_word_is_told_in_one_message(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == cli.MISTAKE
    told = capsys.readouterr().err
    assert arguments[0] in told
    assert "Traceback" not in told


def run_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    @click.command
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.CommandTree, "get_command", lambda *_: failing)
    return cli.run([*options, "check"])


def test_mistake_of_the_user_is_told_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(RejectedError("x.toml: not TOML"), monkeypatch) == cli.MISTAKE
    assert capsys.readouterr().err == "garrison: x.toml: not TOML\n"


def test_mistakes_of_several_tasks_are_told_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [RejectedError("one"), ExceptionGroup("inner", [UnavailableError("two")])]
    assert run_raising(ExceptionGroup("tasks", errors), monkeypatch) == cli.MISTAKE
    assert capsys.readouterr().err == "garrison: one\ngarrison: two\n"


def test_error_of_our_own_is_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(ZeroDivisionError("bug"), monkeypatch) == cli.MISTAKE
    told = capsys.readouterr().err
    assert "an error of its own: ZeroDivisionError('bug')" in told
    assert "Traceback" not in told
    run_raising(ZeroDivisionError("bug"), monkeypatch, "--debug")
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_ends_with_the_status_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_raising(KeyboardInterrupt(), monkeypatch) == cli.INTERRUPTED
