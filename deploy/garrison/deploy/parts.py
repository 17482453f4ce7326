"""What one component's commands need of another's; components do not import each other."""

from __future__ import annotations

from pathlib import Path


class SidecarParts:
    """The sidecar's executable, and what its codes mean; imported when they are asked for."""

    def find_executable(self) -> Path:
        """Return the path of garrison-proxy; raise a `GarrisonError` if there is none."""
        from garrison.proxy.executable import find_executable  # noqa: PLC0415  # not for --help

        return find_executable()

    def explain_code(self, code: str) -> str:
        """Return cause and remedy of a code; raise a `GarrisonError` if there is no such code."""
        from garrison.proxy.codes import explain  # noqa: PLC0415  # not for --help

        return str(explain(code))
