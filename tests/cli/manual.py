#!/usr/bin/env python3
"""The manual page: no checker finds fault, and it has what `lorafold --help` has, neither more nor less.

usage: manual.py PAGE PROGRAM
"""
# SPDX-License-Identifier: Apache-2.0

import re
import shutil
import subprocess
import sys

CHECKERS = (
    ["mandoc", "-T", "lint"],
    ["groff", "-ww", "-z", "-mandoc", "-Tutf8"],
    ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l"],
)
OPTION = re.compile(r"(?<![\w-])(--[a-z0-9][a-z0-9-]*|-[a-zA-Z])(?![\w-])")


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def complaints(page):
    for words in CHECKERS:
        if shutil.which(words[0]):
            done = subprocess.run([*words, page], capture_output=True, text=True, check=False)
            said = done.stderr + (done.stdout if words[0] == "mandoc" else "")
            yield from (f"{words[0]}: {line}" for line in said.splitlines())


def sections(text, indent):
    """title -> lines; a title stands at the column `indent`, its text further in."""
    found, title = {}, ""
    for line in text.splitlines():
        if re.match(rf" {{{indent}}}\S", line):
            title = line.strip()
        found.setdefault(title, []).append(line)
    return {title: "\n".join(lines) for title, lines in found.items()}


def described(text, indent):
    """The options whose description begins on a line of `text`, at this column."""
    lines = re.findall(rf"^ {{{indent}}}(-.*)", text, re.M)
    return {name for line in lines for name in OPTION.findall(re.split(r"  +", line)[0])}


def words_of(text):
    """A word that was cut at its '-' is whole again."""
    return re.sub(r"-\n\s+", "-", text).split()


def help_options(text):
    return {name for name in OPTION.findall("\n".join(
        re.split(r"(?<=\S)  +", line.strip())[0]
        for line in text.split("\noptions:\n")[1].split("\n\n")[0].splitlines()
        if re.match(r" {2}-| {6}--", line)))}


def main():
    page, program = sys.argv[1:3]
    failed = list(complaints(page))
    if not shutil.which("mandoc"):
        print("manual: there is no mandoc")
        return 1 if failed else 77
    text = output("mandoc", "-T", "ascii", "-O", "width=100", page)
    text = re.sub(".\b", "", text)
    commands = sections(sections(text, 0)["COMMANDS"].partition("\n")[2], 3)
    overview = output(program, "--help")
    names = re.findall(r"^  ([a-z]+) ", overview.split("commands:\n")[1].split("\n\n")[0], re.M)
    if set(filter(None, commands)) != {f"lorafold {name}" for name in names}:
        failed.append(f"commands are {sorted(commands)}, and the program has {names}")
    for name in names:
        part, help_text = commands.get(f"lorafold {name}", ""), output(program, name, "--help")
        other = re.search(r"The options are those of lorafold (\w+)", part)
        shown = described(commands[f"lorafold {other[1]}"] if other else part, 5)
        wanted = help_options(help_text)
        if shown != wanted:
            failed.append(f"{name}: only in the manual {shown - wanted}, only in the help {wanted - shown}")
        spelled = set(re.findall("--[a-z0-9-]+", help_text.partition("other spellings")[2].partition("\nexamples")[0]))
        missing = spelled - {word.strip("(),.") for word in words_of(text)}
        if missing:
            failed.append(f"{name}: other spellings that the manual lacks: {missing}")
    for topic in re.findall(r"^  help ([a-z-]+) ", overview, re.M):
        for line in output(program, "help", topic).splitlines():
            if line.strip() not in text:
                failed.append(f"help {topic}: the manual lacks '{line}'")
    print("\n".join(failed) if failed else f"manual: {len(names)} commands as in their help")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
