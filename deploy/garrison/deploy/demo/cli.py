"""`garrison demo`: plays the scenes on a stage, then leaves it standing for a look around."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import click
from rich.console import Console

from garrison.deploy.demo.network import parse_network
from garrison.deploy.demo.scenes import SCENES, Scene, play
from garrison.deploy.demo.stage import Options, Stage, open_stage
from garrison.deploy.demo.summary import Show
from garrison.deploy.demo.tour import what_to_try

FAILED = 1
TOLD_TO_END = 128 + signal.SIGTERM


@click.command("demo")
@click.option("--once", is_flag=True, help="End when everything was shown.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON, and end.")
@click.option(
    "--only",
    metavar="CHECK",
    multiple=True,
    type=click.Choice([scene.name for scene in SCENES]),
    help="Show this one; repeatable. By default all.",
)
@click.option(
    "--network", metavar="127.X.Y.0/24", help="Addresses to use; by default some that are free."
)
def demo(*, once: bool, as_json: bool, only: tuple[str, ...], network: str | None) -> int:
    """Show a whole mesh on this machine: a CA, a policy server, services with their sidecars.

    Needs no root and listens on loopback only. A stand-in issues the tokens that service accounts
    have on Kubernetes. Exits with 0 if everything that it shows happened, else with 1.
    """
    show = Show(Console(stderr=as_json))
    scenes = [scene for scene in SCENES if not only or scene.name in only]
    options = Options(network=parse_network(network) if network else None, progress=show.doing)
    try:
        asyncio.run(_run(options, show, scenes, stays=not (once or as_json)))
    except asyncio.CancelledError:
        return TOLD_TO_END
    except KeyboardInterrupt:
        if len(show.checks) < len(scenes):
            raise
    if as_json:
        click.echo(show.report())
    return 0 if show.ok else FAILED


async def _run(options: Options, show: Show, scenes: Sequence[Scene], *, stays: bool) -> None:
    _end_on_signals()
    with show.running():
        async with open_stage(options) as stage:
            for scene in scenes:
                show.doing(scene.about)
                show.checked(await play(scene, stage))
            show.summed_up()
            if stays:
                await _stay(stage, show)
            show.doing("ending")


async def _stay(stage: Stage, show: Show) -> None:
    show.suggest(what_to_try(stage))
    show.doing("running until Ctrl-C")
    await asyncio.Event().wait()


def _end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything that it started."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            loop.add_signal_handler(number, task.cancel)
