"""`garrison status` for a person, or as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from garrison.identity.spiffe_id import (
    SpiffeIdRejectedError,
    namespace_and_account,
    parse_spiffe_id,
)
from garrison.policies.status import MeshStatus, Proxy

_SHORT = 10  # digits of a commit that a person reads
_WIDE = 1_000  # columns for a pipe or a file: a name that is broken in two is not found by grep


def show(status: MeshStatus, *, as_json: bool) -> None:
    """Print it on stdout; what could not be asked goes to stderr."""
    if as_json:
        click.echo(json.dumps(status.as_json(), indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(_headline(status))
    if status.proxies:
        console.print(_table(status))
        _show_nacks(console, status)
    _show_gone(console, status)
    _show_refusal(console, status)
    if status.policy.unavailable:
        console.print(f"[yellow]repository not read:[/] {escape(status.policy.unavailable)}")
    if status.ca_trouble:
        click.echo(f"garrison: bundles are unknown: {status.ca_trouble}", err=True)


def _headline(status: MeshStatus) -> str:
    commit = status.policy.commit
    if commit is None:
        return "[red]no commit is served[/]"
    behind = len(status.laggards)
    said = f"[red]{behind} behind[/]" if behind else "[green]all in sync[/]"
    return f"commit [bold]{commit[:_SHORT]}[/], {len(status.proxies)} proxies, {said}"


def _table(status: MeshStatus) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("NODE", "IDENTITY", "KIND", "COMMIT", "BUNDLE", "SVID EXPIRES"):
        table.add_column(title, overflow="fold")
    for proxy in sorted(status.proxies, key=lambda each: (each.in_sync, each.node)):
        table.add_row(*map(_plain, _cells(proxy)), style=None if proxy.in_sync else "red")
    return table


def _cells(proxy: Proxy) -> tuple[str, ...]:
    bundle = {None: "unknown", True: "current", False: "old"}[proxy.bundle_in_sync]
    return (
        proxy.node,
        _short(proxy.spiffe_id),
        proxy.kind or "not connected",
        (proxy.commit or "none")[:_SHORT],
        bundle,
        _in(proxy.svid_expires_at - datetime.now(UTC)),
    )


def _short(spiffe_id: str) -> str:
    """Write a workload as policy does."""
    try:
        return str(namespace_and_account(parse_spiffe_id(spiffe_id)))
    except SpiffeIdRejectedError:
        return spiffe_id


def _show_nacks(console: Console, status: MeshStatus) -> None:
    for proxy in status.proxies:
        if nack := proxy.last_nack:
            told = f"{proxy.node} refused a {nack.type} of {nack.commit[:_SHORT]}: {nack.reason}"
            console.print(f"[red]{_plain(told)}[/]")


def _show_gone(console: Console, status: MeshStatus) -> None:
    for each in status.gone:
        ago = _span(datetime.now(UTC) - each.gone_since)
        had = f"had commit {(each.commit or 'none')[:_SHORT]}"
        told = f"{each.node} ({_short(each.spiffe_id)}) has been gone for {ago}, {had}"
        console.print(f"[yellow]{_plain(told)}[/]")


def _plain(text: str) -> str:
    """Keep a client's words from being read as markup or as control of the terminal."""
    return escape("".join(each if each.isprintable() else " " for each in text))


def _in(left: timedelta) -> str:
    return "expired" if left < timedelta() else f"in {_span(left)}"


def _span(time: timedelta) -> str:
    seconds = max(0, int(time.total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds % 60:02}s"


def _show_refusal(console: Console, status: MeshStatus) -> None:
    refused = status.policy.refused
    if refused is None:
        return
    console.print(f"[red]commit {refused.commit[:_SHORT]} was refused:[/]")
    for finding in refused.diagnostics:
        console.print(f"  {_plain(str(finding))}")
    if refused.total > len(refused.diagnostics):
        console.print(f"  and {refused.total - len(refused.diagnostics)} more")
