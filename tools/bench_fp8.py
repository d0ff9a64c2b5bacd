#!/usr/bin/env python3
"""A base in FP8 with the names and shapes of a 16-bit one, for measurements: codes are random bytes.

usage: bench_fp8.py BASE FP8_BASE

Linear layers get F8_E4M3 codes and F32 scales of 128 x 128 blocks; all else is copied.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import random
import shutil
import struct
import sys

BLOCK = 128
CHUNK = 1 << 22


def read_header(file):
    size, = struct.unpack("<Q", file.read(8))
    return json.loads(file.read(size)), 8 + size


def new_tensors(header):
    """Name, dtype, shape and the entry that the bytes come from: None where they are made."""
    for name, entry in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [0])[0]):
        if name == "__metadata__":
            continue
        shape = entry["shape"]
        if len(shape) != 2 or not name.endswith("_proj.weight"):
            yield name, entry["dtype"], shape, entry
            continue
        yield name, "F8_E4M3", shape, None
        yield f"{name}_scale_inv", "F32", [-(-side // BLOCK) for side in shape], None


def write_bytes(out, count, pattern):
    while count:
        part = min(count, len(pattern))
        out.write(pattern[:part])
        count -= part


def copy_bytes(out, file, first, end):
    file.seek(first)
    while first < end:
        part = file.read(min(CHUNK, end - first))
        out.write(part)
        first += len(part)


def convert(source, target, codes):
    """Write one shard; the names of its tensors."""
    scales = struct.pack("<f", 2.0 ** -12) * (CHUNK // 4)
    with source.open("rb") as file, target.open("wb") as out:
        header, start = read_header(file)
        made, offset = {"__metadata__": {"format": "pt"}}, 0
        tensors = list(new_tensors(header))
        for name, dtype, shape, entry in tensors:
            count = entry["data_offsets"][1] - entry["data_offsets"][0] if entry else \
                shape[0] * shape[1] * (4 if dtype == "F32" else 1)
            made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count]}
            offset += count
        text = json.dumps(made).encode()
        text += b" " * (-len(text) % 8)
        out.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, _, entry in tensors:
            first, end = made[name]["data_offsets"]
            if entry:
                copy_bytes(out, file, *(start + at for at in entry["data_offsets"]))
            else:
                write_bytes(out, end - first, scales if dtype == "F32" else codes)
    return [name for name, *_ in tensors]


def main():
    if len(sys.argv) != 3:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    base, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    finite = bytes(code - 1 if code in (0x7f, 0xff) else code for code in range(256))
    codes = random.Random(1).randbytes(CHUNK).translate(finite)
    out.mkdir()
    places = {}
    for path in base.iterdir():
        if path.suffix == ".safetensors":
            places |= dict.fromkeys(convert(path, out / path.name, codes), path.name)
        elif path.name == "config.json":
            config = json.loads(path.read_text())
            config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                             "weight_block_size": [BLOCK, BLOCK]}
            (out / path.name).write_text(json.dumps(config, indent=2) + "\n")
        elif not path.name.endswith(".index.json"):
            shutil.copy(path, out)
    if len(set(places.values())) > 1:
        index = {"metadata": {}, "weight_map": places}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
