"""What is read of a git repository, and what a hostile one is refused for."""

import gc
import hashlib
import os
import re
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from dulwich.objects import Blob, ObjectID
from dulwich.repo import Repo

from garrison.policies import commit_files, fetching
from garrison.policies.commit_files import MAX_FILE_BYTES, MAX_OBJECT_BYTES, CommitFiles
from garrison.policies.errors import (
    CommitRefusedError,
    RepositoryError,
    RepositoryUnavailableError,
)
from garrison.policies.fetching import TooLargeError
from garrison.policies.object_sizes import packed_cost
from garrison.policies.repository import Repository, open_repository
from tests.policies import git_trees
from tests.policies.git_trees import LINK, SUBMODULE, Content


def read(path: Path, files: dict[str, Content]) -> CommitFiles:
    with git_trees.bare(path / "policy.git") as repo:
        commit = git_trees.commit(repo, files)
    return open_repository(str(path / "policy.git")).read(commit)


def test_policy_files_are_read_from_the_commit(tmp_path: Path) -> None:
    files = read(
        tmp_path,
        {
            "mesh.yaml": "a: 1\n",
            "authz": {"model.conf": "[x]", "a.csv": "p", "README.md": "words"},
            "deep": {"er": {"b.yaml": "b: 1\r\n"}},
            "LICENSE": "words",
            ".github": {"CODEOWNERS": "words", "link": (LINK, b"/etc/passwd")},
        },
    )
    assert files.diagnostics == ()
    assert dict(files.texts) == {
        "mesh.yaml": "a: 1\n",
        "authz/model.conf": "[x]",
        "authz/a.csv": "p",
        "deep/er/b.yaml": "b: 1\r\n",
    }


@pytest.mark.parametrize(
    ("files", "code", "place"),
    [
        ({"a.yaml": (LINK, b"/etc/passwd")}, "irregular", "a.yaml"),
        ({"x": (SUBMODULE, b"1" * 40)}, "irregular", "x"),
        ({"..": {"a.yaml": "a: 1"}}, "name", "'..'"),
        ({"a b.yaml": "a: 1"}, "name", "'a b.yaml'"),
        ({"x\u202elmay.yaml": "a: 1"}, "name", "'x\\u202elmay.yaml'"),
        ({"a.yaml": "a: 1", "A.yaml": "a: 2"}, "case-collision", "a.yaml"),
        ({"a.yml": "a: 1"}, "unexpected", "a.yml"),
        ({"authz": {"a.cvs": "p"}}, "unexpected", "authz/a.cvs"),
        ({"policies": {"a.csv": "p"}}, "unexpected", "policies/a.csv"),
        ({"a.yaml": b"a: \xff"}, "encoding", "a.yaml:1"),
        ({"a.yaml": "a: 1\n# x\rkind: Mesh\n"}, "hidden-character", "a.yaml:2"),
        ({"a.yaml": "a: 1\nb: x\u202ey\n"}, "hidden-character", "a.yaml:2"),
        ({"a.yaml": "#" * (MAX_FILE_BYTES + 1)}, "too-large", "a.yaml"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: dict[str, Content], code: str, place: str) -> None:
    found = read(tmp_path, {**files, "mesh.yaml": "a: 1"})
    assert [(each.code, str(each.place)) for each in found.diagnostics] == [
        (f"repository/{code}", place)
    ]


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, {"a.yaml": "#" * MAX_FILE_BYTES}).diagnostics == ()


def test_folders_have_a_greatest_depth(tmp_path: Path) -> None:
    tree: Content = {"a.yaml": "a: 1"}
    for _ in range(40):
        tree = {"x": tree}
    assert isinstance(tree, dict)
    assert [each.code for each in read(tmp_path, tree).diagnostics] == ["repository/too-deep"]


def test_all_findings_are_collected(tmp_path: Path) -> None:
    files = dict.fromkeys(("a.yml", "b.yml", "c.yml"), "a")
    assert len(read(tmp_path, dict(files)).diagnostics) == 3


def test_the_newest_commit_of_the_branch_is_the_head(tmp_path: Path) -> None:
    with git_trees.bare(tmp_path / "policy.git") as repo:
        git_trees.commit(repo, {"a.yaml": "1"})
        other = git_trees.commit(repo, {"a.yaml": "2"}, branch="next")
        repository = open_repository(f"file://{tmp_path}/policy.git", "next")
        assert repository.head() == other
        newest = git_trees.commit(repo, {"a.yaml": "3"}, branch="next")
    assert repository.head() == newest
    assert repository.find(newest[:10]) == newest
    assert dict(repository.read(newest).texts) == {"a.yaml": "3"}


def test_where_there_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="not a git repository"):
        open_repository(str(tmp_path))
    with pytest.raises(RepositoryError, match="no such directory"):
        open_repository(str(tmp_path / "nowhere"))


def test_where_there_is_no_commit_or_branch(tmp_path: Path) -> None:
    with git_trees.bare(tmp_path / "policy.git") as repo:
        repository = open_repository(str(tmp_path / "policy.git"))
        with pytest.raises(RepositoryError, match="empty"):
            repository.head()
        git_trees.commit(repo, {}, branch="trunk")
    with pytest.raises(RepositoryError, match=re.escape("no branch 'main'; there are: trunk")):
        repository.head()
    for revision in ("0" * 40, "nothing", "", "HEAD..x", "\ud800"):
        with pytest.raises(RepositoryError, match="no commit"):
            repository.find(revision)


@pytest.mark.parametrize("url", ["http://localhost/x", "git://localhost/x", "ftp://localhost/x"])
def test_urls_that_nobody_vouches_for_are_refused(url: str) -> None:
    with pytest.raises(RepositoryError, match="is refused"):
        open_repository(url)


def test_a_url_that_cannot_be_reached_is_an_outage_and_hides_its_token(tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnavailableError) as raised:
        open_repository("https://user:t0ken@127.0.0.1:1/policy.git", cache=tmp_path)
    assert "t0ken" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:unclosed Protocol")  # dulwich's, which holds nothing by then
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (r"printf '000cgarbage\n0000'", "not git's"),
        ("echo '<html>Please sign in</html>'", "cannot be fetched: Invalid"),
        (
            # one reference of 60,000 bytes, its line end counted, again and again
            "yes ea60$(printf '%040d' 1) refs/heads/$(head -c 59943 /dev/zero | tr '\\0' x)",
            "over 16 MiB",
        ),
    ],
)
def test_what_a_remote_says_instead_of_its_branches_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """By a program in place of ssh; nothing but its words is the remote's."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\n{script}\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    with pytest.raises(RepositoryUnavailableError, match=reason):
        open_repository("ssh://localhost/policy.git", cache=tmp_path / "cache")
    gc.collect()  # while the warning is expected


def packed(path: Path, versions: list[dict[str, Content]]) -> tuple[Path, str]:
    """Commit one after the other, and have git pack all of it with deltas; return the last."""
    bare = path / "policy.git"
    with git_trees.bare(bare) as repo:
        commits = [
            git_trees.commit(repo, files, branch=f"v{number}")
            for number, files in enumerate(versions)
        ]
    subprocess.run(["git", "-C", bare, "repack", "-adfq", "--depth=50"], check=True, timeout=60)
    return bare, commits[-1]


def test_deltas_of_a_pack_are_read(tmp_path: Path) -> None:
    lines = [f"# {number}: {hashlib.sha256(bytes(number)).hexdigest()}\n" for number in range(500)]
    texts = ["".join([*lines[:number], "x: 1\n", *lines[number:]]) for number in range(1, 500, 25)]
    bare, last = packed(tmp_path, [{"a.yaml": text} for text in texts])
    repository = open_repository(str(bare), f"v{len(texts) - 1}")
    assert dict(repository.read(last).texts) == {"a.yaml": texts[-1]}
    with Repo(str(bare)) as repo:
        costs = [packed_cost(repo.object_store, Blob.from_string(t.encode()).id) for t in texts]
        assert all(len(texts[0]) <= cost.largest <= len(texts[0]) + 10 for cost in costs)
        assert max(cost.total for cost in costs) > 1.9 * len(texts[0]), "a base, and what follows"
        assert packed_cost(repo.object_store, ObjectID(b"0" * 40)).total == 0


def test_what_would_take_a_lot_of_memory_is_refused_before_it_does(tmp_path: Path) -> None:
    bare, last = packed(tmp_path, [{"a.yaml": b"#" * (64 * 1024 * 1024), "b.yaml": "b: 1"}])
    repository = open_repository(str(bare), "v0")
    tracemalloc.start()
    found = repository.read(last)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [each.code for each in found.diagnostics] == ["repository/too-large"]
    assert set(found.texts) == {"b.yaml"}
    assert peak < MAX_OBJECT_BYTES


def test_a_loose_bomb_is_refused_too(tmp_path: Path) -> None:
    found = read(tmp_path, {"a.yaml": b"#" * (MAX_OBJECT_BYTES + 1)})
    assert [each.code for each in found.diagnostics] == ["repository/too-large"]


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_commit_that_is_a_bomb_is_refused_before_it_is_inflated(
    tmp_path: Path, *, is_packed: bool
) -> None:
    bare = tmp_path / "policy.git"
    with git_trees.bare(bare) as repo:
        small = git_trees.commit(repo, {"a.yaml": "a: 1"}, message=b"m" * 500_000)
        large = git_trees.commit(repo, {"a.yaml": "a: 1"}, message=b"m" * 100_000_000)
    if is_packed:
        subprocess.run(["git", "-C", bare, "repack", "-adfq"], check=True, timeout=120)
    repository = open_repository(str(bare))
    tracemalloc.start()
    assert repository.head() == large
    with pytest.raises(CommitRefusedError, match=r"\(commit\): is larger than 1048576 bytes"):
        repository.read(large)
    with pytest.raises(RepositoryError, match="say less in its message"):
        repository.find("main")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_OBJECT_BYTES
    assert set(repository.read(small).texts) == {"a.yaml"}


def test_a_tree_of_repeated_trees_is_refused_soon(tmp_path: Path) -> None:
    """Ten folders deep, ten of the same in each: ten thousand million files in eleven objects."""
    with git_trees.bare(tmp_path / "policy.git") as repo:
        commit = git_trees.commit_repeated(repo, "abcdefghij", 10)
    found = open_repository(str(tmp_path / "policy.git")).read(commit)
    assert "repository/too-many" in {each.code for each in found.diagnostics}
    assert found.texts == {}


def test_one_large_object_under_many_names_is_read_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_files, "MAX_INFLATED_BYTES", 50_000_000)
    almost = b"#" * (MAX_OBJECT_BYTES - 100)
    kinds: dict[str, Content] = {"file": almost, "folder": (git_trees.FOLDER, almost)}
    for name, kind in kinds.items():
        (tmp_path / name).mkdir()
        found = read(tmp_path / name, {f"{number}.yaml": kind for number in range(30)})
        assert len(found.diagnostics) > 20
        assert found.texts == {}


def test_a_repository_that_lacks_an_object_is_damaged(tmp_path: Path) -> None:
    with git_trees.bare(tmp_path / "policy.git") as repo:
        commit = git_trees.commit(repo, {"a.yaml": "a: 1"})
    name = Blob.from_string(b"a: 1").id.decode()
    (tmp_path / "policy.git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(RepositoryError, match="damaged"):
        open_repository(str(tmp_path / "policy.git")).read(commit)


def test_a_remote_is_fetched_into_the_cache(tmp_path: Path) -> None:
    """By git's own transport for local paths: what is fetched and kept is alike for all."""
    url = f"file://{tmp_path}/policy.git"
    repository = Repository(url, "main", tmp_path / "cache", url)
    with git_trees.bare(tmp_path / "policy.git") as repo:
        with pytest.raises(RepositoryError, match="no branch 'main'; there are: none"):
            repository.refresh()
        first = git_trees.commit(repo, {"a.yaml": "1"})
        repository.refresh()
        assert repository.head() == first
        second = git_trees.commit(repo, {"a.yaml": "2"})
        git_trees.commit(repo, {"a.yaml": "3"}, branch="other")
    assert repository.head() == first
    repository.refresh()
    assert repository.head() == second
    assert repository.find(first[:8]) == first, "the history comes along"
    (tmp_path / "policy.git").rename(tmp_path / "away")
    with pytest.raises(RepositoryError):
        repository.refresh()
    assert dict(repository.read(second).texts) == {"a.yaml": "2"}


def test_a_remote_bomb_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """100 MB of zeros in a pack of 100 kB; whoever indexes it in 160 MB of memory cannot."""
    url, cache = f"file://{tmp_path}/policy.git", tmp_path / "cache"
    limits = fetching.Limits(memory_bytes=160 * 1024 * 1024)
    with git_trees.bare(tmp_path / "policy.git") as repo:
        git_trees.commit(repo, {"a.yaml": "a: 1"})
        Repo.init_bare(tmp_path / "other", mkdir=True).close()
        fetching.fetch(url, "main", tmp_path / "other", limits)  # it is enough for what is small
        git_trees.commit(repo, {"a.yaml": "a: 1", "b.txt": bytes(100_000_000)})
    Repo.init_bare(cache, mkdir=True).close()
    with pytest.raises(TooLargeError, match="160 MiB of memory"):
        fetching.fetch(url, "main", cache, limits)
    with pytest.raises(TooLargeError, match="0 MiB of disk"):
        fetching.fetch(url, "main", cache, fetching.Limits(pack_bytes=50_000))
    assert [file for file in (cache / "objects").rglob("*") if file.is_file()] == []
    fetching.fetch(url, "main", cache)
    repository = Repository("here", "main", cache, None)
    assert set(repository.read(repository.head()).texts) == {"a.yaml"}, "nobody reads b.txt"


def test_what_was_too_large_is_not_fetched_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tried = f"file://{tmp_path}/policy.git", []

    def fetch(remote: str, branch: str, into: Path) -> None:
        tried.append(remote)
        fetching.fetch(remote, branch, into, fetching.Limits(pack_bytes=100))

    monkeypatch.setattr("garrison.policies.repository.fetch", fetch)
    repository = Repository(url, "main", tmp_path / "cache", url)
    with git_trees.bare(tmp_path / "policy.git") as repo:
        git_trees.commit(repo, {"a.yaml": "1"})
        for _ in range(3):
            with pytest.raises(RepositoryError, match="remove what is large"):
                repository.refresh()
        assert len(tried) == 1
        git_trees.commit(repo, {"a.yaml": "2"})
        with pytest.raises(RepositoryError):
            repository.refresh()
        assert len(tried) == 2
