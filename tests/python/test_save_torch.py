"""--no-safe-serialization: files of torch.save(), read by torch and by transformers, beside safetensors with the same tensors."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import peft
import pytest
import torch
import transformers

import bases
import models
import shards
from conftest import TIMEOUT_SECONDS, Run
from test_quantised_bases import make_adapter as make_plain_adapter
from test_quantised_bases import make_base as make_quantised

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BIN = "--no-safe-serialization"
TOKENS = torch.arange(1, 33).reshape(2, 16)

needs_bnb = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("bitsandbytes", "accelerate")),
    reason="the Python packages bitsandbytes and accelerate are missing",
)


def make_pair(directory: Path, dtype: torch.dtype = torch.bfloat16, tied: bool = False, **lora: object) -> tuple[Path, Path]:
    base, adapter = directory / "base", directory / "adapter"
    config = bases.llama(intermediate_size=128, tie_word_embeddings=tied)
    models.from_config(config, dtype).save_pretrained(base, max_shard_size="60KB")
    models.make_adapter(base, adapter, torch.float32, 3, **({"r": 4, "lora_alpha": 6, "target_modules": LINEAR} | lora))
    return base, adapter


def read_torch(directory: Path, variant: str = "", mmap: bool = False) -> dict[str, torch.Tensor]:
    """All tensors as torch reads them; the index must be true, the archives sound."""
    dot = f".{variant}" if variant else ""
    index = directory / f"pytorch_model.bin.index{dot}.json"
    whole = directory / f"pytorch_model{dot}.bin"
    assert whole.exists() != index.exists() and not list(directory.glob("*.safetensors"))
    files, weight_map = [whole.name], {}
    if index.exists():
        weight_map = json.loads(index.read_text())["weight_map"]
        files = sorted(set(weight_map.values()))
        count = len(files)
        assert files == [f"pytorch_model{dot}-{i:05d}-of-{count:05d}.bin" for i in range(1, count + 1)]
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        with zipfile.ZipFile(directory / file) as archive:
            assert archive.testzip() is None
        part = torch.load(directory / file, weights_only=True, mmap=mmap)
        assert type(part) is dict and (not weight_map or set(part) == {name for name, at in weight_map.items() if at == file})
        tensors |= part
    assert not weight_map or set(weight_map) == set(tensors)
    return tensors


def same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], more: set[str] = frozenset()) -> None:
    """The same bits, each tensor alone in memory of its own alignment."""
    assert set(got) == set(expected) | more
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        assert got[name].is_contiguous() and not got[name].requires_grad, name
        assert torch.equal(got[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name


def both(lorafold: Run, directory: Path, base: Path, adapter: Path, *options: str) -> tuple[Path, Path]:
    lorafold("merge", base, "-a", adapter, "-o", directory / "safe", *options)
    lorafold("merge", base, "-a", adapter, "-o", directory / "bin", BIN, *options)
    lorafold("verify", directory / "bin")
    return directory / "safe", directory / "bin"


def answers(directory: Path, **more: object) -> torch.Tensor:
    model, told = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True, **more)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits.float()


MATRIX = {
    "plain": ({}, []),
    "shards": ({}, ["--max-shard-size", "30KB"]),
    "f16": ({}, ["--dtype", "f16"]),
    "f32": ({}, ["--dtype", "f32", "--max-shard-size", "100KB"]),
    "variant": ({}, ["--variant", "fp16", "--max-shard-size", "30KB"]),
    "dora": ({"use_dora": True}, []),
    "saved": ({"modules_to_save": ["lm_head"]}, ["--max-shard-size", "30KB"]),
    "nf4": ({}, ["--base-numerics", "nf4-roundtrip"]),
}


@pytest.mark.parametrize("name", MATRIX)
def test_the_tensors_of_safetensors(name: str, lorafold: Run, tmp_path: Path):
    lora, options = MATRIX[name]
    variant = options[options.index("--variant") + 1] if "--variant" in options else None
    base, adapter = make_pair(tmp_path, **lora)
    safe, torch_files = both(lorafold, tmp_path, base, adapter, *options)
    expected = models.load_tensors(safe)
    for mmap in (False, True):
        same(read_torch(torch_files, variant or "", mmap), expected)
    more = {"dtype": torch.float32, "variant": variant}
    ours = answers(torch_files, **more)
    assert torch.equal(ours, answers(safe, **more))
    assert not torch.allclose(ours, answers(base, dtype=torch.float32))
    assert {path.name for path in torch_files.iterdir() if "model" not in path.name} == {
        path.name for path in safe.iterdir() if "model" not in path.name
    }


@pytest.mark.parametrize("head", [False, True], ids=["tied", "changed"])
def test_tied_heads_share_a_storage(head: bool, lorafold: Run, tmp_path: Path):
    """As torch.save() writes a state dict; a head that the adapter changes is a tensor of its own."""
    more = {"modules_to_save": ["lm_head"]} if head else {}
    base, adapter = make_pair(tmp_path, tied=True, **more)
    if head:  # PEFT's own copy would be that of the embedding
        path = adapter / "adapter_model.safetensors"
        tensors = models.load_file(path)
        name = next(name for name in tensors if "lm_head" in name)
        models.save_file(tensors | {name: tensors[name] * 1.5}, path, metadata={"format": "pt"})
    safe, torch_files = both(lorafold, tmp_path, base, adapter, "--max-shard-size", "30KB")
    tensors = read_torch(torch_files)
    same(tensors, models.load_tensors(safe), set() if head else {"lm_head.weight"})
    shared = tensors["lm_head.weight"].data_ptr() == tensors["model.embed_tokens.weight"].data_ptr()
    assert shared is not head
    index = json.loads((torch_files / "pytorch_model.bin.index.json").read_text())
    safe_index = json.loads((safe / "model.safetensors.index.json").read_text())
    assert index["metadata"] == safe_index["metadata"]  # what is shared counts once
    assert torch.equal(answers(torch_files, dtype=torch.float32), answers(safe, dtype=torch.float32))


@needs_bnb
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("options", [[], ["--max-shard-size", "3000", "--quant-type", "fp4"], ["--no-double-quant"]], ids=str)
def test_four_bits(options: list[str], tied: bool, lorafold: Run, tmp_path: Path):
    base, adapter = make_pair(tmp_path, tied=tied)
    safe, torch_files = both(lorafold, tmp_path, base, adapter, "--save-method", "merged_4bit", *options)
    same(read_torch(torch_files), models.load_tensors(safe), {"lm_head.weight"} if tied else set())
    assert torch.equal(answers(torch_files), answers(safe))


@pytest.mark.parametrize("name", ["nf4_nested", "fp8_blocks", "gptq_4", "hqq_4", "mlx_4"])
def test_quantised_bases(name: str, lorafold: Run, tmp_path: Path):
    base, expected = make_quantised(tmp_path, name, True)
    adapter = make_plain_adapter(tmp_path, expected)
    safe, torch_files = both(lorafold, tmp_path, base, adapter, "--max-shard-size", "30KB")
    same(read_torch(torch_files), models.load_tensors(safe))
    assert torch.equal(answers(torch_files), answers(safe))


@pytest.mark.parametrize("name", ["fp8_blocks", "fp8_blocks_e8m0", "int8_rows_bnb", "ct_fp8_channel"])
def test_a_base_in_its_own_scheme(name: str, lorafold: Run, tmp_path: Path):
    base, expected = make_quantised(tmp_path, name, False)
    adapter = make_plain_adapter(tmp_path, expected)
    safe, torch_files = both(lorafold, tmp_path, base, adapter, "--save-method", "same")
    for mmap in (False, True):
        same(read_torch(torch_files, mmap=mmap), models.load_tensors(safe))


def test_a_scheme_that_needs_the_header(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, expected = make_quantised(tmp_path, "mlx_4", False)
    adapter = make_plain_adapter(tmp_path, expected)
    done = lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", BIN, "--save-method", "same", status=2)
    assert "needs safetensors" in done.stderr


def test_an_adapter(lorafold: Run, tmp_path: Path):
    """adapter_model.bin as PEFT reads it, and as we do."""
    base, adapter = make_pair(tmp_path, use_dora=True)
    lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", "--save-method", "lora", BIN)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    with zipfile.ZipFile(tmp_path / "out" / "adapter_model.bin") as archive:
        assert archive.testzip() is None
    same(torch.load(tmp_path / "out" / "adapter_model.bin", weights_only=True),
         models.load_file(adapter / "adapter_model.safetensors"))  # fmt: skip
    loaded = peft.PeftModel.from_pretrained(models.load(base, torch.float32), tmp_path / "out").eval()
    expected = models.peft_unmerged_model(base, adapter, torch.float32)
    assert torch.equal(models.logits(loaded), models.logits(expected))
    lorafold("merge", base, "-a", tmp_path / "out", "-o", tmp_path / "one")
    lorafold("merge", base, "-a", adapter, "-o", tmp_path / "two")
    assert shards.read_model(tmp_path / "one") == shards.read_model(tmp_path / "two")


@pytest.mark.parametrize("options", [[], ["--max-shard-size", "60KB", "--variant", "fp16"]], ids=["one", "shards"])
def test_inspect_and_verify(options: list[str], lorafold: Run, tmp_path: Path):
    """Of our own outputs, which are known by the manifest; other pickles are no model to us."""
    base, adapter = make_pair(tmp_path)
    out = tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, BIN, *options)
    files = sorted(out.glob("*.bin"))
    about, *tensors = map(json.loads, lorafold("inspect", out, "--json", "--tensors").stdout.splitlines())
    wanted = {(name, path.name, tuple(one.shape)) for path in files for name, one in torch.load(path, weights_only=True).items()}
    assert (about["type"], about["shards"], about["tensors"]) == ("output", len(files), len(wanted))
    assert {(one["name"], one["file"], tuple(one["shape"])) for one in tensors} == wanted
    assert {one["dtype"] for one in tensors} == {"BF16"} == set(about["dtypes"])
    said = lorafold("inspect", out).stdout
    assert said.startswith("output ") and f"shard     {files[0].name}: " in said and "lorafold verify" in said
    lorafold("verify", out)
    files[-1].write_bytes(files[-1].read_bytes()[:-40])
    assert files[-1].name in lorafold("inspect", out, status=3).stderr
    assert files[-1].name in lorafold("verify", out, status=5).stderr
    (out / "lorafold.json").unlink()
    assert "pickles" in lorafold("inspect", out, status=3).stderr


def test_large_tensors(large: Path, lorafold: Run, tmp_path: Path):
    """Several blocks to a tensor, and more than one worker."""
    safe, torch_files = both(lorafold, tmp_path, large / "base", large / "adapter", "--threads", "3")
    tensors = read_torch(torch_files, mmap=True)
    same({name: tensors[name] for name in tensors if name != "lm_head.weight"},
         {name: one for name, one in models.load_tensors(safe).items() if name != "lm_head.weight"})  # fmt: skip
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors.values())  # mapped: as it lies in the file


def test_two_runs_give_the_same_bytes(lorafold: Run, tmp_path: Path):
    base, adapter = make_pair(tmp_path)
    for out, options in (("one", ["--threads", "1", "--io", "threads"]), ("two", ["--threads", "4", "--memory", "200MiB"])):
        lorafold("merge", base, "-a", adapter, "-o", tmp_path / out, BIN, *options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()
    }


@pytest.mark.parametrize("place", ["data", "directory", "header"])
def test_damage_is_found(place: str, lorafold: Run, tmp_path: Path):
    base, adapter = make_pair(tmp_path)
    lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", BIN)
    path = min((tmp_path / "out").glob("*.bin"))
    blob = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = {"data": archive.getinfo("archive/data/0").header_offset + 300, "directory": archive.start_dir + 60, "header": 70}
    blob[at[place]] ^= 1
    path.write_bytes(blob)
    done = lorafold("verify", tmp_path / "out", status=5)
    assert path.name in done.stderr


CHECKED = """
import sys, torch
from torch.utils.serialization import config
config.load.calculate_storage_offsets = True  # only for files that promise torch's own places
plain = torch.load(sys.argv[1], weights_only=True)
mapped = torch.load(sys.argv[1], weights_only=True, mmap=True)
assert all(torch.equal(plain[name], mapped[name]) for name in plain)
meta = torch.load(sys.argv[1], weights_only=True, map_location="meta")
assert {name: one.shape for name, one in meta.items()} == {name: one.shape for name, one in plain.items()}
print(len(plain))
"""


def test_torch_that_checks_itself(lorafold: Run, tmp_path: Path):
    base, adapter = make_pair(tmp_path)
    lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", BIN)
    done = subprocess.run([sys.executable, "-c", CHECKED, min((tmp_path / "out").glob("*.bin"))], text=True, check=False,
                          capture_output=True, timeout=TIMEOUT_SECONDS, env=os.environ | {"TORCH_SERIALIZATION_DEBUG": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


def test_a_base_in_such_files_is_refused(lorafold: Run, tmp_path: Path):
    """They are an output; what they are made from stays safetensors."""
    base, adapter = make_pair(tmp_path)
    lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", BIN)
    done = lorafold("merge", tmp_path / "out", "-a", adapter, "-o", tmp_path / "next", status=3)
    assert "as pickles ('pytorch_mo" in done.stderr and not (tmp_path / "next").exists()
