"""The program under test and small directories; the whole run is skipped (77) where it cannot run."""

import importlib.util
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["torch", "transformers", "peft", "safetensors", "numpy"]
TIMEOUT_SECONDS = 120  # a program that hangs is a failure, not a hanging test run

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Run = Callable[..., subprocess.CompletedProcess[str]]


def program_path() -> Path:
    return Path(os.environ.get("LORAFOLD", ROOT / "build" / "lorafold")).resolve()


def pytest_configure(config: pytest.Config) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.exit(f"skipped: Python packages are missing: {' '.join(missing)} (tools/venv)", 77)
    if not program_path().is_file():
        pytest.exit(f"skipped: there is no program at {program_path()} (tools/build)", 77)
    # A background job of a shell inherits an ignored SIGINT and hands it on; a handler is not handed on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    config.addinivalue_line("filterwarnings", "ignore")


@pytest.fixture(scope="session")
def program() -> Path:
    return program_path()


@pytest.fixture(scope="session")
def lorafold(program: Path) -> Run:
    """Run the program; `status` is what it must end with, `environment` is added to ours."""

    def run(
        *arguments: str | Path, status: int = 0, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [str(program), *map(str, arguments)]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=os.environ | (environment or {}),
            cwd=cwd,
            check=False,
        )
        talk = f"{' '.join(words)}\nstatus {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == status, talk
        if status:
            assert done.stderr.strip(), "a failure needs a sentence on standard error"
        return done

    return run


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from large import make_large  # not at the top: it needs the packages that pytest_configure looks for

    directory = tmp_path_factory.mktemp("large")
    make_large(directory)
    return directory


@pytest.fixture
def nothing_left(tmp_path: Path):
    """After the test, `out` and its work directory must not exist."""
    yield
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
