"""The command tree of `garrison`."""

import click


@click.group()
def main() -> None:
    """Run a zero-trust service mesh from files in git."""
