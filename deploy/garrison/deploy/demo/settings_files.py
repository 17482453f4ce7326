"""The settings files of a stage's processes, as a person would write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from garrison.deploy.demo.instances import POLICY_IDENTITY, Instance
from garrison.deploy.demo.network import Network

ATTESTOR = "local"
AUDIENCE = "garrison"
ISSUER = "https://tokens.bookstore.example"
CA_HOST = 2
POLICY_HOST = 3


@dataclass(frozen=True, slots=True)
class Places:
    """Where things of a stage lie and listen."""

    directory: Path
    network: Network

    @property
    def ca(self) -> str:
        """Certificates are asked for here."""
        return f"{self.network.host(CA_HOST)}:15012"

    @property
    def bundles(self) -> str:
        """Trust bundles stream from here."""
        return f"{self.network.host(CA_HOST)}:15013"

    @property
    def ca_admin(self) -> str:
        """The CA's status."""
        return f"{self.network.host(CA_HOST)}:15014"

    @property
    def policy(self) -> str:
        """Configuration streams from here."""
        return f"{self.network.host(POLICY_HOST)}:15010"

    @property
    def policy_admin(self) -> str:
        """The policy server's status, and where a push is announced."""
        return f"{self.network.host(POLICY_HOST)}:15011"

    @property
    def keys(self) -> Path:
        """The JWK Set of the token issuer."""
        return self.directory / "tokens" / "jwks.json"

    @property
    def roots(self) -> Path:
        """The CA's root certificates."""
        return self.directory / "ca" / "roots.pem"

    def output(self, name: str) -> Path:
        """Name the file that takes a process's stdout."""
        return self.directory / "logs" / f"{name}.out"

    def log(self, name: str) -> Path:
        """Name the file that takes a process's stderr."""
        return self.directory / "logs" / f"{name}.log"

    def token(self, identity: str) -> Path:
        """Name the file of tokens for NAMESPACE/ACCOUNT."""
        return self.directory / "tokens" / f"{identity.replace('/', '.')}.token"

    def settings(self, name: str) -> Path:
        """Name the settings file of a process."""
        return self.directory / "settings" / f"{name}.toml"


def ca_settings(places: Places, trust_domain: str, repository: Path) -> str:
    """Return the CA's settings."""
    return f"""\
trust_domain = {_text(trust_domain)}
state = {_text(places.directory / "ca")}
passphrase_file = {_text(places.directory / "passphrase")}
listen = {_text(places.ca)}
bundle_listen = {_text(places.bundles)}
admin_listen = {_text(places.ca_admin)}
repository = {_text(repository)}
branch = "main"
poll_seconds = 0.5

[[attestors]]
name = {_text(ATTESTOR)}
kind = "oidc"
issuer = {_text(ISSUER)}
audience = {_text(AUDIENCE)}
jwks_file = {_text(places.keys)}
algorithms = ["ES256"]
"""


def policy_settings(places: Places) -> str:
    """Return the policy server's settings."""
    return f"""\
listen = {_text(places.policy)}
admin_listen = {_text(places.policy_admin)}
state = {_text(places.directory / "policy-state")}

[ca]
address = {_text(places.ca)}
bundle_address = {_text(places.bundles)}
roots = {_text(places.roots)}
token = {_text(places.token(POLICY_IDENTITY))}
"""


def proxy_settings(places: Places, trust_domain: str, instance: Instance, svid_seconds: int) -> str:
    """Return a sidecar's settings."""
    inbound = f"""
[inbound]
listen = {_text(instance.inbound)}
application = {_text(instance.application)}
"""
    return f"""\
trust_domain = {_text(trust_domain)}
workers = 1
drain_seconds = 2

[node]
id = {_text(instance.name)}

[ca]
address = {_text(places.ca)}
bundle_address = {_text(places.bundles)}
roots = {_text(places.roots)}
token = {_text(places.token(instance.identity))}
svid_seconds = {svid_seconds}

[policy]
address = {_text(places.policy)}
{inbound if instance.inbound_port else ""}
[outbound]
listen = {_text(instance.outbound)}

[admin]
listen = {_text(instance.admin)}
"""


def _text(value: str | Path) -> str:
    """Write a TOML basic string; JSON's escapes are among TOML's (TOML 1.0 §String)."""
    return json.dumps(str(value))
