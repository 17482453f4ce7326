"""Every setting is documented with its default, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from garrison.ca.settings import CaSettings
from garrison.identity.settings import Settings
from garrison.policies.policy_settings import PolicySettings
from tests.documents import ROOT, table_of

KINDS: dict[str, type[Settings]] = {"ca": CaSettings, "policies": PolicySettings}


def settings_of(kind: type[Settings]) -> Iterator[tuple[str, str]]:
    """Yield each setting as it is written in TOML, and its default."""
    for name, field in kind.model_fields.items():
        inner = nested(field.annotation)
        for key, default in settings_of(inner) if inner else ():
            is_list = get_origin(field.annotation) is tuple
            yield (f"[[{name}]] {key}" if is_list else f"[{name}] {key}"), default
        if inner is None:
            yield name, shown(field)


def nested(annotation: object) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    if get_origin(annotation) in {tuple, UnionType, Annotated}:
        return next(filter(None, map(nested, get_args(annotation))), None)
    return None


def shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    match field.default:
        case None:
            return "none"
        case float() | int() as number:
            return f"{number:g}" if number != int(number) else str(int(number))
        case tuple() as several:
            return json.dumps(list(several))
        case other:
            return str(other)


@pytest.mark.parametrize("component", KINDS)
def test_every_setting_is_in_the_readme_with_its_default(component: str) -> None:
    expected = dict(settings_of(KINDS[component]))
    if component == "policies":
        expected["state"] = "$XDG_STATE_HOME/garrison/policy"  # `settings_of` fills it in
    assert table_of(f"{component}/README.md", "setting") == expected


@pytest.mark.parametrize("component", KINDS)
def test_every_setting_is_among_the_seams(component: str) -> None:
    text = (ROOT / "docs" / "seams.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`[^`\n]+`", text))))
    keys = {name.rpartition(" ")[2] for name, _ in settings_of(KINDS[component])}
    assert keys <= named
