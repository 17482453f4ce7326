"""Mistakes that every command can meet: words, settings files, the environment."""

from __future__ import annotations

import pytest

from garrison.deploy.cli import MOUNTED
from tests.mistakes.place import Place, assert_told, ended, refusal

COMMANDS = (
    "", "ca", "ca init", "ca serve", "ca status", "policy", "policy serve", "check", "explain",
    "status", "proxy", "config", "config check", "demo",
    "garrison-proxy", "garrison-proxy run", "garrison-proxy settings", "garrison-proxy validate",
    "garrison-proxy decide", "garrison-proxy canonicalize",
)  # fmt: skip
WITH_SETTINGS = {
    "ca init --config": "ca.toml",
    "ca serve --config": "ca.toml",
    "ca status --config": "ca.toml",
    "policy serve --config": "policy.toml",
    "proxy --config": "sidecar.toml",
    "config check --kind ca": "ca.toml",
    "config check --kind policy": "policy.toml",
    "config check --kind proxy": "sidecar.toml",
    "garrison-proxy run --config": "sidecar.toml",
    "garrison-proxy settings --config": "sidecar.toml",
}


def test_every_command_is_tried() -> None:
    assert MOUNTED.keys() == {command.partition(" ")[0] for command in COMMANDS} - {
        "",
        "garrison-proxy",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option_is_named(place: Place, command: str) -> None:
    said = refusal(place, *command.split(), "--bogus")
    assert_told(said, place, "--bogus", "--help")


@pytest.mark.parametrize("command", ["", "ca", "policy", "config", "garrison-proxy"])
def test_unknown_command_is_named(place: Place, command: str) -> None:
    assert_told(refusal(place, *command.split(), "bogus"), place, "bogus", "--help")


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_settings_file_that_is_not_there_is_named(place: Place, command: str) -> None:
    assert_told(refusal(place, *command.split(), "absent.toml"), place, "absent.toml")


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_settings_file_that_is_a_folder_is_named(place: Place, command: str) -> None:
    said = refusal(place, *command.split(), "folder")
    assert_told(said, place, "'folder'" if "'folder'" in said else "folder", "irectory")


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_settings_file_that_may_not_be_read_is_named(place: Place, command: str) -> None:
    config = WITH_SETTINGS[command]
    unreadable = place.folder / config
    text = unreadable.read_text()
    unreadable.chmod(0)
    try:
        said = refusal(place.heeding_modes(), *command.split(), config)
    finally:
        unreadable.chmod(0o600)
    assert_told(said, place, config)
    assert "readable" in said or "ermission denied" in said
    assert unreadable.read_text() == text


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_broken_toml_is_named_with_its_line(place: Place, command: str) -> None:
    config = WITH_SETTINGS[command]
    text = (place.folder / config).read_text()
    (place.folder / config).write_text("# a comment\nbroken = [ =\n" + text)
    said = refusal(place, *command.split(), config)
    assert_told(said, place, config)
    assert "line 2" in said or f"{config}:2" in said


@pytest.mark.parametrize("command", [each for each in WITH_SETTINGS if each != "ca init --config"])
def test_unknown_setting_is_named(place: Place, command: str) -> None:
    config = WITH_SETTINGS[command]
    text = (place.folder / config).read_text()
    (place.folder / config).write_text("bogus = 1\n" + text)
    assert_told(refusal(place, *command.split(), config), place, config, "bogus")


@pytest.mark.parametrize("command", ["ca serve", "proxy", "ca init", "config check"])
def test_what_is_wanted_is_named(place: Place, command: str) -> None:
    said = refusal(place, *command.split())
    assert_told(said, place, "FILE" if command == "config check" else "--")


def test_neither_home_nor_terminal_is_needed(place: Place) -> None:
    homeless = place.start("check", "policy.git", HOME=None, TERM=None, XDG_CACHE_HOME=None)
    status, out, said = ended(homeless)
    assert status == 0, said
    assert "fit to be served" in out


def test_a_cache_that_has_no_place_is_told(place: Place) -> None:
    """Fetched repositories are kept at home; here that is a file."""
    words = ("check", "https://127.0.0.1:9/x.git")
    told = refusal(place, *words, HOME=str(place.folder / "token"), XDG_CACHE_HOME=None)
    assert_told(told, place, str(place.folder / "token"))
