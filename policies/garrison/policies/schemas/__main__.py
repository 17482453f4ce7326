"""Writes the schemas into the source tree."""

from pathlib import Path

from garrison.policies.schemas import published

for name, text in published():
    (Path(__file__).parent / name).write_text(text, encoding="utf-8")
