"""Repositories of the test hub, in memory: commits, references, large objects, and who may do what."""

import hashlib
import json
from dataclasses import dataclass, field


@dataclass
class User:
    name: str
    organizations: tuple[str, ...] = ()
    may_write: bool = True


@dataclass
class Entry:
    """A file of a commit: a large object has a sha256, a small one its content."""

    size: int
    oid: str  # of the git blob: the content's, or the pointer's
    content: bytes = b""
    sha256: str | None = None


@dataclass
class Commit:
    oid: str
    files: dict[str, Entry]
    parent: str | None
    message: str
    description: str


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def small(content: bytes) -> Entry:
    return Entry(len(content), git_oid(content), content)


def large(sha256: str, size: int) -> Entry:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Entry(size, git_oid(pointer.encode()), sha256=sha256)


@dataclass
class Repo:
    id: str
    private: bool = False
    gated: bool = False
    references: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(
        self, reference: str, files: dict[str, Entry], message: str, description: str = "", parent: str | None = None
    ) -> Commit:
        """`files` is the whole tree; the parent is where the reference stands unless one is named."""
        parent = parent or self.references.get(reference)
        tree = {path: entry.oid for path, entry in sorted(files.items())}
        text = json.dumps([self.id, parent, message, description, tree, len(self.commits)])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), files, parent, message, description)
        self.commits[commit.oid] = commit
        self.references[reference] = commit.oid
        return commit

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.references.get(revision, revision))

    def head(self, reference: str = "main") -> Commit:
        return self.commits[self.references[reference]]

    def pull_requests(self) -> list[str]:
        return [name for name in self.references if name.startswith("refs/pr/")]


class State:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.users: dict[str, User] = {}  # by token
        self.objects: dict[str, bytes] = {}  # by sha256
        self.uploads: list[str] = []  # sha256 of each object that came whole, in order

    def add(self, repo: Repo, files: dict[str, bytes]) -> Repo:
        """A repository with one commit of these files; weights become large objects."""
        self.repos[repo.id] = repo
        repo.commit("main", {path: self.entry(path, content) for path, content in files.items()}, "files")
        return repo

    def entry(self, path: str, content: bytes) -> Entry:
        if not is_large(path, len(content)):
            return small(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return large(sha256, len(content))

    def content(self, entry: Entry) -> bytes:
        return self.objects[entry.sha256] if entry.sha256 else entry.content


def is_large(path: str, size: int) -> bool:
    """What the default .gitattributes of a model repository and the server's threshold say."""
    return path.endswith((".safetensors", ".bin")) or size > 1_000_000


def may_read(repo: Repo, user: User | None) -> bool:
    return not repo.private or (user is not None and is_member(repo.id, user))


def may_write(repo_id: str, user: User | None) -> bool:
    return user is not None and user.may_write and is_member(repo_id, user)


def is_member(repo_id: str, user: User) -> bool:
    return repo_id.split("/")[0] in (user.name, *user.organizations)
