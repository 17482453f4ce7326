"""The command tree of `garrison`, and the one place where an error becomes an exit status.

Each component has its own commands; this mounts them. They are imported when they are called, so
that `garrison --help` stays quick and a command pays only for what it uses.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

import click

from garrison.deploy.parts import SidecarParts
from garrison.identity.errors import GarrisonError

MISTAKE = 2  # the exit status for anything that the user can put right
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# What gRPC's core reads when it starts, for Python's has no minimum version of TLS. The suites are
# of TLS 1.2 only, and this one needs a shared key, which we never give: so TLS 1.3 is all there is.
TLS_1_2_SUITES = "PSK-AES128-CBC-SHA"

# command: where it is defined, and what it does
MOUNTED = {
    "ca": ("garrison.deploy.certificate_authority:ca", "Run the certificate authority."),
    "policy": ("garrison.policies.cli:policy", "Run the policy server."),
    "proxy": ("garrison.proxy.cli:proxy", "Run the sidecar beside a service."),
    "check": ("garrison.policies.ask_cli:check", "Validate a policy repository before a push."),
    "explain": ("garrison.policies.ask_cli:explain", "Say what a request would meet, and why."),
    "status": ("garrison.policies.cli:status", "Say which proxies enforce which commit."),
    "config": ("garrison.deploy.config_check:config", "Show what a settings file comes to."),
    "demo": ("garrison.deploy.demo.cli:demo", "Show a whole mesh on this machine."),
}


class CommandTree(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's own
        """Name the commands in the order in which a newcomer meets them."""
        return list(MOUNTED)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's own
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in MOUNTED:
            return None
        module, name = MOUNTED[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's own
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in MOUNTED.items()])


@click.command(cls=CommandTree)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,  # `run` looks for it: it matters when the command has failed
    help="Show the traceback of an error of garrison's own.",
)
@click.version_option(package_name="garrison")
def tree() -> None:
    """Run a zero-trust service mesh from files in git."""
    from garrison.deploy import logs  # noqa: PLC0415  # not for --help

    logs.configure()


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; every error has been told on stderr by then."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what its core complains of, we tell
    os.environ["GRPC_SSL_CIPHER_SUITES"] = TLS_1_2_SUITES
    try:
        status = tree.main(
            list(arguments), prog_name="garrison", standalone_mode=False, obj=SidecarParts()
        )
    except click.ClickException as mistake:
        mistake.show()
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the process's top: nothing may pass it as a traceback
        return _tell(error, debug="--debug" in arguments)
    return status if isinstance(status, int) else 0


def _tell(error: Exception, *, debug: bool) -> int:
    mistakes = list(_leaves(error))
    if debug or not all(isinstance(mistake, GarrisonError) for mistake in mistakes):
        _tell_of_bug(error, debug=debug)
    for mistake in mistakes:
        if isinstance(mistake, GarrisonError):
            click.echo(f"garrison: {mistake}", err=True)
    return MISTAKE


def _tell_of_bug(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
        return
    first = next(leaf for leaf in _leaves(error) if not isinstance(leaf, GarrisonError))
    hint = "`garrison --debug ...` shows where"
    click.echo(f"garrison: an error of its own: {first!r}; {hint}", err=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Unfold what task groups wrapped."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
