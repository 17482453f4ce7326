"""The state directory is made whole or not at all, and never overwritten."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from garrison.ca.audit import verify
from garrison.ca.errors import IssuerUnavailableError, StateRejectedError
from garrison.ca.keys import KeyType, Passphrase
from garrison.ca.state import StateDirectory
from garrison.identity.spiffe_id import parse_trust_domain
from tests.ca.authorities import PASSPHRASE, TRUST_DOMAIN, CaInDirectory, Clock, make_ca, open_ca

SECRET = ["ca.db", "issuing.key", "root.key"]


def create(state: StateDirectory) -> None:
    state.create(TRUST_DOMAIN, KeyType.P256, PASSPHRASE)


def test_it_holds_what_a_ca_needs_and_keeps_it_closed(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "deep" / "state")
    create(state)
    names = sorted(file.name for file in state.path.iterdir())
    assert names == sorted([*SECRET, "issuing.pem", "root.pem", "roots.pem"])
    assert state.path.stat().st_mode & 0o777 == 0o700
    for name in SECRET:
        assert (state.path / name).stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in state.path.parent.iterdir()) == ["state"]
    state.check()


def test_it_may_be_made_in_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    create(StateDirectory(tmp_path / "state"))


def test_it_is_never_overwritten(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    create(state)
    before = (state.path / "root.pem").read_bytes()
    with pytest.raises(StateRejectedError, match="never overwritten"):
        create(state)
    assert (state.path / "root.pem").read_bytes() == before


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateRejectedError):
            create(StateDirectory(path))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_crash_while_making_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The process dies when the store is to be made, with every key written already."""
    program = textwrap.dedent(
        f"""
        import os
        from pathlib import Path
        from garrison.ca import state
        from garrison.ca.keys import KeyType, Passphrase
        from garrison.identity.spiffe_id import parse_trust_domain
        state.create_store = lambda _: os._exit(9)
        made = state.StateDirectory(Path({str(tmp_path / "state")!r}))
        made.create(parse_trust_domain("example.org"), KeyType.P256, Passphrase(b"x" * 16))
        """
    )
    died = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert died.returncode == 9
    assert not (tmp_path / "state").exists()
    create(StateDirectory(tmp_path / "state"))
    open_ca(StateDirectory(tmp_path / "state")).store.close()


def test_a_wrong_trust_domain_or_passphrase_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    create(state)
    assert state.open_authority(TRUST_DOMAIN, PASSPHRASE)
    with pytest.raises(StateRejectedError, match="wrong passphrase"):
        state.open_authority(TRUST_DOMAIN, Passphrase(b"x" * 16))
    with pytest.raises(StateRejectedError, match=r"trust_domain is other\.example"):
        state.open_authority(parse_trust_domain("other.example"), PASSPHRASE)


def test_files_of_two_cas_do_not_mix(tmp_path: Path) -> None:
    ours, theirs = (StateDirectory(tmp_path / name) for name in ("ours", "theirs"))
    create(ours)
    create(theirs)
    for name, message in (("issuing.key", "not of the issuing key"), ("root.pem", "chain")):
        original = (ours.path / name).read_bytes()
        (ours.path / name).write_bytes((theirs.path / name).read_bytes())
        with pytest.raises(StateRejectedError, match=message):
            ours.open_authority(TRUST_DOMAIN, PASSPHRASE)
        (ours.path / name).write_bytes(original)
    (ours.path / "issuing.pem").write_bytes((ours.path / "root.pem").read_bytes())
    (ours.path / "issuing.key").write_bytes((ours.path / "root.key").read_bytes())
    with pytest.raises(StateRejectedError, match="BasicConstraints"):
        ours.open_authority(TRUST_DOMAIN, PASSPHRASE)


def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    with pytest.raises(StateRejectedError, match="garrison ca init"):
        state.check()
    create(state)
    state.path.chmod(0o770)
    with pytest.raises(StateRejectedError, match="chmod 700"):
        state.check()


@pytest.mark.parametrize("content", [None, b"", b"x" * 4096])
def test_a_store_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    state = StateDirectory(tmp_path / "state")
    create(state)
    (state.path / "ca.db").unlink()
    if content is not None:
        (state.path / "ca.db").write_bytes(content)
    with pytest.raises(StateRejectedError, match="store"):
        state.open_store(Clock())


def test_what_was_issued_is_remembered(tmp_path: Path) -> None:
    first = make_ca(tmp_path)
    first.issue()
    head = first.store.audit_head()
    first.store.close()
    again = open_ca(first.state)
    assert again.store.audit_head() == head
    assert again.store.live_identities(again.clock())[0].certificates == 1
    again.clock.offset = timedelta(hours=7)
    assert again.store.live_identities(again.clock()) == []
    again.store.close()


def test_a_kill_at_any_moment_leaves_a_consistent_store(tmp_path: Path) -> None:
    """`kill -9` while eight threads issue: the chain holds, and what was released is in it."""
    make_ca(tmp_path).store.close()
    program = textwrap.dedent(
        f"""
        import threading
        from pathlib import Path
        from garrison.ca.state import StateDirectory
        from tests.ca.authorities import leaf_of, open_ca
        ca = open_ca(StateDirectory(Path({str(tmp_path / "state")!r})))
        def issue():
            while True:
                print(f"{{leaf_of(ca.issue()).serial_number:x}}\\n", end="", flush=True)
        for _ in range(8):
            threading.Thread(target=issue).start()
        """
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout
            released = [process.stdout.readline() for _ in range(20)]
            process.kill()
            released += process.stdout.readlines()
        ca = open_ca(StateDirectory(tmp_path / "state"))
        rows = list(ca.store.audit_rows())
        ca.store.close()
        assert verify(rows).sequence == len(rows)
        signed = {row.details for row in rows if row.kind == "issuance signed"}
        told = "".join(signed)
        assert all(line.strip() in told for line in released if line.endswith("\n"))


def test_a_store_may_be_closed_while_threads_issue(fresh_ca: CaInDirectory) -> None:
    """What happens when `ca serve` ends, or never starts: a thread cannot be cancelled."""
    issued: list[int] = []

    def issue_until_refused() -> None:
        with contextlib.suppress(IssuerUnavailableError):
            while True:
                fresh_ca.issue()
                issued.append(1)

    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(issue_until_refused) for _ in range(4)]
        while len(issued) < 8:
            time.sleep(0.001)
        fresh_ca.store.close()
        for end in ends:
            end.result(timeout=30)
    with pytest.raises(IssuerUnavailableError, match="closed"):
        fresh_ca.issue()


def test_a_commit_is_on_the_disk_when_it_returns(fresh_ca: CaInDirectory) -> None:
    """A write-ahead log, synced at each commit: without it a power cut takes audit rows along."""
    fresh_ca.issue()
    engine = fresh_ca.store._engine  # noqa: SLF001  # a connection as the store has it
    for options in ({}, {"writes": True}):
        with engine.connect().execution_options(**options) as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert found == ["wal", 2, 1], "WAL, FULL, on"
