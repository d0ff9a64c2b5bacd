"""One conversation with the program: each request is answered once, uploads among other things."""

# SPDX-License-Identifier: Apache-2.0

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import huggingface_hub

from lorafold_hub import __version__, push
from lorafold_hub.card import Wanted
from lorafold_hub.commit import Committer, Text
from lorafold_hub.connection import Connection
from lorafold_hub.failures import About, Failure, explain
from lorafold_hub.fetch import fetch
from lorafold_hub.lines import BadLine, Channel
from lorafold_hub.tokens import find_token

PROTOCOL = 1
UPLOADS = 3  # files on their way at a time; the program bounds them further where the disk is small

Request = dict[str, Any]


def field(request: Request, name: str, kind: type, default: Any = None) -> Any:
    """A member of a request; without a default it must be there."""
    value = request.get(name, default)
    if value is None and default is None and name in OPTIONAL:
        return None
    if not isinstance(value, kind):
        raise Failure("request", f"a request '{request.get('do')}' has no '{name}'")
    return value


OPTIONAL = ("token_file", "revision", "base_model", "adapter")


class Session:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.connection: Connection | None = None
        self.push: push.Push | None = None
        self.stores: list[Future[None]] = []
        self.broken: Failure | None = None  # of the first file that could not be stored
        self.order = ThreadPoolExecutor(1)  # fetch, create, commit: one after the other
        self.uploads = ThreadPoolExecutor(UPLOADS)
        self.busy = 0
        self.lock = threading.Lock()

    def hello(self, request: Request) -> dict[str, Any]:
        token, source = find_token(field(request, "token_file", str), self.channel)
        self.connection = Connection(token, source, self.channel)
        about = {"protocol": PROTOCOL, "helper": __version__, "huggingface_hub": huggingface_hub.__version__}
        return about | {"token": source is not None}

    def fetch(self, request: Request) -> dict[str, Any]:
        repo = field(request, "repo", str)
        connection = self.connected(repo)

        def report(fetched: int, total: int) -> None:
            self.channel.write({"id": request["id"], "progress": {"bytes": fetched, "total": total}})

        weights = field(request, "weights", bool, True)
        return fetch(connection, repo, field(request, "revision", str), report, weights)

    def create(self, request: Request) -> dict[str, Any]:
        repo = field(request, "repo", str)
        connection = self.connected(repo)
        if self.push is not None:
            raise Failure("request", "one conversation makes one push")
        self.push = push.create(
            connection,
            repo,
            field(request, "revision", str),
            field(request, "create_pr", bool, False),
            field(request, "private", bool, False),
            field(request, "adapter", bool),
        )
        return {"repo": self.push.target.repo, "url": self.push.target.url}

    def store(self, request: Request) -> dict[str, Any]:
        if self.push is None:
            raise Failure("request", "a file is stored before the repository is created")
        arguments = (field(request, "path", str), field(request, "file", str), field(request, "delete", bool, False))

        def report(sent: int) -> None:
            self.channel.write({"id": request["id"], "progress": {"bytes": sent}})

        return self.push.store(*arguments, report)

    def commit(self, request: Request) -> dict[str, Any]:
        if self.push is None:
            raise Failure("request", "a commit before the repository is created")
        for store in self.stores:
            store.result()
        if self.broken:
            raise self.broken
        tags = field(request, "tags", list, [])
        message = field(request, "message", str)
        if not message.strip():
            raise Failure("option", "the message of a commit may not be empty")
        datasets = [str(one) for one in field(request, "datasets", list, [])]
        wanted = Wanted([str(tag) for tag in tags], field(request, "base_model", (str, list)), datasets)
        text = Text(message, field(request, "description", str, ""), wanted)
        return Committer(self.push, text, self.channel).run()

    def connected(self, repo: str) -> Connection:
        if self.connection is None:
            raise Failure("request", "the first request is not 'hello'")
        self.connection.check_name(repo)
        return self.connection

    def about(self, request: Request) -> About:
        repo = request.get("repo") or (self.push.target.repo if self.push else "")
        revision = request.get("revision") or (self.push.target.revision if self.push else None)
        source = self.connection.token_source if self.connection else None
        return About(str(repo), revision, source)

    def answer(self, request: Request, function: Callable[[Request], dict[str, Any]]) -> None:
        try:
            answer: dict[str, Any] = {"done": function(request)}
        except Exception as error:
            failure = explain(error, self.about(request))
            if function == self.store:
                self.broken = self.broken or failure
            answer = {"error": failure.kind, "exit": failure.exit, "sentence": failure.sentence}
        with self.lock:
            self.busy -= 1  # first: the program may end the conversation as soon as it has the answer
        self.channel.write({"id": request["id"]} | answer)

    def take(self, request: Request) -> None:
        """Begin what is asked for; the answer comes when it is done."""
        functions = {"hello": self.hello, "fetch": self.fetch, "create": self.create, "commit": self.commit}
        name = request.get("do")
        with self.lock:
            self.busy += 1
        if name == "store":
            self.stores.append(self.uploads.submit(self.answer, request, self.store))
        elif name in functions:
            self.order.submit(self.answer, request, functions[name])
        else:
            self.answer(request, self.unknown)

    def unknown(self, request: Request) -> dict[str, Any]:
        raise Failure("request", f"this helper does not know the request '{request.get('do')}'")


def serve(channel: Channel) -> int:
    """Until the program closes the pipe (or dies, which looks the same) or gives up.  The exit status."""
    session = Session(channel)
    try:
        while (request := channel.read()) is not None:
            if request.get("do") == "abort":
                channel.write({"id": request["id"], "done": {}})
                return 0
            session.take(request)
    except BadLine as error:
        channel.write({"id": 0, "error": "request", "exit": 1, "sentence": str(error)})
        return 1
    except BrokenPipeError:
        return 1
    return 1 if session.busy else 0
