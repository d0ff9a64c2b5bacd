"""What else is in the output: files, index, dtypes, tensors that are not computed with, where the base is."""

import json
import os
import random
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import models
import reference
import shards
from conftest import Run
from test_merge_live import DTYPES, check_definition, make_pair

NARROW = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def save_tokenizer(directory: Path, words: list[str]) -> None:
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(directory)


def test_side_files_arrive_byte_for_byte(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    save_tokenizer(base, ["fold", "base"])
    (base / "chat_template.jinja").write_text("{{ messages }} from the base\n")
    (base / "modeling_tiny.py").write_text("# code of the base\n")
    (base / "consolidated.safetensors").write_bytes(b"not a shard of the model")
    lorafold("merge", base, "-a", adapter, "-o", out)
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                 "chat_template.jinja", "modeling_tiny.py"]:
        assert (out / name).read_bytes() == (base / name).read_bytes(), name
    names = {path.name for path in out.iterdir()}
    assert {"README.md", "lorafold.json"} <= names
    assert not [name for name in names if name.startswith(("adapter_", "consolidated", "."))]
    assert AutoTokenizer.from_pretrained(out)("fold base")["input_ids"] == [1, 2]


def test_tokenizer_of_the_adapter_comes_first(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    save_tokenizer(base, ["base"])
    save_tokenizer(adapter, ["adapter"])
    (adapter / "chat_template.jinja").write_text("from the adapter\n")
    lorafold("merge", base, "-a", adapter, "-o", out)
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]:
        assert (out / name).read_bytes() == (adapter / name).read_bytes(), name


def test_tokenizer_option_comes_before_both(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    base, adapter, out, third = (tmp_path / name for name in ["base", "adapter", "out", "third"])
    for directory in (base, adapter, third):
        save_tokenizer(directory, [directory.name])
    lorafold("merge", base, "-a", adapter, "-o", out, "--tokenizer", third)
    assert (out / "tokenizer.json").read_bytes() == (third / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("to", DTYPES.values(), ids=[f"to-{name}" for name in DTYPES])
@pytest.mark.parametrize("source", DTYPES.values(), ids=DTYPES)
def test_dtype_converts_every_float_tensor(source: torch.dtype, to: torch.dtype, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "qwen2", source)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    name = next(name for name, dtype in DTYPES.items() if dtype == to)
    lorafold("merge", base, "-a", adapter, "-o", out, "--dtype", name)
    deltas, before = models.deltas_of([(adapter, 1.0)]), models.load_tensors(base)
    after = models.load_tensors(out)
    assert after.keys() == before.keys()
    for tensor, value in after.items():
        assert torch.equal(value, reference.fold(before[tensor], deltas.get(tensor, []), to)), tensor
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == str(to).removeprefix("torch.")
    assert models.load(out, "auto").dtype == to


def test_max_shard_size_cuts_between_tensors(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, "--max-shard-size", "30KB")
    shards.check_index(out)
    check_definition(base, out, [(adapter, 1.0)])
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 3
    for number, path in enumerate(files, 1):
        assert path.name == f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = shards.read_shard(path)
        assert sum(len(raw.data) for raw in tensors.values()) <= 30_000 or len(tensors) == 1
    check_loads(out)


def check_loads(out: Path) -> None:
    _, info = models.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def odd_tensors(seed: int) -> dict[str, shards.Raw]:
    generator = random.Random(seed)
    shapes = {
        "model.positions": ("I64", (7,)), "model.flags": ("BOOL", (3, 3)), "mtp.layers.0.weight": ("BF16", (5, 9)),
        "model.packed_scale": ("F8_E4M3", (11, 3)), "model.bytes": ("U8", (4097,)), "empty": ("F32", (0, 8)),
        "scalar": ("F32", ()), "model.layers.0.self_attn.q_proj.extra": ("F64", (2, 2)),
    }
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        count = shards.ELEMENT_BYTES[dtype]
        for extent in shape:
            count *= extent
        data = generator.randbytes(count) if dtype != "BOOL" else bytes(generator.choices([0, 1], k=count))
        tensors[name] = shards.Raw(dtype, shape, data)
    return tensors


@pytest.mark.parametrize("arrangement", ["first", "between", "last", "sharded"])
def test_other_tensors_arrive_byte_for_byte(arrangement: str, lorafold: Run, tmp_path: Path):
    """Odd lengths move everything behind them to odd offsets; names that no model class knows stay."""
    make_pair(tmp_path, "llama", torch.bfloat16)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    weights = list(shards.read_model(base).items())
    half = len(weights) // 2
    extra = odd_tensors(seed=4)
    path = base / "model.safetensors"
    if arrangement == "sharded":
        path.unlink()
        shards.write_sharded(base, [dict(weights[:half]) | extra, dict(weights[half:])])
    else:
        place = {"first": 0, "between": half, "last": len(weights)}[arrangement]
        shards.write_shard(path, dict(weights[:place]) | extra | dict(weights[place:]), pad=3)
    lorafold("merge", base, "-a", adapter, "-o", out)
    after, before = shards.read_model(out), shards.read_model(base)
    deltas = models.deltas_of([(adapter, 1.0)])
    targets = {name: raw for name, raw in before.items() if name in deltas}
    assert after.keys() == before.keys()
    for name, raw in before.items():
        if name not in targets:
            assert after[name] == raw, name
            continue
        weight = torch.frombuffer(bytearray(raw.data), dtype=NARROW[raw.dtype]).reshape(raw.shape)
        expected = reference.fold(weight, deltas[name])
        assert after[name].data == expected.view(torch.uint8).numpy().tobytes(), name


def test_files_outside_the_index_are_left_alone(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16, "50KB")
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    (base / "model-00009-of-00009.safetensors").write_bytes(b"stale and broken")
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_definition_of_index(base, out)
    shards.check_index(out)


def check_definition_of_index(base: Path, out: Path) -> None:
    assert shards.read_model(base).keys() == shards.read_model(out).keys()
    assert not (out / "model-00009-of-00009.safetensors").exists()


def name_base(adapter: Path, name: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))


def test_base_is_found_through_the_adapter_as_a_path(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    name_base(tmp_path / "adapter", str(tmp_path / "base"))
    lorafold("merge", "-a", tmp_path / "adapter", "-o", tmp_path / "out")
    check_definition(tmp_path / "base", tmp_path / "out", [(tmp_path / "adapter", 1.0)])


def into_cache(directory: Path, cache: Path, name: str, commit: str) -> None:
    """As huggingface_hub stores a repository: snapshots of links to blobs, a ref with the commit."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs, refs = repository / "snapshots" / commit, repository / "blobs", repository / "refs"
    for made in (snapshot, blobs, refs):
        made.mkdir(parents=True)
    for number, path in enumerate(sorted(directory.iterdir())):
        blob = blobs / f"{number:064x}"
        path.rename(blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    (refs / "main").write_text(commit)


@pytest.mark.parametrize("given", ["nothing", "name", "name@main", "name@commit"])
def test_base_is_found_in_the_cache(given: str, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16, "50KB")
    name_base(tmp_path / "adapter", "tiny-org/tiny-base")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    into_cache(tmp_path / "base", cache, "tiny-org/tiny-base", commit)
    snapshot = cache / "models--tiny-org--tiny-base" / "snapshots" / commit
    base = {
        "nothing": [], "name": ["tiny-org/tiny-base"], "name@main": ["tiny-org/tiny-base@main"],
        "name@commit": [f"tiny-org/tiny-base@{commit}"],
    }[given]
    environment = {"HF_HUB_CACHE": str(cache)}
    lorafold("merge", *base, "-a", tmp_path / "adapter", "-o", tmp_path / "out", environment=environment)
    check_definition(snapshot, tmp_path / "out", [(tmp_path / "adapter", 1.0)])
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]
    manifest = (tmp_path / "out" / "lorafold.json").read_text()
    assert "tiny-org/tiny-base" in manifest and commit in manifest
    assert str(tmp_path) not in manifest


def test_a_name_that_is_not_in_the_cache(lorafold: Run, tmp_path: Path, nothing_left: None):
    make_pair(tmp_path, "llama", torch.bfloat16)
    (tmp_path / "cache").mkdir()
    done = lorafold(
        "merge", "tiny-org/other", "-a", tmp_path / "adapter", "-o", tmp_path / "out",
        status=2, environment={"HF_HUB_CACHE": str(tmp_path / "cache")},
    )
    assert "tiny-org/other" in done.stderr


def test_the_index_has_the_names_that_the_base_has_not(lorafold: Run, tmp_path: Path):
    """Names of copied layers, of several lengths, are made anew; malloc() fills what it gives."""
    lora = {"r": 4, "target_modules": ["q_proj", "down_proj"], "layer_replication": [[0, 2]] * 6}
    make_pair(tmp_path, "llama", torch.bfloat16, **lora)
    out, filled = tmp_path / "out", {"MALLOC_PERTURB_": "165"}
    arguments = ["merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", out, "--max-shard-size", "30000"]
    lorafold(*arguments, environment=filled)
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    held = {name: path.name for path in out.glob("*.safetensors") for name in shards.read_header(path)[0]}
    assert "model.layers.11.mlp.up_proj.weight" in held
    assert index == held
