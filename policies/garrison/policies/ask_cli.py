"""`garrison check` and `garrison explain`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from garrison.policies import answer
from garrison.policies import explain as explanation
from garrison.policies.acceptance import Acceptance
from garrison.policies.compilation import compile_commit
from garrison.policies.errors import CommitRefusedError
from garrison.policies.explain import Question
from garrison.policies.parts import Parts
from garrison.policies.preparation import prepare
from garrison.policies.repository import Repository, open_repository
from garrison.policies.sidecar import Sidecar

DENIED = 1
MISTAKE = 2


_OPTIONS = {"source": "--from", "service": "--to", "method": "--method", "target": "--path"}
_REPOSITORY = click.argument("repo", metavar="REPO")
_BRANCH = click.option(
    "--branch", default="main", show_default=True, help="Look at its newest commit."
)
_COMMIT = click.option("--commit", help="Look at this commit instead.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@_REPOSITORY
@_BRANCH
@_COMMIT
@_JSON
@click.pass_context
def check(
    context: click.Context, *, repo: str, branch: str, commit: str | None, as_json: bool
) -> None:
    """Validate a commit of the policy repository REPO (a path or URL) as the policy server would.

    Only what is committed is read. Exit status 0: fit to be served; 2: not, and every reason is
    printed.
    """
    parts: Parts = context.obj
    repository, commit = _commit(repo, branch, commit)
    try:
        acceptance = Acceptance(Sidecar(parts.find_executable()))
        snapshot = prepare(repository, commit, acceptance)
    except CommitRefusedError as refused:
        _print_refusal(refused, as_json=as_json)
        context.exit(MISTAKE)
    checked = snapshot.checked
    if as_json:
        known = {"checked": checked and checked.as_json()}
        click.echo(json.dumps({"ok": True, "commit": commit, "diagnostics": [], **known}))
        return
    mesh = snapshot.mesh
    click.echo(
        f"commit {commit[:12]} is fit to be served: {len(mesh.services)} services, "
        f"{sum(map(len, mesh.rules.values()))} routing rules, {len(mesh.entries)} identities"
    )
    if checked:
        click.echo(
            f"casbin agreed on {checked.requests} requests, made for {checked.lines_reached} of "
            f"{checked.lines} lines; with all near misses for {checked.places_checked} of "
            f"{checked.places} (a line counts here at each service that it reaches)"
        )


@click.command()
@click.argument("repo", metavar="REPO|CODE")
@click.option("--from", "source", metavar="SPIFFE_ID", help="Who calls; or NAMESPACE/ACCOUNT.")
@click.option("--to", "service", metavar="NAMESPACE/SERVICE", help="Whom.")
@click.option("--method", metavar="M", help="GET, POST and so on.")
@click.option("--path", "target", metavar="P", help="The path, with its query if any.")
@click.option("--header", "headers", multiple=True, metavar="K=V", help="A header; repeatable.")
@_BRANCH
@_COMMIT
@_JSON
@click.pass_context
def explain(
    context: click.Context,
    /,
    *,
    repo: str,
    headers: tuple[str, ...],
    as_json: bool,
    **given: str | None,
) -> None:
    """Say what a request would meet under a commit of the policy repository REPO, and why.

    Or, without options, what a CODE of the mesh's own answers means, such as inbound/denied.

    Exit status 0: allowed; 1: not; 2: there can be no such request, or the repository is broken.
    """
    parts: Parts = context.obj
    asked = {name: value for name in _OPTIONS if (value := given[name]) is not None}
    if not asked and not headers and not Path(repo).is_dir():
        click.echo(parts.explain_code(repo))
        return
    if missing := [option for name, option in _OPTIONS.items() if name not in asked]:
        raise click.UsageError(f"a request needs {', '.join(missing)} too")
    repository, commit = _commit(repo, given["branch"] or "main", given["commit"])
    snapshot = compile_commit(repository.read(commit))
    question = Question(**asked, headers=dict(_headers(headers)))
    found = explanation.explain(snapshot, question, Sidecar(parts.find_executable()))
    text = json.dumps(answer.as_json(found), indent=2) if as_json else answer.as_text(found)
    click.echo(text)
    if not found.allowed:
        context.exit(DENIED)


def _commit(repo: str, branch: str, commit: str | None) -> tuple[Repository, str]:
    repository = open_repository(repo, branch)
    return repository, repository.find(commit) if commit else repository.head()


def _headers(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    seen = set()
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--header {text!r}: NAME=VALUE is wanted")
        if name.lower() in seen:
            raise click.UsageError(f"--header {name!r} is given twice")
        seen.add(name.lower())
        yield name, value


def _print_refusal(refused: CommitRefusedError, *, as_json: bool) -> None:
    if as_json:
        found = [diagnostic.as_json() for diagnostic in refused.diagnostics]
        result = {"ok": False, "commit": refused.commit, "diagnostics": found}
        click.echo(json.dumps({**result, "total": refused.total}))
        return
    for diagnostic in refused.diagnostics:
        click.echo(str(diagnostic))
    findings = "finding" if refused.total == 1 else "findings"
    click.echo(f"commit {refused.commit[:12]} is refused: {refused.total} {findings}", err=True)
