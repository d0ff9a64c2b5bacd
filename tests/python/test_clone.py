"""Clones on real file systems: XFS and btrfs in images that are mounted for the test (root, and a kernel that lets us)."""

import ctypes
import filecmp
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import package_help
import shards
from conftest import Run
from test_directory import into_cache

SEED = 23
IMAGE_BYTES = 400 << 20  # XFS has 300 MB at least
ROWS = COLUMNS = 2048  # of BF16: two blocks
MAKERS = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "xfs without reflink": ["mkfs.xfs", "-q", "-m", "reflink=0"],
    "btrfs": ["mkfs.btrfs", "-q"],
}
MANIFEST = {"lorafold.json", "lorafold.blocks"}


@dataclass
class Disk:
    kind: str
    root: Path

    def free(self) -> int:
        os.sync()
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize


def call(*words: str | Path) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def mount(kind: str, directory: Path) -> Disk:
    """Skips with the reason where this machine lets no one make or mount a file system."""
    image, root = directory / "image", directory / "disk"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    if shutil.which(MAKERS[kind][0]) is None:
        pytest.skip(f"{MAKERS[kind][0]} is missing (tools/install-deps --tests)")
    call(*MAKERS[kind], image)
    done = subprocess.run(["mount", "-o", "loop", image, root], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{kind} in a file cannot be mounted here: {done.stderr.strip()}")
    return Disk(kind, root)


def unmount(disk: Disk) -> None:
    call("umount", disk.root)
    disk.root.with_name("image").unlink()


def disk_of(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    disk = mount(kind, tmp_path_factory.mktemp(kind.replace(" ", "-")))
    try:
        make_base(disk.root / "base")
        make_adapter(disk.root / "adapter")
        yield disk
    finally:
        unmount(disk)


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    yield from disk_of(request.param, tmp_path_factory)


def remove(path: Path):
    """So that its space is free at once: XFS may give an unlinked file back late, btrfs waits for a sync."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        os.truncate(file, 0)
    if path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
    os.sync()


@pytest.fixture
def out(disk: Disk) -> Iterator[Path]:
    path = disk.root / "out"
    yield path
    remove(path)
    assert not path.with_name("out.partial").exists()


def bf16(generator: np.random.Generator) -> shards.Raw:
    bits = generator.integers(0x3C00, 0x3E00, size=ROWS * COLUMNS, dtype=np.uint16)
    return shards.Raw("BF16", (ROWS, COLUMNS), bits.tobytes())


def write_aligned(path: Path, tensors: dict[str, shards.Raw]) -> None:
    """Data that begin at a multiple of 8, as every writer has it."""
    shards.write_shard(path, tensors)
    start = shards.read_header(path)[1]
    shards.write_shard(path, tensors, -start % 8)


def make_base(directory: Path) -> None:
    """Two shards of three layers; the last page of each is not full."""
    generator = np.random.default_rng(SEED)
    directory.mkdir()
    parts = [
        {f"model.layers.{3 * part + layer}.self_attn.q_proj.weight": bf16(generator) for layer in range(3)}
        | {f"model.layers.{3 * part + 3}.norm.weight": shards.Raw("BF16", (77,), bytes(154))}
        for part in range(2)
    ]
    for part, tensors in enumerate(parts, 1):
        write_aligned(directory / f"model-{part:05d}-of-00002.safetensors", tensors)
    weights = {name: f"model-{part:05d}-of-00002.safetensors" for part, one in enumerate(parts, 1) for name in one}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (directory / "config.json").write_text(json.dumps(config))


def make_adapter(directory: Path, modules: tuple[str, ...] = ("model.layers.1.self_attn.q_proj",)) -> None:
    generator = np.random.default_rng(SEED)
    directory.mkdir()
    factors = {}
    for module in modules:
        for letter, shape in (("A", (8, COLUMNS)), ("B", (ROWS, 8))):
            values = generator.standard_normal(shape).astype(np.float32) * 0.1
            factors[f"base_model.model.{module}.lora_{letter}.weight"] = shards.Raw("F32", shape, values.tobytes())
    shards.write_shard(directory / "adapter_model.safetensors", factors)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))


def merge(lorafold: Run, disk: Disk, out: Path, *more: str | Path) -> dict:
    """The report; the plan must have said the same."""
    words = ["merge", disk.root / "base", "-a", disk.root / "adapter", "-o", out, "--json", *more]
    objects = {one["type"]: one for one in map(json.loads, lorafold(*words).stdout.splitlines())}
    plan, report = objects["plan"], objects["report"]
    assert plan["bytes_cloned"] == report["bytes_cloned"]
    assert plan["bytes_out"] == report["bytes_cloned"] + report["bytes_written"]
    return report


@pytest.fixture(scope="module")
def written(disk: Disk, lorafold: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same output on another disk, every byte of it written."""
    path = tmp_path_factory.mktemp("written") / "out"
    assert merge(lorafold, disk, path, "--clone", "never")["bytes_cloned"] == 0
    return path


def check_same(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    _, different, failed = filecmp.cmpfiles(one, other, set(names) - MANIFEST, shallow=False)
    assert (different, failed) == ([], [])


def verify(lorafold: Run, *words: str | Path, status: int = 0) -> dict:
    return json.loads(lorafold("verify", "--json", *words, status=status).stdout.splitlines()[-1])


def is_shared(path: Path) -> bool:
    return "shared" in subprocess.run(["filefrag", "-v", path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("direct", ["on", "off"])
def test_untouched_bytes_take_no_space(direct: str, disk: Disk, out: Path, written: Path, lorafold: Run):
    before = disk.free()
    report = merge(lorafold, disk, out, "--clone", "always", "--direct", direct)
    taken = before - disk.free()
    # Of seven blocks in each shard: not the first, and in one not the three that the target touches.
    assert report["bytes_cloned"] > 0.55 * (report["bytes_cloned"] + report["bytes_written"])
    assert taken < report["bytes_written"] + (2 << 20)
    assert all(is_shared(path) for path in out.glob("*.safetensors"))
    check_same(out, written)
    assert verify(lorafold, out)["bytes_unread"] == report["bytes_cloned"]
    assert verify(lorafold, out, "--deep")["bytes_shared"] == report["bytes_cloned"]


def test_verification_from_python(disk: Disk, out: Path, lorafold: Run):
    report = merge(lorafold, disk, out)
    code = "import sys, lorafold; r = lorafold.verify(sys.argv[1], deep=sys.argv[2] == 'deep'); print(r.bytes_shared, r.bytes_unread)"
    cloned = report["bytes_cloned"]
    assert package_help.python(code, out, "deep").split() == [str(cloned), "0"]
    assert package_help.python(code, out, "not").split() == ["0", str(cloned)]


def test_never(disk: Disk, out: Path, written: Path, lorafold: Run):
    assert merge(lorafold, disk, out, "--clone", "never")["bytes_cloned"] == 0
    assert all((out / name).read_bytes() == (written / name).read_bytes() for name in MANIFEST)
    check_same(out, written)


def test_base_that_was_just_written(disk: Disk, out: Path, lorafold: Run, tmp_path: Path):
    """Its pages are dirty: what is cloned must not be what the disk held before."""
    base = disk.root / "fresh"
    make_base(base)
    os.sync()
    for path in base.glob("*.safetensors"):
        with path.open("r+b") as file:
            file.seek(5 << 20)
            file.write(bf16(np.random.default_rng(path.stat().st_ino)).data)
    words = ["merge", base, "-a", disk.root / "adapter", "--json"]
    lorafold(*words, "-o", out, "--clone", "always")
    lorafold(*words, "-o", tmp_path / "out", "--clone", "never")
    check_same(out, tmp_path / "out")
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    check_same(out, tmp_path / "out")
    shutil.rmtree(base)


def test_output_stays_when_the_base_changes_or_goes(disk: Disk, out: Path, written: Path, lorafold: Run):
    base = disk.root / "mortal"
    shutil.copytree(disk.root / "base", base)
    lorafold("merge", base, "-a", disk.root / "adapter", "-o", out, "--clone", "always")
    with next(iter(sorted(base.glob("*.safetensors")))).open("r+b") as file:
        file.seek(5 << 20)
        file.write(bytes(100))
    assert "block 1" in verify(lorafold, out, "--deep", base, status=5)["text"]
    shutil.rmtree(base)
    assert "--deep BASE" in verify(lorafold, out, "--deep", status=2)["text"]
    lorafold("verify", out)
    _, different, failed = filecmp.cmpfiles(out, written, [path.name for path in out.glob("*.safe*")], shallow=False)
    assert (different, failed) == ([], [])


def fill(disk: Disk, left: int) -> Path:
    path = disk.root / "filler"
    with path.open("wb") as file:
        while (more := disk.free() - left) > 0:  # XFS gives back what it kept for other files once it is short of space
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)
    os.sync()
    return path


def test_space_is_wanted_only_for_what_is_written(disk: Disk, out: Path, lorafold: Run):
    whole = sum(path.stat().st_size for path in (disk.root / "base").iterdir())
    filler = fill(disk, whole * 7 // 10)
    try:
        words = ["merge", disk.root / "base", "-a", disk.root / "adapter", "-o", out]
        assert "no space" in lorafold(*words, "--clone", "never", status=1).stderr
        assert not out.exists()
        assert merge(lorafold, disk, out)["bytes_cloned"]
        remove(out)
        adapters = disk.root / "adapters"
        adapters.mkdir()
        for name in ["one", "two"]:
            make_adapter(adapters / name)
        words[2:4] = ["--adapters-dir", adapters]
        remove(filler)
        filler = fill(disk, whole * 94 // 100)  # less than one output, more than both write with shared spans
        assert "enough for none of them" in lorafold(*words, "--clone", "never", status=1).stderr
        lorafold(*words)  # two outputs take what they write
        assert lorafold("verify", out, "--deep", disk.root / "base").stdout.startswith("verified 2 outputs")
        remove(out)
        remove(filler)
        filler = fill(disk, whole // 8)
        assert "no space" in lorafold(*words, status=1).stderr
        assert not out.exists()
    finally:
        remove(filler)
        shutil.rmtree(disk.root / "adapters", ignore_errors=True)
        os.sync()


def test_base_in_the_cache(disk: Disk, out: Path, written: Path, lorafold: Run):
    """Each shard is a link to a blob."""
    cache = disk.root / "cache"
    shutil.copytree(disk.root / "base", disk.root / "moved")
    into_cache(disk.root / "moved", cache, "tiny-org/tiny-base", "0123456789abcdef0123456789abcdef01234567")
    environment = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    words = ["merge", "tiny-org/tiny-base", "-a", disk.root / "adapter", "-o", out, "--clone", "always"]
    lorafold(*words, environment=environment)
    for path in written.glob("*.safetensors"):
        assert filecmp.cmp(path, out / path.name, shallow=False)
    assert "are the base's" in lorafold("verify", out, "--deep", environment=environment).stdout
    elsewhere = environment | {"HF_HUB_CACHE": str(disk.root)}
    assert "tiny-org/tiny-base" in lorafold("verify", out, "--deep", status=2, environment=elsewhere).stderr
    shutil.rmtree(cache)
    shutil.rmtree(disk.root / "moved")


def test_an_empty_directory_as_output(disk: Disk, out: Path, written: Path, lorafold: Run):
    out.mkdir()
    assert merge(lorafold, disk, out, "--clone", "always")["bytes_cloned"]
    check_same(out, written)
    assert merge(lorafold, disk, out, "--clone", "always", "--overwrite")["bytes_cloned"]
    check_same(out, written)


def test_another_file_system(disk: Disk, lorafold: Run, tmp_path: Path, written: Path):
    words = ["merge", disk.root / "base", "-a", disk.root / "adapter", "-o", tmp_path / "out"]
    said = lorafold(*words, "--clone", "always", status=2).stderr
    assert "--clone always" in said and "cross-device" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    done = lorafold(*words, "-v")
    assert "not cloned from the base" in done.stderr and "cloned" not in done.stdout
    check_same(tmp_path / "out", written)


def test_killed_at_any_moment(disk: Disk, out: Path, program: Path, written: Path, lorafold: Run):
    generator = random.Random(SEED)
    words = [str(one) for one in (program, "merge", disk.root / "base", "-a", disk.root / "adapter", "-o", out, "-q")]
    start = time.monotonic()
    subprocess.run(words, check=True)
    seconds = time.monotonic() - start
    remove(out)
    for _ in range(5):
        process = subprocess.Popen(words)
        try:
            process.wait(generator.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        if out.exists():
            (out / ".lorafold-work").unlink(missing_ok=True)  # goes after the rename has been synced
            check_same(out, written)
            remove(out)
    merge(lorafold, disk, out, "--clone", "always")
    check_same(out, written)


def test_quantised_base_in_its_own_scheme(disk: Disk, out: Path, lorafold: Run, tmp_path: Path):
    """FP8: codes of untouched layers are copies, whatever their dtype."""
    base, adapter = disk.root / "fp8", disk.root / "fp8-adapter"
    generator = np.random.default_rng(SEED)
    base.mkdir()
    part = {}
    for layer in range(6):
        name = f"model.layers.{layer}.self_attn.q_proj"
        codes = generator.integers(0x20, 0x60, size=ROWS * COLUMNS, dtype=np.uint8)
        scales = generator.uniform(0.5, 2, size=(ROWS // 128) * (COLUMNS // 128)).astype(np.float32)
        part[f"{name}.weight"] = shards.Raw("F8_E4M3", (ROWS, COLUMNS), codes.tobytes())
        part[f"{name}.weight_scale_inv"] = shards.Raw("F32", (ROWS // 128, COLUMNS // 128), scales.tobytes())
    write_aligned(base / "model.safetensors", part)
    scheme = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "quantization_config": scheme}
    (base / "config.json").write_text(json.dumps(config))
    make_adapter(adapter)
    words = ["merge", base, "-a", adapter, "--save-method", "same", "--json"]
    report = json.loads(lorafold(*words, "-o", out, "--clone", "always").stdout.splitlines()[-1])
    lorafold(*words, "-o", tmp_path / "out", "--clone", "never")
    assert report["bytes_cloned"] >= 8 << 20
    check_same(out, tmp_path / "out")
    assert verify(lorafold, out, "--deep", base)["bytes_shared"] == report["bytes_cloned"]
    words[words.index("same")] = "merged_16bit"
    remove(out)
    report = json.loads(lorafold(*words, "-o", out, "--clone", "always").stdout.splitlines()[-1])
    assert report["bytes_cloned"] == 0  # all is decoded
    shutil.rmtree(base)
    shutil.rmtree(adapter)


def test_files_cut_otherwise(disk: Disk, out: Path, lorafold: Run, tmp_path: Path):
    arguments = ["--max-shard-size", "17MB"]
    report = merge(lorafold, disk, out, *arguments)
    merge(lorafold, disk, tmp_path / "out", *arguments)
    assert report["bytes_cloned"] and len(list(out.glob("*.safetensors"))) == 4
    check_same(out, tmp_path / "out")
    assert verify(lorafold, out, "--deep")["bytes_shared"] == report["bytes_cloned"]


def test_outputs_share_what_the_base_cannot(disk: Disk, out: Path, lorafold: Run, tmp_path: Path):
    """The base is on another file system; each output is what a run of its own gives, with its manifest."""
    base = tmp_path / "base"
    shutil.copytree(disk.root / "base", base)
    names = ["one", "two", "three"]
    for number, name in enumerate(names):
        make_adapter(tmp_path / name, (f"model.layers.{number % 2}.self_attn.q_proj",))
    words = ["merge", base, *(word for name in names for word in ("-a", tmp_path / name)), "--each", "-o", out, "--json"]
    before = disk.free()
    report = json.loads(lorafold(*words).stdout.splitlines()[-1])
    taken = before - disk.free()
    whole = sum(path.stat().st_size for path in base.iterdir())
    assert report["bytes_cloned"] > 0.5 * 2 * whole
    assert report["bytes_written"] + report["bytes_cloned"] > 3 * (whole - 10000)
    if disk.kind == "xfs":  # btrfs gives an allocated extent back only as a whole
        assert taken < report["bytes_written"] + (3 << 20)
    for name in names:
        lorafold("merge", base, "-a", tmp_path / name, "-o", tmp_path / "alone", "--overwrite")
        assert all((out / name / one.name).read_bytes() == one.read_bytes() for one in (tmp_path / "alone").iterdir())
        assert verify(lorafold, out / name)["bytes_unread"] == 0
    remove(out)
    assert json.loads(lorafold(*words, "--clone", "always").stdout.splitlines()[-1])["bytes_cloned"] == report["bytes_cloned"]
    remove(out)
    kinds = ["--dtype", "f16", "--clone", "always"]  # nothing of it can be the base's
    report = json.loads(lorafold(*words, *kinds).stdout.splitlines()[-1])
    assert report["bytes_cloned"] > 0.9 * report["bytes_alike"] > 0.45 * 2 * whole
    for name in names:
        lorafold("merge", base, "-a", tmp_path / name, "-o", tmp_path / "alone", "--overwrite", "--dtype", "f16")
        assert all((out / name / one.name).read_bytes() == one.read_bytes() for one in (tmp_path / "alone").iterdir())
    remove(out)
    assert json.loads(lorafold(*words, "--clone", "never").stdout.splitlines()[-1])["bytes_cloned"] == 0
    assert all(not is_shared(path) for path in out.rglob("*.safetensors"))


# ---- what one file system has and the other has not ----


@pytest.fixture
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    yield from disk_of(request.param, tmp_path_factory)


@pytest.mark.parametrize("other", ["xfs without reflink"], indirect=True)
def test_a_file_system_that_could_but_may_not(other: Disk, lorafold: Run):
    done = lorafold("merge", other.root / "base", "-a", other.root / "adapter", "-o", other.root / "out", "-v")
    assert "not cloned from the base" in done.stderr and "supported" in done.stderr
    lorafold("verify", other.root / "out")
    words = ["merge", other.root / "base", "-a", other.root / "adapter", "-o", other.root / "more"]
    assert "--clone always" in lorafold(*words, "--clone", "always", status=2).stderr
    assert not (other.root / "more").exists()


@pytest.mark.parametrize("other", ["btrfs"], indirect=True)
def test_subvolumes_are_one_file_system_and_files_without_checksums_are_apart(
    other: Disk, lorafold: Run, tmp_path: Path
):
    merge(lorafold, other, tmp_path / "out")
    call("btrfs", "subvolume", "create", other.root / "sub")
    assert (other.root / "sub").stat().st_dev != other.root.stat().st_dev
    assert merge(lorafold, other, other.root / "sub" / "out", "--clone", "always")["bytes_cloned"]
    check_same(other.root / "sub" / "out", tmp_path / "out")

    (other.root / "plain").mkdir()
    call("chattr", "+C", other.root / "plain")  # what is made in it has no checksums
    words = ["merge", other.root / "base", "-a", other.root / "adapter", "-o", other.root / "plain" / "out"]
    assert "Invalid argument" in lorafold(*words, "--clone", "always", status=2).stderr
    assert merge(lorafold, other, other.root / "plain" / "out")["bytes_cloned"] == 0
    check_same(other.root / "plain" / "out", tmp_path / "out")


@pytest.mark.parametrize("other", ["xfs"], indirect=True)
def test_what_is_published_outlives_a_crash(other: Disk, lorafold: Run, tmp_path: Path):
    """The file system is stopped at once, without its log, when the program has ended."""
    stop_at_once, not_flushed = 0x8004587D, 2  # XFS_IOC_GOINGDOWN, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
    merge(lorafold, other, tmp_path / "out")
    os.sync()
    assert merge(lorafold, other, other.root / "out", "--clone", "always")["bytes_cloned"]
    fd = os.open(other.root, os.O_RDONLY)
    flag = ctypes.c_uint32(not_flushed)
    assert ctypes.CDLL(None, use_errno=True).ioctl(fd, ctypes.c_ulong(stop_at_once), ctypes.byref(flag)) == 0
    os.close(fd)
    with pytest.raises(OSError):
        (other.root / "new").mkdir()
    call("umount", other.root)
    call("mount", "-o", "loop", other.root.with_name("image"), other.root)
    check_same(other.root / "out", tmp_path / "out")
    lorafold("verify", other.root / "out", "--deep")
