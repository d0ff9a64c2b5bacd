"""The test hub on a port of 127.0.0.1: HTTP, the record of requests, and faults on demand."""

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from hub.routes import Reply, Request, answer
from hub.state import State


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of this method whose path has this pattern."""

    method: str
    path: str
    times: int = 1
    status: int | None = None  # answered instead
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False  # do what was asked for, and then answer `status`
    cut: int | None = None  # read (PUT) or send (GET) this many bytes and close the connection
    hold: threading.Event | None = None  # wait for it, then go on as usual
    reached: threading.Event = field(default_factory=threading.Event)  # set when it strikes


class TestHub:
    """Use as a context: requests are served from a thread until the end of it."""

    __test__ = False  # not for pytest to collect

    def __init__(self) -> None:
        self.state = State()
        self.requests: list[str] = []  # "METHOD /path?query", in order of arrival
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.storage_url = f"http://localhost:{port}"  # another origin to the client

    def __enter__(self) -> "TestHub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            if fault.hold:
                fault.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, pattern: str) -> int:
        with self._lock:
            return sum(line.startswith(method + " ") and re.search(pattern, line) is not None for line in self.requests)

    def fail(self, *words: object, **options: object) -> Fault:
        fault = Fault(*words, **options)
        self.faults.append(fault)
        return fault

    def record(self, method: str, target: str) -> Fault | None:
        with self._lock:
            self.requests.append(f"{method} {target}")
            for fault in self.faults:
                if fault.times > 0 and method == fault.method and re.search(fault.path, target):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request: Request) -> Reply:
        with self._lock:
            return answer(self.state, request)


def _handler(hub: TestHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                pass  # a client that was killed

        def body(self, limit: int | None) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                size = int(self.headers.get("Content-Length", 0))
                return self.rfile.read(size if limit is None else min(size, limit))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def serve(self) -> None:
            fault = hub.record(self.command, self.path)
            cut = fault.cut if fault else None
            body = self.body(cut if self.command == "PUT" else None)
            if fault:
                fault.reached.set()
                if fault.hold:
                    fault.hold.wait()
            if cut is not None and self.command == "PUT":
                self.close_connection = True
                return
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(
                self.command, url.path, parse_qs(url.query, keep_blank_values=True), headers, body, hub.url,
                hub.storage_url,
            )
            if fault and fault.status and not fault.applied:
                reply = Reply(fault.status, b"", fault.headers)
            else:
                reply = hub.answer(request)
                if fault and fault.status:
                    reply = Reply(fault.status, b"", fault.headers)
            self.send(reply, cut)

        def send(self, reply: Reply, cut: int | None) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body if cut is None else reply.body[:cut])
            self.close_connection = self.close_connection or cut is not None

        do_GET = do_HEAD = do_POST = do_PUT = serve

    return Handler
