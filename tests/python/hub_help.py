"""The test hub for test programs: its users, and processes that know only of it."""

import os
import subprocess
import sys
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
