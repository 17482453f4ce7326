"""Compiles the proxy with cargo and ships it as a script of the wheel.

`GARRISON_PROXY_BUILD` chooses: `release` (the default of a wheel), `dev` (the default of an
editable install) or `skip` (no executable: for checks that need Python only).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


# hatchling's own hooks name no configuration type
class ProxyBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `cargo build` and adds the executable to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the proxy for this wheel; `version` is `editable` or `standard`."""
        default = "dev" if version == "editable" else "release"
        profile = os.environ.get("GARRISON_PROXY_BUILD", default)
        if profile not in {"release", "dev", "skip"}:
            message = f"GARRISON_PROXY_BUILD={profile}: expected release, dev or skip"
            raise SystemExit(message)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        if profile == "skip":
            return
        build_data["shared_scripts"] = {str(self._cargo_build(profile)): "garrison-proxy"}

    def _cargo_build(self, profile: str) -> Path:
        cargo = shutil.which("cargo")
        if cargo is None:
            raise SystemExit("garrison-proxy is written in Rust: install cargo, 1.88 or later")
        command = [
            cargo, "build", "--locked", "--profile", profile, "--bin", "garrison-proxy",
            "--message-format", "json-render-diagnostics",
        ]  # fmt: skip
        built = subprocess.run(
            command, cwd=Path(self.root) / "proxy", stdout=subprocess.PIPE, text=True, check=False
        )
        if built.returncode:
            message = "cargo could not build the proxy; its messages are above"
            raise SystemExit(message)
        return _executable(built.stdout)


def _executable(messages: str) -> Path:
    """Find the file in cargo's messages, which know CARGO_TARGET_DIR and target triples."""
    for line in messages.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "garrison-proxy":
            return Path(message["executable"])
    raise SystemExit("cargo named no executable")
