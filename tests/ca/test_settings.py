"""The CA's settings: what each mistake is told as."""

from pathlib import Path

import pytest

from garrison.ca.settings import PREFIX, CaSettings
from garrison.identity.settings import SettingsError, load_settings
from tests.ca.test_cli import SETTINGS

TEXT = SETTINGS.format(admin=15014)
JWKS = 'jwks_file = "jwks.json"'
WRONG = {
    TEXT.replace('kind = "oidc"', 'kind = "magic"'): r"attestors\.0\.kind",
    TEXT.replace(JWKS, ""): "either jwks_file or jwks_url",
    TEXT + 'jwks_url = "https://a.example/"': "either jwks_file or jwks_url",
    TEXT.replace('name = "local"', 'name = "Local"'): "Local",
    TEXT.replace('audience = "garrison-ca"', 'audience = ""'): "audience",
    TEXT + 'algorithms = ["none"]': "none",
    TEXT + 'algorithms = ["ES256", "HS256"]': "HS256",
    TEXT + "algorithms = []": "wanted are some of",
    TEXT + "\n[svid]\nmax_seconds = 86401": r"svid\.max_seconds",
    TEXT + "\n[svid]\ndefault_seconds = 0": r"svid\.default_seconds",
    TEXT + "\n[svid]\nmax_seconds = 60": "default_seconds is above",
    TEXT + "\n[limits]\nburst = 0": r"limits\.burst",
    TEXT.replace("admin_listen", "admin_liste"): "admin_liste: no such setting",
    TEXT.replace('admin_listen = "127.0.0.1', 'admin_listen = "0.0.0.0'): "loopback",
    TEXT.replace('\nlisten = "127.0.0.1:0"', '\nlisten = "15012"'): "IP:PORT",
    TEXT.replace('\nlisten = "127.0.0.1:0"', '\nlisten = "127.0.0.1:65536"'): "IP:PORT",
    TEXT.replace('"example.org"', '"Example.org"'): r"trust_domain: not a trust domain: 'Example\.",
    TEXT.replace('"example.org"', '"spiffe://example.org"'): "trust_domain",
    TEXT + TEXT[TEXT.index("[[attestors]]") :]: "same name",
    TEXT + TEXT[TEXT.index("[[attestors]]") :].replace("local", "other"): "same issuer",
    TEXT[: TEXT.index("[[attestors]]")]: "attestors: field required",
    "attestors = []\n" + TEXT[: TEXT.index("[[attestors]]")]: "one or more",
}


def load(directory: Path, text: str) -> CaSettings:
    file = directory / "ca.toml"
    file.write_text(text)
    return load_settings(CaSettings, file, PREFIX, {})


def test_defaults_and_paths(tmp_path: Path) -> None:
    settings = load(tmp_path, TEXT)
    assert settings.state == tmp_path / "state"
    assert settings.attestors[0].jwks_file == tmp_path / "jwks.json"
    assert settings.repository == str(tmp_path / "repository")
    assert settings.svid.lifetimes.default.total_seconds() == 21_600
    assert settings.svid.lifetimes.maximum.total_seconds() == 86_400
    assert settings.attestors[0].accepted.algorithms == {"RS256", "ES256"}
    remote = load(tmp_path, TEXT.replace('"repository"', '"https://git.example/mesh.git"'))
    assert remote.repository == "https://git.example/mesh.git"


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=WRONG.values())
def test_a_mistake_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, text)
