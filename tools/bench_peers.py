#!/usr/bin/env python3
"""One peer at work, or the comparison of results: what tools/bench --peers runs in .venv-peers.

usage: bench_peers.py peft    BASE ADAPTER OUT
       bench_peers.py unsloth BASE ADAPTER OUT
       bench_peers.py compare BASE ADAPTER ROWS NAME=DIR...

`peft` is PeftModel.merge_and_unload and save_pretrained.  `unsloth` is merge_and_overwrite_lora of
unsloth_zoo, which UNSLOTH_FORCE_CPU=1 and UNSLOTH_IS_PRESENT=1 let run without a GPU.  Both print
one JSON object, with the seconds of the merge alone (the model is loaded by then).
`compare` prints, for each directory, how many elements of the targets equal the correctly rounded
float64 result; of each target it looks at up to ROWS rows, evenly spread.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import sys
import time


def load(base, adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    return PeftModel.from_pretrained(model, adapter)


def run_peft(base, adapter, out):
    model = load(base, adapter)
    start = time.monotonic()
    model = model.merge_and_unload()
    merged = time.monotonic()
    model.save_pretrained(out)
    return {"merge_seconds": merged - start, "save_seconds": time.monotonic() - merged}


def run_unsloth(base, adapter, out):
    model = load(base, adapter)
    from unsloth_zoo.saving_utils import merge_and_overwrite_lora

    start = time.monotonic()
    merge_and_overwrite_lora(lambda name, *args, **kwargs: base, model, tokenizer=None,
                             save_directory=out, save_method="merged_16bit")
    return {"merge_seconds": time.monotonic() - start}


class Tensors:
    """The tensors of all safetensors files of a directory, under one set of names."""

    def __init__(self, directory):
        import safetensors

        self.files = {}
        for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
            file = safetensors.safe_open(str(path), "pt")
            self.files.update({name: file for name in file.keys()})

    def rows(self, name, rows):
        return self.files[name].get_tensor(name)[rows]


def round_to_bf16(exact):
    """The bits of the bf16 number nearest to each float64 (ties to even), as uint16.

    By way of fp32 rounded to odd: a plain conversion to fp32 could round twice.
    """
    import numpy

    near = exact.astype(numpy.float32)
    wide = near.astype(numpy.float64)
    bits = near.view(numpy.uint32).copy()
    bits[numpy.abs(wide) > numpy.abs(exact)] -= 1  # towards zero
    bits[wide != exact] |= 1
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(numpy.uint16)


def exact_rows(base, factors, module, rows, scale):
    import torch

    key = f"base_model.model.{module}"
    a = factors.rows(f"{key}.lora_A.weight", slice(None)).to(torch.float64)
    b = factors.rows(f"{key}.lora_B.weight", rows).to(torch.float64)
    weight = base.rows(f"{module}.weight", rows).to(torch.float64)
    return (weight + scale * (b @ a)).numpy()


def compare(base, adapter, rows_max, *results):
    import torch

    config = json.loads(pathlib.Path(adapter, "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    tensors, factors = Tensors(base), Tensors(adapter)
    merged = {name: Tensors(path) for name, path in (item.split("=", 1) for item in results)}
    equal = {name: 0 for name in merged}
    total = 0
    for key in sorted(name for name in factors.files if name.endswith(".lora_A.weight")):
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        count = tensors.files[f"{module}.weight"].get_slice(f"{module}.weight").get_shape()[0]
        rows = slice(None, None, -(-count // int(rows_max)))
        expected = round_to_bf16(exact_rows(tensors, factors, module, rows, scale))
        total += expected.size
        for name, result in merged.items():
            actual = result.rows(f"{module}.weight", rows).contiguous()
            bits = actual.to(torch.bfloat16).view(torch.uint16).numpy()
            equal[name] += int((bits == expected).sum())
    return {"elements": total, "equal": equal}


def main():
    actions = {"peft": run_peft, "unsloth": run_unsloth, "compare": compare}
    if len(sys.argv) < 5 or sys.argv[1] not in actions:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    print(json.dumps(actions[sys.argv[1]](*sys.argv[2:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
