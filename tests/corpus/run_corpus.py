#!/usr/bin/env python3
"""Run `lorafold merge` on every input of the corpus and check how it is refused.

usage: run_corpus.py PROGRAM [--only NAME_PART] [--keep FOLDER] [--no-memory-limit] [--show]

A broken input must give its exit code and exactly one line on stderr, "lorafold: " and a sentence
that contains the expected words, nothing on stdout, and leave every file and folder as it was.
--no-memory-limit is for programs built with sanitizers, --show prints every sentence.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import hashlib
import os
import pathlib
import resource
import stat
import subprocess
import sys
import tempfile

import make_corpus

TIMEOUT_SECONDS = 20
ADDRESS_SPACE_BYTES = 2 << 30
SENTENCE_BYTES_MAX = 1100  # of struct error, with the name of the program before it
HASHED_BYTES_MAX = 1 << 20


def fingerprint(folder):
    """Everything under `folder`: kind, size, time of change, content."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        info = path.lstat()
        name = str(path.relative_to(folder))
        if stat.S_ISLNK(info.st_mode):
            found[name] = ("link", os.readlink(path))
        elif stat.S_ISREG(info.st_mode):
            with path.open("rb") as file:
                content = hashlib.sha256(file.read(HASHED_BYTES_MAX)).hexdigest()
            found[name] = ("file", info.st_size, info.st_mtime_ns, content)
        else:
            found[name] = ("other", stat.S_IFMT(info.st_mode))
    return found


def differences(before, after, ignored):
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return sorted(name for name in names if name.split("/")[0] != ignored)


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))


def run(program, item, home, memory_limit):
    """(exit code or a word for what happened, stdout, stderr)"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": home, "HF_HUB_OFFLINE": "1", "LC_ALL": "C"}
    environment.update({key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")})
    try:
        done = subprocess.run([program, *item["command"]], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT_SECONDS, env=environment,
                              preexec_fn=limit_memory if memory_limit else None, check=False)
    except subprocess.TimeoutExpired as expired:
        return "timeout", expired.stdout or b"", expired.stderr or b""
    if done.returncode < 0:
        return f"signal {-done.returncode}", done.stdout, done.stderr
    return done.returncode, done.stdout, done.stderr


def check_sentence(stderr, words):
    try:
        text = stderr.decode("utf-8")
    except UnicodeDecodeError:
        return ["stderr is not UTF-8"]
    wrong = []
    if text.count("\n") != 1 or not text.endswith("\n"):
        wrong.append(f"stderr has {text.count(chr(10))} lines, not 1")
    if not text.startswith("lorafold: "):
        wrong.append("stderr does not begin with 'lorafold: '")
    if any(not character.isprintable() for character in text.rstrip("\n")):
        wrong.append("stderr has characters that cannot be printed")
    if len(stderr) > SENTENCE_BYTES_MAX:
        wrong.append(f"the sentence has {len(stderr)} bytes")
    if text.rstrip("\n").endswith("."):
        wrong.append("the sentence ends in a full stop")
    lower = text.lower()
    wrong += [f"'{word}' is not in the sentence" for word in words if word.lower() not in lower]
    return wrong


def check(program, item, home, memory_limit):
    """(what is wrong, what the program wrote on stderr)"""
    before = fingerprint(item["folder"])
    code, stdout, stderr = run(program, item, home, memory_limit)
    after = fingerprint(item["folder"])
    wrong = []
    if code != item["exit_code"]:
        wrong.append(f"exit code {code}, not {item['exit_code']}")
    if item["exit_code"] != 0:
        wrong += check_sentence(stderr, item["words"])
        wrong += ["stdout is not empty"] if stdout else []
    elif not pathlib.Path(item["folder"], "out", "merged", "lorafold.json").is_file():
        wrong.append("no model was made")
    ignored = "out" if item["exit_code"] == 0 else ""
    wrong += [f"'{name}' is not as it was" for name in differences(before, after, ignored)]
    return wrong, stderr.decode("utf-8", "backslashreplace").rstrip("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", help="make the corpus here and leave it there")
    parser.add_argument("--no-memory-limit", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    program = str(pathlib.Path(options.program).resolve())
    if not os.access(program, os.X_OK):
        print(f"run_corpus: cannot run '{program}'", file=sys.stderr)
        return 2

    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.keep or temporary, "corpus")
        corpus = make_corpus.make(folder, options.only)
        for item in corpus:
            wrong, said = check(program, item, temporary, not options.no_memory_limit)
            if options.show or wrong:
                print(f"{item['name']}: {said}")
            for sentence in wrong:
                print(f"    FAILED {item['name']}: {sentence}")
            failed += bool(wrong)
    print(f"{len(corpus) - failed} passed, {failed} failed")
    return 1 if failed or not corpus else 0


if __name__ == "__main__":
    sys.exit(main())
