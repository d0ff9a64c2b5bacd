#!/usr/bin/env python3
"""Small files of torch.save(), which tests/unit/test_torch_file.c reads.

usage: make_torch.py [DIRECTORY]

Made with torch 2.13; expected.txt has a line for each tensor of the files that are
read: file, name, dtype, dimensions, bytes.  The files bad_*.bin are refused.
"""

import collections
import os
import pathlib
import sys

import torch

DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL",
          torch.float8_e4m3fn: "F8_E4M3"}


def count_up(count: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(1, count + 1, dtype=torch.float32).to(dtype)


class Shell:
    """A pickle of this runs a command where it is loaded by what runs pickles."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


def good() -> dict[str, object]:
    shared = count_up(12, torch.float32)
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(count_up(6, torch.float32).view(2, 3))
        module.bias.copy_(count_up(2, torch.float32))
    return {
        "dtypes": {f"a.{name}": count_up(6, dtype).view(2, 3) for dtype, name in DTYPES.items()},
        "shapes": {"scalar": torch.tensor(1.5, dtype=torch.bfloat16), "empty": torch.empty(0, 4),
                   "one": torch.ones(1, 1, 3).transpose(0, 1)},
        "shared": collections.OrderedDict(whole=shared.view(3, 4), row=shared[4:8], again=shared.view(3, 4)),
        "parameter": {"p": torch.nn.Parameter(count_up(4, torch.float16)), "g": torch.ones(2, requires_grad=True)},
        "state_dict": module.state_dict(),
        "many": {f"layer.{i}": torch.full((2,), float(i)) for i in range(60)},
        "nothing": {},
    }


def bad() -> dict[str, object]:
    two = count_up(6, torch.float32).view(2, 3)
    return {
        "transposed": {"fine": two, "turned": two.t()},
        "cut_columns": {"cut": two[:, :2]},
        "expanded": {"wide": torch.ones(1).expand(4)},
        "list": {"fine": two, "things": [two, [two]]},
        "number": {"fine": two, "epoch": 3},
        "nested": {"state_dict": {"fine": two}},
        "key": {1: two},
        "tensor": two,
        "sparse": {"s": two.to_sparse()},
        "conj": {"c": torch.ones(2, dtype=torch.complex64).conj()},
        "complex128": {"c": torch.ones(2, dtype=torch.complex128)},
        "quantised": {"q": torch.quantize_per_tensor(two, 0.1, 0, torch.qint8)},
        "malicious": {"fine": two, "shell": Shell()},
        "set": {"s": {1, 2}},
    }


def describe(file: str, values: dict[str, torch.Tensor]) -> list[str]:
    return [" ".join([file, name, DTYPES[value.dtype], ",".join(map(str, value.shape)) or "-",
                      value.detach().reshape(-1).view(torch.uint8).numpy().tobytes().hex() or "-"])
            for name, value in values.items()]


def main() -> None:
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    lines = []
    for name, values in good().items():
        torch.save(values, directory / f"{name}.bin")
        lines += describe(f"{name}.bin", values)
    for protocol in (3, 4, 5):
        name = f"protocol{protocol}"
        torch.save(good()["shared"], directory / f"{name}.bin", pickle_protocol=protocol)
        lines += describe(f"{name}.bin", good()["shared"])
    for name, values in bad().items():
        torch.save(values, directory / f"bad_{name}.bin")
    torch.save(good()["shared"], directory / "bad_legacy.bin", _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(directory / "bad_torchscript.bin"))
    (directory / "expected.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
