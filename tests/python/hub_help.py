"""The test hub for test programs: its users, and processes that know only of it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from hub import TestHub, User  # noqa: E402

TOKEN = "hf_SECRETsecretSECRETsecret0123456789"
STRANGER = "hf_STRANGERstrangerSTRANGER9876543210"
TIMEOUT_SECONDS = 120
CLEARED = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
           "http_proxy", "https_proxy", "all_proxy")


@contextmanager
def running_hub() -> Iterator[TestHub]:
    with TestHub() as hub:
        hub.state.users = {TOKEN: User("ada", ("team",)), STRANGER: User("bob")}
        yield hub


def environment(hub: TestHub, home: Path, token: str | None = TOKEN, **more: str) -> dict[str, str]:
    """No variable of the caller's leads to another hub, cache or token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    fixed = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HOME": str(home),
             "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT / "python")}
    return kept | fixed | ({"HF_TOKEN": token} if token else {}) | more


def client(code: str, *arguments: object, env: dict[str, str]) -> str:
    """Run a program of the genuine client; its output without the last line's end."""
    words = [sys.executable, "-c", "import sys\nfrom huggingface_hub import *\n" + code, *map(str, arguments)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Helper:
    """The helper in a process of its own, spoken to by its protocol.  Nothing that it says may hold a token."""

    def __init__(self, hub: TestHub, home: Path, token: str | None = TOKEN, **more: str) -> None:
        words = [sys.executable, "-m", "lorafold_hub"]
        env = environment(hub, home, token, **more)
        self.errors = tempfile.TemporaryFile("w+")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self.errors, env=env)
        self.lines: list[dict] = []
        self.asked = 0

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.finish()

    def ask(self, do: str, **members: object) -> int:
        self.asked += 1
        self.send(json.dumps({"id": self.asked, "do": do} | members))
        return self.asked

    def send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it may refuse a line that it has not read to its end
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def answer(self, number: int) -> dict:
        """What was said to this request, however late; other lines are kept."""
        while True:
            for line in self.lines:
                if line.get("id") == number and ("done" in line or "error" in line):
                    return line
            text = self.process.stdout.readline()
            assert text, f"the helper ended: {self.stderr()}"
            self.lines.append(json.loads(text))

    def done(self, do: str, **members: object) -> dict:
        answer = self.answer(self.ask(do, **members))
        assert "done" in answer, answer
        return answer["done"]

    def refused(self, do: str, **members: object) -> tuple[str, int, str]:
        answer = self.answer(self.ask(do, **members))
        assert "error" in answer, answer
        assert answer["sentence"] and "\n" not in answer["sentence"]
        return answer["error"], answer["exit"], answer["sentence"]

    def notices(self) -> list[str]:
        return [line["notice"] for line in self.lines if "notice" in line]

    def stderr(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def finish(self) -> int:
        """End the conversation; look through all that was said, and the command line, for tokens."""
        command = Path(f"/proc/{self.process.pid}/cmdline")
        seen = command.read_text() if self.process.poll() is None else ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        rest = self.process.stdout.read().decode()
        self.process.wait(TIMEOUT_SECONDS)
        seen += json.dumps(self.lines) + rest + self.stderr()
        assert TOKEN not in seen and STRANGER not in seen
        return self.process.returncode
