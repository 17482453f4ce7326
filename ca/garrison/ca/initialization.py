"""What `garrison ca init` does, from settings to a word about the next step."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ConfigDict

from garrison.ca.keys import KeyType, read_passphrase
from garrison.ca.settings import PREFIX, InitSettings
from garrison.ca.state import StateDirectory
from garrison.identity.settings import SettingsError, load_settings


class _AnyOtherSettings(InitSettings):
    """The settings' file is that of `serve`: its other settings are not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def initialize(config: Path | None, given: Mapping[str, str | None], key_type: str) -> str:
    """Make the state directory; the answer is a text for the operator.

    Raises `SettingsError` or `StateRejectedError`.
    """
    over = {name: text for name, text in given.items() if text is not None}
    settings = _load(config, over)
    state = StateDirectory(settings.state)
    secret = read_passphrase(settings.passphrase_file)
    state.create(settings.domain, KeyType(key_type), secret)
    return (
        f"trust domain {settings.domain} was made in {state.path}\n"
        f"give {state.roots} to whoever is to recognize it; it is no secret\n"
        f"keep {settings.passphrase_file} apart from backups of {state.path}"
    )


def _load(config: Path | None, given: Mapping[str, str]) -> InitSettings:
    paths = {name: str(Path(given[name]).absolute()) for name in given if name != "trust_domain"}
    over = {PREFIX + name.upper(): text for name, text in {**given, **paths}.items()}
    try:
        return load_settings(_AnyOtherSettings, config, PREFIX, {**os.environ, **over})
    except SettingsError as error:
        if config is not None:
            raise
        wanted = "--config, or --trust-domain, --state and --passphrase-file"
        raise SettingsError(f"{error}\nwanted are {wanted}") from error
