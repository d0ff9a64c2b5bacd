"""The one commit at the end of a push: all or nothing, and never twice."""

# SPDX-License-Identifier: Apache-2.0

import hashlib
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from lorafold_hub import card
from lorafold_hub.failures import Failure, status_of
from lorafold_hub.lines import Channel
from lorafold_hub.push import Push, is_stored, model_of

CARD = "README.md"
ATTEMPTS = 5
PAUSES_SECONDS = (2, 4, 8, 16)
CHANGED = 412
PATHS_PER_REQUEST = 500


@dataclass
class Text:
    """What the commit says."""

    message: str
    description: str = ""
    metadata: card.Wanted = field(default_factory=card.Wanted)


Tree = dict[str, str]  # path -> sha256 of a large object, or git's own name of a small file


def stale_weights(present: set[str], new: Collection[str]) -> list[str]:
    """Weights that the new ones replace: of the same variant, whatever their format, because loaders prefer one."""
    replaced = {model_of(path) for path in new} - {None}
    return sorted(path for path in present if path not in new and model_of(path) in replaced)


def identity(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


def local_identity(addition: CommitOperationAdd) -> str:
    if is_stored(addition):
        return addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        content = file.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Committer:
    def __init__(self, push: Push, text: Text, channel: Channel) -> None:
        self.connection, self.target, self.text, self.channel = push.connection, push.target, text, channel
        self.api = self.connection.api
        self.additions = dict(push.additions)
        self.own_card = self.additions.pop(CARD, None)

    def run(self) -> dict[str, Any]:
        """A failure that may pass leaves open whether the commit was made: look before trying again."""
        failure: Exception | None = None
        for attempt in range(ATTEMPTS):
            head = self.head()
            operations, additions = self.operations(head)
            pulls = self.pull_requests()
            try:
                return self.checked(self.send(head, operations), additions)
            except Exception as error:
                if status_of(error) != CHANGED and not self.connection.passes(error):
                    raise
                failure = error
            done = self.connection.call(self.find_applied, head, pulls, additions)
            if done:
                return done
            if attempt < len(PAUSES_SECONDS) and status_of(failure) != CHANGED:
                self.connection.wait(failure, PAUSES_SECONDS[attempt])
        assert failure is not None
        raise failure

    def head(self) -> str:
        return self.connection.call(self.api.repo_info, self.target.repo, revision=self.target.revision).sha

    def pull_requests(self) -> set[str]:
        if not self.target.create_pr:
            return set()
        refs = self.connection.call(self.api.list_repo_refs, self.target.repo, include_pull_requests=True)
        return {one.ref for one in refs.pull_requests or []}

    def send(self, head: str, operations: list[Any]) -> dict[str, Any]:
        info = self.api.create_commit(
            self.target.repo,
            operations,
            commit_message=self.text.message,
            commit_description=self.text.description,
            revision=self.target.revision,
            create_pr=self.target.create_pr,
            parent_commit=head,
        )
        return self.answer(info.oid, info.pr_url, str(info.commit_url))

    def answer(self, oid: str, pr_url: str | None, url: str | None = None) -> dict[str, Any]:
        url = url or f"{constants.ENDPOINT}/{self.target.repo}/commit/{oid}"
        return {"oid": oid, "url": url, "pull_request": pr_url, "repo": self.target.repo}

    def operations(self, head: str) -> tuple[list[Any], dict[str, CommitOperationAdd]]:
        tree = self.connection.call(
            lambda: list(self.api.list_repo_tree(self.target.repo, revision=head, recursive=True))
        )
        present = {file.path for file in tree if isinstance(file, RepoFile)}
        additions = dict(self.additions)
        text = self.make_card(head, CARD in present)
        if text is not None:
            additions[CARD] = CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=text.encode())
        stale = [CommitOperationDelete(path) for path in stale_weights(present, additions)]
        return [*additions.values(), *stale], additions

    def make_card(self, head: str, is_present: bool) -> str | None:
        own = None
        if self.own_card is not None:
            with self.own_card.as_file() as file:
                own = file.read().decode("utf-8", "replace")
        existing = self.read_card(head) if is_present else None
        try:
            return card.make(existing, own, self.text.metadata)
        except card.UnreadableCard:
            whose = "of the repository stays as it is" if existing is not None else "is sent as it is"
            self.channel.notice(f"the model card {whose}, because its metadata cannot be read")
            return None if existing is not None else own

    def read_card(self, head: str) -> str:
        with tempfile.TemporaryDirectory() as directory:
            path = self.connection.call(
                hf_hub_download, self.target.repo, CARD, revision=head, cache_dir=directory, token=self.api.token
            )
            return Path(path).read_bytes().decode("utf-8", "replace")

    def tree_of(self, revision: str, paths: list[str]) -> Tree:
        found: Tree = {}
        for begin in range(0, len(paths), PATHS_PER_REQUEST):
            part = paths[begin : begin + PATHS_PER_REQUEST]
            files = self.connection.call(self.api.get_paths_info, self.target.repo, part, revision=revision)
            found |= {file.path: identity(file) for file in files if isinstance(file, RepoFile)}
        return found

    def differing(self, revision: str, additions: dict[str, CommitOperationAdd]) -> list[str]:
        """Paths that do not have our content at that revision."""
        tree = self.tree_of(revision, list(additions))
        return [path for path, addition in additions.items() if tree.get(path) != local_identity(addition)]

    def find_applied(
        self, head: str, pulls: set[str], additions: dict[str, CommitOperationAdd]
    ) -> dict[str, Any] | None:
        """The commit whose answer was lost, if it was made: all our files are there."""
        if self.target.create_pr:
            for reference in sorted(self.pull_requests() - pulls):
                if not self.differing(reference, additions):
                    number = reference.rpartition("/")[2]
                    oid = self.api.repo_info(self.target.repo, revision=reference).sha
                    link = f"{constants.ENDPOINT}/{self.target.repo}/discussions/{number}"
                    return self.answer(oid, link)
            return None
        now = self.head()
        return self.answer(now, None) if now != head and not self.differing(now, additions) else None

    def checked(self, answer: dict[str, Any], additions: dict[str, CommitOperationAdd]) -> dict[str, Any]:
        absent = self.differing(answer["oid"], additions)
        if absent:
            raise Failure("incomplete", f"'{absent[0]}' is not in the commit {answer['oid']} of '{self.target.repo}'; "
                                        "a .gitignore of the repository may keep it out")
        return answer
