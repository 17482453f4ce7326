"""Settings of a process: a TOML file, overridden by environment variables, parsed into one type.

A variable is the prefix, then the path of the setting in upper case, `__` between levels:
`GARRISON_CA_SVID__MAX_SECONDS=3600` is `[svid] max_seconds`. Relative paths are relative to the
file.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from garrison.identity.errors import RejectedError


class SettingsError(RejectedError):
    """A settings file cannot be read, or says something that is not a setting."""


class Settings(BaseModel):
    """Base of a process's settings: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _relative_to_file(path: Path, info: ValidationInfo) -> Path:
    directory: Path = (info.context or {}).get("directory", Path())
    return directory / path.expanduser()


LocalPath = Annotated[Path, AfterValidator(_relative_to_file)]

SomeSettings = TypeVar("SomeSettings", bound=Settings)


def load_settings(
    kind: type[SomeSettings], file: Path | None, prefix: str, environment: Mapping[str, str]
) -> SomeSettings:
    """Read `file` (if any), lay the variables that start with `prefix` over it, and parse that.

    Raises `SettingsError` naming the file and each wrong field.
    """
    values = read_toml(file) if file else {}
    for variable, text in environment.items():
        if variable.startswith(prefix):
            _assign(values, variable, variable.removeprefix(prefix).lower().split("__"), text)
    directory = file.parent if file else Path()
    try:
        return kind.model_validate(values, context={"directory": directory})
    except ValidationError as error:
        raise SettingsError(_describe(error, str(file or "settings"))) from error


def read_toml(file: Path) -> dict[str, Any]:
    """Read a file without looking at what it says; raise `SettingsError` if it is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read: {error.strerror}: name a readable file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not TOML: {error}") from error


def _assign(values: dict[str, Any], variable: str, path: list[str], text: str) -> None:
    for level in path[:-1]:
        values = values.setdefault(level, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{variable}: {level} is no table of settings")
    values[path[-1]] = text


def _describe(error: ValidationError, source: str) -> str:
    lines = []
    for detail in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        reason = message[:1].lower() + message[1:] if message[1:2].islower() else message
        if detail["type"] == "extra_forbidden":
            reason = "no such setting"
        lines.append(f"{source}: {field}: {reason}")
    return "\n".join(lines)
