#!/usr/bin/env python3
"""--memory is a promise: the peak resident set of merges that are much larger than the budget.

usage: memory.py LORAFOLD MAKE_MODEL

The bases are sparse files, so they cost no disk; the outputs are real and removed at once.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

MIB = 1 << 20


def make(tool: str, directory: pathlib.Path, *options: str) -> None:
    command = [tool, str(directory / "base"), "--sparse", "--adapter", str(directory / "adapter"), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def merge(program: str, directory: pathlib.Path, base: str, budget_mib: int, *options: str) -> tuple[dict, dict]:
    """Plan and report; the report holds the peak that the kernel counted for that process."""
    command = [program, "merge", str(directory / base), "-a", str(directory / "adapter"),
               "-o", str(directory / "out"), "--json", "--memory", f"{budget_mib}MiB", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit {done.returncode}: {done.stderr}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return (next(line for line in lines if line["type"] == "plan"),
            next(line for line in lines if line["type"] == "report"))


def check(name: str, program: str, tool: str, budget_mib: int, make_options: list[str], *options: str,
          of_4_bits: bool = False) -> int:
    """`of_4_bits`: the base is first merged into one that bitsandbytes could have made."""
    with tempfile.TemporaryDirectory(dir=".", prefix="memory-") as path:
        directory = pathlib.Path(path)
        make(tool, directory, *make_options)
        base = "base"
        if of_4_bits:
            merge(program, directory, base, 512, "--save-method", "merged_4bit")
            base = "quantised"
            (directory / "out").rename(directory / base)
        plan, report = merge(program, directory, base, budget_mib, *options)
    peak = report["memory_peak_bytes"]
    print(f"{name}: base {plan['bytes_in'] / MIB:.0f} MiB, budget {budget_mib} MiB, planned "
          f"{plan['memory_needed_bytes'] / MIB:.1f} MiB, peak {peak / MIB:.1f} MiB")
    if peak > budget_mib * MIB or peak > plan["memory_needed_bytes"]:
        print(f"{name}: the peak is above the budget or the plan")
        return 1
    return 0


def main() -> int:
    program, tool = sys.argv[1:]
    wide = ["--hidden", "2048", "--intermediate", "8192", "--vocab", "8192"]
    cases = [
        ("ten times the budget", 48, [*wide, "--layers", "5", "--shards", "3", "--rank", "16"]),
        ("rank 512", 48, [*wide, "--layers", "2", "--shards", "1", "--rank", "512"]),
        ("rank 512, room for factors", 128, [*wide, "--layers", "2", "--shards", "1", "--rank", "512"]),
        ("20,000 tensors", 64, ["--tensors", "20000", "--shards", "2", "--rank", "4"]),
    ]
    failed = sum(check(name, program, tool, budget, options) for name, budget, options in cases)
    layers = [*wide, "--layers", "4", "--shards", "2", "--rank", "64"]
    few = [check("into 4 bits", program, tool, 56, layers, "--save-method", "merged_4bit"),
           check("through NF4", program, tool, 56, layers, "--base-numerics", "nf4-roundtrip"),
           check("from 4 bits", program, tool, 56, layers, of_4_bits=True),
           check("from 4 bits into 4 bits", program, tool, 56, layers, "--save-method", "merged_4bit", of_4_bits=True)]
    failed += sum(few)
    print(f"{len(cases) + len(few) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
