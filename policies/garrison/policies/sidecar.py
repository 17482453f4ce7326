"""Questions to the sidecar's executable: the code that will apply a commit also judges it.

docs/seams.md, "Offline checks of the executable". Every question is bounded in time.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.policies.errors import SidecarFailedError

SECONDS = 60.0
_REFUSED = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """A resource that the sidecar would refuse, and its words."""

    type_url: str
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Canonical:
    """A request in its one form; or the code by which it is `refused`, and then no path."""

    path: str
    query: str | None
    refused: str | None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """An executable `garrison-proxy`."""

    executable: Path

    def refusals(self, responses: Sequence[bytes]) -> list[tuple[Refusal, ...]]:
        """Ask of serialized DiscoveryResponses, of a client each, what it would not take.

        Raises `SidecarFailedError` if it does not answer.
        """
        framed = b"".join(b"%d\n%b" % (len(each), each) for each in responses)
        finished = self._run("validate", framed, accepted=(0, _REFUSED), options=("--many",))
        if len(finished.answers) != len(responses):
            raise SidecarFailedError(f"{self.executable} validate did not answer for each client")
        refused = [
            tuple(Refusal(each["type"], each["name"], each["error"]) for each in answer["refused"])
            for answer in finished.answers
        ]
        if any(refused) != (finished.status == _REFUSED):
            raise SidecarFailedError(f"{self.executable} validate contradicts its exit status")
        return refused

    def canonical(self, method: str, target: str, headers: Sequence[tuple[str, str]]) -> Canonical:
        """Ask for the form in which a request is routed and authorized."""
        question = json.dumps({"method": method, "target": target, "headers": list(headers)})
        (answer,) = self._run("canonicalize", question.encode() + b"\n", accepted=(0,)).answers
        return Canonical(answer.get("path", ""), answer.get("query"), answer.get("refused"))

    def _run(
        self,
        command: str,
        question: bytes,
        accepted: tuple[int, ...],
        options: tuple[str, ...] = (),
    ) -> _Finished:
        shown = f"{self.executable} {command}"
        try:
            finished = subprocess.run(  # noqa: S603 -- the executable is ours, there is no shell
                [self.executable, command, *options],
                input=question,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SidecarFailedError(f"{shown} did not answer in {SECONDS:.0f} s") from error
        except OSError as error:
            raise SidecarFailedError(f"{shown}: cannot be run: {error.strerror}") from error
        if finished.returncode not in accepted:
            told = finished.stderr.decode("utf-8", "replace").strip()[-500:]
            raise SidecarFailedError(f"{shown}: exit status {finished.returncode}: {told}")
        try:
            answers = [json.loads(line) for line in finished.stdout.splitlines()]
        except ValueError as error:
            raise SidecarFailedError(f"{shown} answered what is not JSON") from error
        return _Finished(finished.returncode, answers)


@dataclass(frozen=True, slots=True)
class _Finished:
    status: int
    answers: list[Any]
