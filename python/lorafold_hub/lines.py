"""Lines of JSON on two pipes, from which secrets are taken out."""

# SPDX-License-Identifier: Apache-2.0

import json
import threading
from typing import Any, BinaryIO, TextIO

LINE_BYTES_MAX = 65536  # HUB_LINE_BYTES_MAX of src/hub/helper.h
SECRET_LETTERS_MIN = 8  # what is shorter is no token, and taking it out would garble sentences
HIDDEN = "<token>"


class BadLine(Exception):
    """The line is no request."""


class Channel:
    """Requests come in on one pipe; answers of all threads go out on the other, one line each."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self._secrets: list[str] = []

    def hide(self, secret: str | None) -> None:
        """From now on this text appears in no line."""
        if secret and len(secret) >= SECRET_LETTERS_MIN:
            self._secrets.append(secret)

    def scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def read(self) -> dict[str, Any] | None:
        """The next request, or None when the program has closed the pipe or died."""
        line = self._reader.readline(LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            if len(line) == LINE_BYTES_MAX:
                raise BadLine(f"a request is longer than {LINE_BYTES_MAX} bytes")
            return None
        try:
            request = json.loads(line)
        except ValueError as error:
            raise BadLine(f"a request is not JSON: {error}") from None
        if not isinstance(request, dict) or not isinstance(request.get("id"), int):
            raise BadLine("a request has no number")
        return request

    def write(self, message: dict[str, Any]) -> None:
        line = json.dumps(self._scrubbed(message)).encode() + b"\n"
        with self._lock:
            while line:
                line = line[self._writer.write(line) :]

    def notice(self, sentence: str) -> None:
        self.write({"notice": sentence})

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            # A name of a file may hold bytes that JSON cannot.
            return self.scrub(value.encode("utf-8", "backslashreplace").decode())
        if isinstance(value, dict):
            return {name: self._scrubbed(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        return value


class ScrubbedStream:
    """stderr without secrets: what libraries log there is passed on by the program."""

    def __init__(self, stream: TextIO, channel: Channel) -> None:
        self._stream = stream
        self._channel = channel

    def write(self, text: str) -> int:
        self._stream.write(self._channel.scrub(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
