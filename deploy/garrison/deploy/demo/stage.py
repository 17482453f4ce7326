"""A whole mesh on this machine: opened by one call, gone when its block ends.

The order of starting is that of trust: the token issuer's keys, the CA that believes them, the
policy server that gets its identity from the CA, then the applications with their sidecars.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Network
from pathlib import Path

import aiohttp

from garrison.deploy.demo import repository, settings_files
from garrison.deploy.demo.instances import Instance, Population, population
from garrison.deploy.demo.janitor import temporary_directory
from garrison.deploy.demo.network import DEFAULT, reserved
from garrison.deploy.demo.observer import Observer
from garrison.deploy.demo.processes import Process, Processes, Program, supervised
from garrison.deploy.demo.repository import BRANCH, PolicyRepository
from garrison.deploy.demo.settings_files import AUDIENCE, ISSUER, Places
from garrison.deploy.demo.token_issuer import TokenIssuer
from garrison.identity.errors import RejectedError, UnavailableError
from garrison.policies.repository import Repository, open_repository
from garrison.proxy.executable import find_executable

POLICY_SERVER = "policy-server"
READY_SECONDS = 60.0
EXAMPLE = Path(str(files("garrison.policies"))).parent.parent / "examples" / "bookstore"
JOINING = Path(str(files("garrison.deploy"))).parent.parent / "examples" / "join"
# What the applications call when they are called themselves, by service.
CALLS = {
    "bookstore/web": (
        "http://catalog.bookstore/books/7",
        "http://orders.bookstore/orders/7",
        "http://ratings.bookstore/ratings/7",
    ),
    "bookstore/orders": ("http://payments.bookstore/charges/7",),
}

Progress = Callable[[str], None]


class NotReadyError(UnavailableError):
    """A part of the stage did not become ready in time."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a stage is set up."""

    network: IPv4Network | None = None  # None: `first_network`, or another that is free
    first_network: IPv4Network = DEFAULT
    svid_seconds: int = 20
    example: Path = EXAMPLE
    progress: Progress = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class Stage:
    """The running mesh."""

    places: Places
    population: Population
    policies: PolicyRepository
    processes: Processes
    tokens: TokenIssuer
    observer: Observer

    def instance(self, name: str) -> Instance:
        """Return the instance of that name, such as catalog-2."""
        return next(each for each in self.population.instances if each.name == name)

    def instances_of(self, service: str) -> list[Instance]:
        """Return the instances of a service, such as bookstore/catalog."""
        return [each for each in self.population.instances if each.service == service]

    def fault(self, instance: str) -> Path:
        """Name the file that makes an application fail while it exists."""
        return self.places.directory / "faults" / instance

    async def ready(self, process: Process, admin: str) -> None:
        """Wait until a part says that it is ready."""
        if not await self.observer.becomes_ready(admin, READY_SECONDS):
            name = process.program.name
            told = f"{name} is not ready after {READY_SECONDS:.0f} s; the end of its log:"
            raise NotReadyError(f"{told}\n{process.tail()}")

    async def all_enforce(self, commit: str) -> bool:
        """Claim that every sidecar has acknowledged the commit."""
        clients = (await self.observer.status())["clients"]
        enforced = {client["node"]: client["commit"] for client in clients}
        return all(enforced.get(each.name) == commit for each in self.population.instances)

    async def start_ca(self) -> None:
        """Start the CA, and wait for it."""
        await self.ready(await self.processes.start(self.program_of_ca()), self.places.ca_admin)

    async def start_policy_server(self) -> None:
        """Start the policy server, and wait for it."""
        process = await self.processes.start(self.program_of_policy_server())
        await self.ready(process, self.places.policy_admin)

    async def start_sidecar(self, instance: Instance) -> None:
        """Start an instance's sidecar; `ready` with its `admin` says when it serves."""
        await self.processes.start(self.program_of_sidecar(instance))

    def program_of_ca(self) -> Program:
        """Say how the CA is started."""
        return _garrison("ca", "ca", "serve", "--config", str(self.places.settings("ca")))

    def program_of_policy_server(self) -> Program:
        """Say how the policy server is started."""
        settings = self.places.settings(POLICY_SERVER)
        served = ("--repo", str(self.policies.served), "--branch", BRANCH)
        return _garrison(POLICY_SERVER, "policy", "serve", *served, "--config", str(settings))

    def program_of_sidecar(self, instance: Instance) -> Program:
        """Say how an instance's sidecar is started."""
        settings = self.places.settings(instance.name)
        command = (str(find_executable()), "run", "--config", str(settings))
        return Program(f"{instance.name}.sidecar", command)

    def program_of_application(self, instance: Instance) -> Program:
        """Say how an instance's application is started."""
        command = (
            sys.executable, "-m", "garrison.deploy.demo.services", instance.name,
            "--version", instance.version,
            "--listen", instance.application,
            "--fault", str(self.fault(instance.name)),
            *(word for url in CALLS.get(instance.service, ()) for word in ("--call", url)),
        )  # fmt: skip
        return Program(instance.name, command, {"HTTP_PROXY": f"http://{instance.outbound}"})


@contextlib.asynccontextmanager
async def open_stage(options: Options) -> AsyncIterator[Stage]:
    """Start a mesh that enforces the example, and end all of it with the block."""
    find_executable()
    if not options.example.is_dir():
        raise RejectedError(f"{options.example} is missing: run the demo from a clone of garrison")
    with (
        reserved(options.network, options.first_network) as network,
        temporary_directory("garrison-demo-") as directory,
    ):
        places = Places(directory, network)
        for folder in ("logs", "tokens", "settings", "faults"):
            (places.directory / folder).mkdir(mode=0o700)
        async with (
            aiohttp.ClientSession() as client,
            supervised(places.directory / "logs") as processes,
            asyncio.TaskGroup() as group,
        ):
            stage = await _prepare(options, places, processes, Observer(client, places))
            served = open_repository(str(stage.policies.served), BRANCH)
            keeper = group.create_task(stage.tokens.keep_fresh(_tokens(places, served)))
            await _start(stage, options)
            try:
                yield stage
            finally:
                keeper.cancel()


async def _prepare(
    options: Options, places: Places, processes: Processes, observer: Observer
) -> Stage:
    """Write the repository, the tokens and the settings."""
    options.progress("making the policy repository")
    policies = await repository.create(options.example, places.directory, places.network)
    repository.copy_moved(JOINING, places.directory / "join", places.network)
    host, _, port = places.policy_admin.rpartition(":")
    repository.install_hook(policies, host, int(port))
    opened = open_repository(str(policies.served), BRANCH)
    people = population(opened.read(opened.head()))
    stage = Stage(places, people, policies, processes, TokenIssuer(ISSUER, AUDIENCE), observer)
    stage.tokens.write_keys(places.keys)
    _write_settings(stage, options)
    return stage


def _write_settings(stage: Stage, options: Options) -> None:
    places, domain = stage.places, stage.population.trust_domain
    passphrase = places.directory / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_urlsafe(32), encoding="utf-8")
    texts = {
        "ca": settings_files.ca_settings(places, domain, stage.policies.served),
        POLICY_SERVER: settings_files.policy_settings(places),
    }
    for instance in stage.population.instances:
        texts[instance.name] = settings_files.proxy_settings(
            places, domain, instance, options.svid_seconds
        )
    for name, text in texts.items():
        places.settings(name).write_text(text, encoding="utf-8")


async def _start(stage: Stage, options: Options) -> None:
    options.progress("making the CA's keys")
    settings = str(stage.places.settings("ca"))
    await stage.processes.run(_garrison("ca-init", "ca", "init", "--config", settings))
    options.progress("starting the CA")
    await stage.start_ca()
    options.progress("starting the policy server")
    await stage.start_policy_server()
    for instance in stage.population.instances:
        options.progress(f"starting {instance.name} and its sidecar")
        if instance.inbound_port:
            await stage.processes.start(stage.program_of_application(instance))
        await stage.start_sidecar(instance)
    options.progress("waiting for identities and configuration")
    for instance in stage.population.instances:
        await stage.ready(stage.processes[f"{instance.name}.sidecar"], instance.admin)
        if instance.inbound_port:
            await stage.ready(stage.processes[instance.name], instance.application)


def _tokens(places: Places, policies: Repository) -> Callable[[], Mapping[Path, str]]:
    """Return who should have tokens: whoever the newest commit registers, now and later."""
    read_at = ""
    wanted: Mapping[Path, str] = {}

    def tokens() -> Mapping[Path, str]:
        nonlocal read_at, wanted
        head = policies.head()
        if head != read_at:
            read_at = head
            with contextlib.suppress(RejectedError):  # the CA keeps the last good commit, too
                subjects = population(policies.read(head)).subjects
                wanted = {places.token(each): subject for each, subject in subjects.items()}
        return wanted

    return tokens


def _garrison(name: str, *arguments: str) -> Program:
    return Program(name, (sys.executable, "-m", "garrison.deploy", *arguments))
