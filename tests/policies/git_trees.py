"""Git objects made by hand, also such as git itself would never make."""

from collections.abc import Mapping
from pathlib import Path

from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo

REGULAR = 0o100644
LINK = 0o120000
SUBMODULE = 0o160000
FOLDER = 0o040000

Content = bytes | str | Mapping[str, "Content"] | tuple[int, bytes]


def bare(path: Path) -> Repo:
    """Make a bare repository."""
    return Repo.init_bare(path, mkdir=True)


def commit(
    repo: Repo, files: Mapping[str, Content], branch: str = "main", message: bytes = b"policy"
) -> str:
    """Commit a tree of files, folders (mappings) and, as (mode, content), anything else."""
    return _commit_of(repo, _tree(repo, files), branch, message)


def _commit_of(repo: Repo, tree: ObjectID, branch: str, message: bytes) -> str:
    made = Commit()
    made.tree = tree
    made.author = made.committer = b"Ada <ada@bookstore.example>"
    made.author_time = made.commit_time = 1_795_000_000
    made.author_timezone = made.commit_timezone = 0
    made.message = message
    repo.object_store.add_object(made)
    repo.refs[Ref(f"refs/heads/{branch}".encode())] = made.id
    return made.id.decode()


def commit_repeated(repo: Repo, names: str, depth: int) -> str:
    """Commit a tree in which every folder has the same folders, `depth` deep."""
    tree = Tree()
    for _ in range(depth):
        repo.object_store.add_object(tree)
        inner, tree = tree.id, Tree()
        for name in names:
            tree.add(name.encode(), FOLDER, inner)
    repo.object_store.add_object(tree)
    return _commit_of(repo, tree.id, "main", b"policy")


def nested(files: Mapping[str, str]) -> dict[str, Content]:
    """Turn paths into folders."""
    tree: dict[str, Content] = {}
    for path, text in files.items():
        *folders, name = path.split("/")
        inner: dict[str, Content] = tree
        for folder in folders:
            step = inner.setdefault(folder, {})
            assert isinstance(step, dict)
            inner = step
        inner[name] = text
    return tree


def _tree(repo: Repo, files: Mapping[str, Content]) -> ObjectID:
    tree = Tree()
    for name, given in files.items():
        mode, content = given if isinstance(given, tuple) else (REGULAR, given)
        if isinstance(content, Mapping):
            tree.add(name.encode(), FOLDER, _tree(repo, content))
            continue
        data = content.encode() if isinstance(content, str) else content
        if mode == SUBMODULE:
            tree.add(name.encode(), mode, ObjectID(data))
            continue
        blob = Blob.from_string(data)
        repo.object_store.add_object(blob)
        tree.add(name.encode(), mode, blob.id)
    repo.object_store.add_object(tree)
    return tree.id
