"""The codes of the mesh's own answers, explained: `codes.toml`, read.

A code is HOP/REASON, as in `inbound/denied`. The proxy's tests hold the file equal to what the
proxy answers.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from garrison.proxy.errors import UnknownCodeError

HOPS = {"inbound": "the proxy of the service", "outbound": "the caller's own proxy"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an operator should know of a code."""

    code: str
    hop: str
    status: int
    """Of HTTP."""
    grpc: int
    cause: str
    remedy: str

    def __str__(self) -> str:
        """Say it in a few lines."""
        return (
            f"{self.code}: HTTP {self.status}, gRPC {self.grpc}, answered by {HOPS[self.hop]}\n"
            f"cause:  {self.cause}\n"
            f"remedy: {self.remedy}"
        )


@cache
def explanations() -> Mapping[str, Explanation]:
    """Return every code with its explanation."""
    text = files("garrison.proxy").joinpath("codes.toml").read_text(encoding="utf-8")
    return {one.code: one for one in _parse(tomllib.loads(text))}


def explain(code: str) -> Explanation:
    """Return what `code` means; raise `UnknownCodeError` with the nearest codes if it is none."""
    known = explanations()
    if code in known:
        return known[code]
    near = difflib.get_close_matches(code, known, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UnknownCodeError(f"{code!r} is no code of the mesh, such as inbound/denied{hint}")


def reference() -> str:
    """Return `docs/codes.md`; `python -m garrison.proxy.codes` prints it."""
    lines = [
        "# The mesh's own answers",
        "",
        "An answer that no application gave has `x-garrison-code`: what `garrison explain CODE`",
        "says of each. Made from `proxy/garrison/proxy/codes.toml` by",
        "`python -m garrison.proxy.codes`: change that.",
        "",
        "| code | HTTP | gRPC | cause | remedy |",
        "| --- | --- | --- | --- | --- |",
    ]
    alike: dict[str, list[Explanation]] = {}
    for code, one in explanations().items():
        alike.setdefault(code.partition("/")[2], []).append(one)
    for of_reason in alike.values():
        codes = ", ".join(f"`{one.code}`" for one in of_reason)
        one = of_reason[0]
        cause, remedy = (text.replace("|", "\\|") for text in (one.cause, one.remedy))
        lines.append(f"| {codes} | {one.status} | {one.grpc} | {cause} | {remedy} |")
    return "\n".join(lines) + "\n"


def _parse(reasons: Mapping[str, Mapping[str, object]]) -> Iterator[Explanation]:
    for reason, entry in reasons.items():
        match entry:
            case {
                "hops": [*hops],
                "status": int(status),
                "grpc": int(grpc),
                "cause": str(cause),
                "remedy": str(remedy),
                **rest,
            } if not rest:
                for hop in map(str, hops):
                    yield Explanation(f"{hop}/{reason}", hop, status, grpc, cause, remedy)
            case _:
                raise ValueError(f"codes.toml: {reason}: malformed")


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201  # what the command is for
