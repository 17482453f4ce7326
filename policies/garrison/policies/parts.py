"""What commands of this component need of the sidecar's, which it does not import.

The command tree has both, and hands this over as the context's object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Parts(Protocol):
    """The sidecar's executable, and what its codes mean."""

    def find_executable(self) -> Path:
        """Return the path of garrison-proxy; raise a `GarrisonError` if there is none."""

    def explain_code(self, code: str) -> str:
        """Return cause and remedy of a code; raise a `GarrisonError` if there is no such code."""
