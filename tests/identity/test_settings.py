"""A process's settings: file, then environment; a mistake is one message that names its place."""

from pathlib import Path

import pytest

from garrison.identity.settings import LocalPath, Settings, SettingsError, load_settings


class Svid(Settings):
    """A table."""

    max_seconds: int = 10


class Example(Settings):
    """A process."""

    name: str
    key: LocalPath | None = None
    svid: Svid = Svid()


def load(file: Path | None, **environment: str) -> Example:
    return load_settings(Example, file, "GARRISON_X_", environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text('name = "a"\nkey = "k.pem"\n')
    return path


def test_a_path_is_relative_to_its_file(file: Path) -> None:
    assert load(file).key == file.parent / "k.pem"


def test_the_environment_overrides_the_file(file: Path) -> None:
    settings = load(file, GARRISON_X_SVID__MAX_SECONDS="7", GARRISON_X_NAME="b", OTHER="c")
    assert (settings.name, settings.svid.max_seconds) == ("b", 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nport = 1', r"x\.toml: port: no such setting"),
        ('name = "a"\nsvid = 3', r"x\.toml: svid: "),
        ("", r"x\.toml: name: field required"),
        ("name =", r"x\.toml: not TOML"),
    ],
)
def test_a_mistake_names_file_and_field(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read"):
        load(tmp_path / "none.toml")


def test_a_variable_below_what_is_no_table_is_refused(file: Path) -> None:
    with pytest.raises(SettingsError, match="GARRISON_X_NAME__Y"):
        load(file, GARRISON_X_NAME__Y="1")
