"""Compiles a large mesh cold, then with one line changed, and prints what each took.

`python -m tests.bench.compile_once NAMESPACES`, a process of its own: the first time is the first.
Compiling is from the files of a commit to the bytes of every identity's view.
"""

from __future__ import annotations

import json
import sys
import time

from garrison.policies.acceptance import BINDING, identities_of
from garrison.policies.commit_files import CommitFiles
from garrison.policies.compilation import compile_commit
from tests.policies.large_mesh import large_mesh

ONE_LINE = "p, allow, n1/s1, n0/s0, GET, /added/*\n"


def main(namespaces: int) -> None:
    """Print one line of JSON."""
    texts = large_mesh(namespaces)
    changed = texts | {"authz/n0.csv": texts["authz/n0.csv"] + ONE_LINE}
    took = {"cold": _compile("1" * 40, texts), "changed": _compile("2" * 40, changed)}
    figures = {
        f"{what}_{which}_ms": milliseconds
        for which, by in took.items()
        for what, milliseconds in by.items()
    }
    print(json.dumps(figures))  # noqa: T201 - this is what it is for


def _compile(commit: str, texts: dict[str, str]) -> dict[str, float]:
    start = time.process_time()
    snapshot = compile_commit(CommitFiles(commit, texts))
    compiled = time.process_time()
    views = [snapshot.view_for(each, BINDING, "garrison-proxy") for each in identities_of(snapshot)]
    viewed = time.process_time()
    if not all(view.resources for view in views):
        raise AssertionError("an identity has no view")
    return {"compile": (compiled - start) * 1e3, "views": (viewed - compiled) * 1e3}


if __name__ == "__main__":
    main(int(sys.argv[1]))
