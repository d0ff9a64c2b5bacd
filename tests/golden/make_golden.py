#!/usr/bin/env python3
"""Make the golden cases beside this file, with the packages of tools/requirements.txt.

usage: make_golden.py        (from anywhere; .venv/bin/python after tools/venv)

Each case is a directory:
  base/                      a tiny Llama, as transformers saves it
  adapter/, adapter2/        as PEFT saves it
  arguments                  what `lorafold merge` is called with besides base and output, one a line
  expected.safetensors       every tensor of the merged model, the exact bytes of docs/NUMERICS.md
  neighbours.safetensors     of plain LoRA on linear layers: the targets as PEFT merges them ("peft."; where it
                             has one adapter) and as float64 gives them, rounded once ("float64.")
cases.json holds versions, the settings of every case, and which share of the targets' elements equals
the two neighbours.  The shares are what they are: another order of the fp32 sums changes rare last bits.
kinds_of_golden.py has the cases that are not plain LoRA on linear layers.
"""

import importlib.metadata
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

import torch
from safetensors.torch import save_file

import kinds_of_golden
import models
import reference

LIST = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Case:
    base: torch.dtype
    factors: torch.dtype
    lora: dict
    shard_bytes: str = "5GB"
    layers: int = 1
    weights: list[float] = field(default_factory=lambda: [1.0])


BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
CASES = {
    "bf16_rank8": Case(BF16, F32, {"r": 8, "lora_alpha": 16, "target_modules": LIST}),
    "f16_rank4_regex": Case(
        F16, F16, {"r": 4, "lora_alpha": 6, "target_modules": r".*\.(q|v|down)_proj"}, "12KB"
    ),
    "f32_rank1": Case(F32, BF16, {"r": 1, "lora_alpha": 3, "target_modules": LIST[:4]}),
    "bf16_rank64_rslora": Case(
        BF16, BF16, {"r": 64, "lora_alpha": 64, "use_rslora": True, "target_modules": LIST[3:6]}, "16KB"
    ),
    "bf16_rank70": Case(BF16, F16, {"r": 70, "lora_alpha": 35, "target_modules": ["q_proj", "up_proj"]}),
    "bf16_patterns": Case(
        BF16,
        BF16,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {r"layers\.1\.self_attn\.(q|v)_proj": 6, "layers.0.mlp.down_proj": 2},
            "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 40, ".*down_proj": 5},
        },
        layers=2,
    ),
    "bf16_two_adapters": Case(
        BF16, F32, {"r": 3, "lora_alpha": 7, "target_modules": ["k_proj", "o_proj"]}, weights=[0.5, -1.25]
    ),
}


def make_base(case: Case, directory: Path) -> None:
    model = models.tiny_llama(case.base, hidden=40, intermediate=72, vocab=20, layers=case.layers)
    model.save_pretrained(directory, max_shard_size=case.shard_bytes)


def make_adapters(case: Case, directory: Path) -> list[Path]:
    adapters = []
    for number in range(len(case.weights)):
        adapter = directory / ("adapter" if number == 0 else f"adapter{number + 1}")
        models.make_adapter(
            directory / "base", adapter, case.factors, seed=100 + number, **case.lora
        )
        (adapter / "README.md").unlink(missing_ok=True)
        adapters.append(adapter)
    return adapters


def arguments_of(case: Case, adapters: list[Path]) -> str:
    lines = []
    for adapter, weight in zip(adapters, case.weights, strict=True):
        lines += ["-a", adapter.name if weight == 1 else f"{adapter.name}:{weight}"]
    return "\n".join(lines) + "\n"


def save_bytes(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def share(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    equal = sum(int(torch.eq(left, right).sum()) for left, right in pairs)
    return equal / sum(left.numel() for left, _ in pairs)


def make_case(case: Case, directory: Path) -> dict:
    torch.manual_seed(20)
    make_base(case, directory / "base")
    adapters = make_adapters(case, directory)
    (directory / "arguments").write_text(arguments_of(case, adapters))

    base = models.load_tensors(directory / "base")
    deltas = models.deltas_of(list(zip(adapters, case.weights, strict=True)))
    expected = {
        name: reference.fold(tensor, deltas[name]) if name in deltas else tensor
        for name, tensor in base.items()
    }
    save_bytes(directory / "expected.safetensors", expected)

    rounded = {name: reference.correctly_rounded(base[name], deltas[name]) for name in deltas}
    record = {
        "base_dtype": str(case.base).removeprefix("torch."),
        "factor_dtype": str(case.factors).removeprefix("torch."),
        "weights": case.weights,
        "lora": case.lora,
        "share_equal_to_float64": share([(expected[name], rounded[name]) for name in deltas]),
    }
    neighbours = {f"float64.{name}": tensor for name, tensor in rounded.items()}
    if len(adapters) == 1:
        merged = models.peft_merged(directory / "base", adapters[0], case.base)
        record["share_equal_to_peft"] = share([(expected[name], merged[name]) for name in deltas])
        neighbours |= {f"peft.{name}": merged[name] for name in deltas}
    save_bytes(directory / "neighbours.safetensors", neighbours)
    return record


def main() -> None:
    packages = ["torch", "transformers", "peft", "safetensors", "numpy"]
    summary: dict = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "cases": {},
    }
    for name, case in CASES.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        summary["cases"][name] = make_case(case, HERE / name)
        print(name, {key: value for key, value in summary["cases"][name].items() if "share" in key})
    for name, kind in kinds_of_golden.KINDS.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        summary["cases"][name] = kinds_of_golden.make_case(kind, HERE / name)
        print(name, summary["cases"][name]["share_equal_to_float64"])
    (HERE / "cases.json").write_text(json.dumps(summary, indent=2) + "\n")
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{size} bytes")


if __name__ == "__main__":
    main()
