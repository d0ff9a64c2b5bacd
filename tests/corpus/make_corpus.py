#!/usr/bin/env python3
"""Write the corpus of broken inputs: a folder per case, and corpus.json, which says what is expected.

usage: make_corpus.py FOLDER [NAME_PART]

Deterministic, standard library only; about 200 MB of the apparent size are holes.  The cases are in
cases_base.py, cases_adapter.py and cases_scheme.py.  Each starts from a sound base and adapter
(parts.py), so that the one broken thing is what refuses it; the cases named sound_* prove that the
start is sound.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import sys

import parts
from parts import case


@case("sound_one_file", 0)
def _(c):
    pass


@case("sound_two_shards", 0)
def _(c):
    c.shards()


@case("sound_links", 0)
def _(c):
    c.shards()
    (c.folder / "blobs").mkdir()
    for number, path in enumerate(sorted(c.base.iterdir())):
        blob = c.folder / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(f"../blobs/{number}")


@case("sound_output_exists_empty", 0)
def _(c):
    c.out.mkdir()


import cases_adapter  # noqa: E402,F401  (each registers its cases, behind the sound ones)
import cases_base  # noqa: E402,F401
import cases_scheme  # noqa: E402,F401


def make(folder, name_part=""):
    """Write the cases whose name contains `name_part`; returns what is expected of each."""
    folder = pathlib.Path(folder)
    names = [name for name, *_ in parts.CASES]
    assert len(names) == len(set(names)), "two cases have the same name"
    corpus = []
    for name, code, words, function in parts.CASES:
        if name_part not in name:
            continue
        made = parts.Case(folder / name)
        function(made)
        corpus.append({"name": name, "folder": str(made.folder), "command": made.command(),
                       "exit_code": code, "words": [word for word in words if word]})
    (folder / "corpus.json").write_text(json.dumps(corpus, indent=1) + "\n")
    return corpus


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    corpus = make(*sys.argv[1:])
    broken = sum(item["exit_code"] != 0 for item in corpus)
    print(f"{broken} broken and {len(corpus) - broken} sound inputs in {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
