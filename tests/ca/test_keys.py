"""Keys are encrypted, closed to others, and never shown."""

import logging
import os
import pickle
import secrets
import subprocess
import traceback
from pathlib import Path

import pytest

from garrison.ca.errors import StateRejectedError
from garrison.ca.keys import (
    KeyType,
    Passphrase,
    SigningKey,
    load_key,
    read_passphrase,
    write_file,
)
from tests.ca.authorities import PASSPHRASE

KEY = SigningKey.generate(KeyType.P256)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.key"
    write_file(path, KEY.encrypt(PASSPHRASE))
    return path


@pytest.mark.parametrize("key_type", KeyType)
def test_a_key_reads_back(tmp_path: Path, key_type: KeyType) -> None:
    key = SigningKey.generate(key_type)
    write_file(tmp_path / "x.key", key.encrypt(PASSPHRASE))
    read = load_key(tmp_path / "x.key", PASSPHRASE)
    assert (read.public, read.key_type) == (key.public, key_type)


def test_a_key_at_rest_is_pkcs8_that_openssl_reads(file: Path) -> None:
    command = ["openssl", "pkey", "-in", str(file), "-noout", "-passin"]
    for secret, is_right in ((PASSPHRASE.secret.decode(), True), ("wrong wrong wrong", False)):
        done = subprocess.run([*command, f"pass:{secret}"], capture_output=True, check=False)
        assert (done.returncode == 0) is is_right


def test_a_wrong_passphrase_is_told_in_one_message(file: Path) -> None:
    with pytest.raises(StateRejectedError, match=rf"{file}: wrong passphrase"):
        load_key(file, Passphrase(b"another passphrase"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int) -> None:
    assert load_key(file, PASSPHRASE)
    file.chmod(mode)
    with pytest.raises(StateRejectedError, match="chmod 600"):
        load_key(file, PASSPHRASE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, 65534, -1)
    with pytest.raises(StateRejectedError, match="belongs to user 65534"):
        load_key(file, PASSPHRASE)


def test_what_is_no_file_of_a_key_is_refused(tmp_path: Path, file: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "text").write_text("x")
    (tmp_path / "text").chmod(0o600)
    for wrong in (tmp_path, tmp_path / "pipe", tmp_path / "absent", tmp_path / "text"):
        with pytest.raises(StateRejectedError):
            load_key(wrong, PASSPHRASE)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(StateRejectedError):
        load_key(file, PASSPHRASE)


@pytest.mark.parametrize(
    "options",
    [
        ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ["RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-aes256", "-pass", "pass:" + "x" * 20],
        ["EC", "-pkeyopt", "ec_paramgen_curve:P-224", "-aes256", "-pass", "pass:" + "x" * 20],
    ],
    ids=["not encrypted", "RSA", "P-224"],
)
def test_a_key_of_another_kind_is_refused(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "x.key"
    command = ["openssl", "genpkey", "-out", str(file), "-algorithm", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    file.chmod(0o600)
    with pytest.raises(StateRejectedError, match=r"not an ECDSA key|not encrypted"):
        load_key(file, Passphrase(b"x" * 20))


def test_a_passphrase_is_a_line_of_a_closed_file(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    write_file(file, b"correct horse battery staple\n")
    assert read_passphrase(file).secret == b"correct horse battery staple"
    file.chmod(0o644)
    with pytest.raises(StateRejectedError, match="0644"):
        read_passphrase(file)


@pytest.mark.parametrize("secret", [b"", b"\n", b"short\n"])
def test_a_passphrase_that_can_be_guessed_is_refused(tmp_path: Path, secret: bytes) -> None:
    write_file(tmp_path / "passphrase", secret)
    with pytest.raises(StateRejectedError, match="16 bytes"):
        read_passphrase(tmp_path / "passphrase")


def test_neither_key_nor_passphrase_shows(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = Passphrase(secrets.token_bytes(16).hex().encode())
    logging.getLogger().info("%r %s %r", KEY, KEY, PASSPHRASE)
    with pytest.raises(StateRejectedError) as refusal:
        load_key(file, wrong)
    told = caplog.text + "".join(traceback.format_exception(refusal.value))
    assert "KeyType.P256" in told
    for secret in (PASSPHRASE.secret.decode(), wrong.secret.decode(), "BEGIN"):
        assert secret not in told
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_file(file, b"old")
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        write_file(file, "text, not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
