"""The wheel: built, installed into a fresh environment without a compiler on the path, and used."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
from conftest import ROOT

BUILD_SECONDS = 600

USE = """
import sys, lorafold
print(lorafold.__file__)
report = lorafold.merge(*sys.argv[1:4])
print(lorafold.verify(sys.argv[3]).file_count > 0, report.tensors_folded)
"""


def run(*words: object, **environment: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(word) for word in words], env=kept | environment, capture_output=True, text=True, timeout=BUILD_SECONDS,
        check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_wheel(tmp_path: Path):
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed (tools/venv)")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-build-isolation", "--no-deps", "--no-index", f"-Cbuild-dir={tmp_path / 'build'}"]
    run(*pip, "wheel", ROOT, *options, "-w", tmp_path)
    wheel = next(tmp_path.glob("lorafold-*-py3-none-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lorafold/liblorafold.so", "lorafold/py.typed", "lorafold_hub/__main__.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith(("include", "lib/", "bin/", "share/"))]

    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    base = help.make_base(tmp_path / "base")
    help.trained(base).save_pretrained(tmp_path / "adapter")
    bare = {"PATH": str(environment / "bin")}
    said = run(python, "-c", USE, base, tmp_path / "adapter", tmp_path / "one", **bare)
    assert str(environment) in said and "True 14" in said
    program = environment / "bin" / "lorafold"
    assert program.read_bytes()[:4] == b"\x7fELF"
    run(program, "merge", base, "-a", tmp_path / "adapter", "-o", tmp_path / "two", **bare)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert (environment / "bin" / "lorafold-hub").exists()
    assert (environment / "share" / "man" / "man1" / "lorafold.1").exists()
