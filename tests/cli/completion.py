#!/usr/bin/env python3
"""Type at a real shell, press TAB, and compare what it offers with `lorafold COMMAND --help`.

usage: completion.py bash|zsh SCRIPT PROGRAM

SCRIPT is the completion that the build made.  The shell runs on a terminal of its own in a folder
that holds directories, a model file and another file.
"""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile

WAIT_SECONDS = 60  # for an answer that never comes
ASK = "\x14"  # Ctrl-T, bound to a listing of all that could stand here

# Each defines the key ASK, and `lorafold` as a function that shows its arguments.
BASH = r"""
PS1=READY; PS2=
set +H
bind 'set enable-bracketed-paste off'
bind 'set page-completions off'
bind 'set completion-query-items 100000'
bind 'set completion-display-width 1'
bind '"\C-t": possible-completions'
lorafold() { printf '<%s>' "$@"; echo; }
. "$SCRIPT"
"""
# What a completion adds is in its calls of compadd, so one stands before the real one.
ZSH = r"""
PROMPT=READY RPROMPT= PS2=
unsetopt zle_bracketed_paste promptsp promptcr beep 2>/dev/null
fpath=("$FOLDER" $fpath)
autoload -Uz compinit; compinit -u -D
zle -C ask list-choices asked
bindkey "^T" ask
bindkey '^I' complete-word
asked() {
    compadd() {
        local -a found
        [[ "$*" == *-[a-zA-Z]#[OAD]\ * ]] || builtin compadd -O found "$@"
        print -rl -- $found >>"$FOLDER/offered"
        builtin compadd "$@"
    }
    setopt local_options extended_glob
    _main_complete
    unfunction compadd
    compstate[list]=
}
lorafold() { printf '<%s>' "$@"; echo; }
"""


class Shell:
    def __init__(self, kind, script, folder):
        words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[kind]
        (folder / "_lorafold").write_bytes(script.read_bytes())
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C",
                       "SCRIPT": str(script), "FOLDER": str(folder), "HISTFILE": ""}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder / "place")
            os.execvpe(words[0], words, environment)
        self.count = 0
        self.kind, self.listed = kind, folder / "offered"
        setup = folder / "setup"
        setup.write_text({"bash": BASH, "zsh": ZSH}[kind])
        # The terminal itself must take no key for a command of its own, such as Ctrl-U.
        self.type(f"stty -echo -icanon; . {setup}\n")
        self.until_done()

    def type(self, text):
        os.write(self.terminal, text.encode())

    def until_done(self):
        """Run a command that only it can have run, and return what came before its answer."""
        self.count += 1
        self.type(f"echo $(( {self.count} + 1000 ))END\n")
        end, seen = f"{self.count + 1000}END", ""
        while not re.search(end + "(?s:.*)READY", seen):  # only then does the shell read keys
            if not select.select([self.terminal], [], [], WAIT_SECONDS)[0]:
                raise SystemExit(f"completion: no answer; so far:\n{seen}")
            seen += os.read(self.terminal, 65536).decode(errors="replace")
        return seen[: seen.index(end)]

    def offered(self, line):
        """What could stand at the end of `line`, which is then thrown away."""
        self.listed.write_text("")
        self.type(line + ASK + "\x15")  # Ctrl-U
        shown = self.until_done()
        return shown if self.kind == "bash" else self.listed.read_text()

    def completed(self, line):
        """The arguments of the line after a TAB at its end."""
        self.type(line + "\t\n")
        return re.findall("<([^<>]*)>", self.until_done())


class Check:
    def __init__(self):
        self.failed = 0
        self.count = 0

    def equal(self, what, got, wanted):
        self.count += 1
        if got != wanted:
            self.failed += 1
            print(f"FAILED {what}:\n  got    {got}\n  wanted {wanted}")


def shown(program, *words):
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    return done.stdout


def options_of(help_text):
    """Letters and names of the options in a help text, without the other spellings."""
    text = help_text.split("\noptions:\n")[1].split("\n\n")[0]
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", text, re.M)) | set(
        re.findall(r"^ +(-\w), --", text, re.M))


def spellings_of(help_text):
    """name -> its other spellings."""
    text = help_text.partition("\nother spellings")[2].partition("\n\n")[0]
    blocks = re.findall(r"^  --([a-z0-9-]+):\n((?: {6}.*\n?)+)", text, re.M)
    return {name: re.findall(r"--([a-z0-9-]+)", block) for name, block in blocks}


def words(seen, pattern):
    return set(re.findall(rf"(?<![\w./-]){pattern}(?![\w./-])", seen))


def check_options(shell, check, program, commands):
    for command in commands:
        text = shown(program, command, "--help")
        names = words(shell.offered(f"lorafold {command} --"), "--[a-z0-9-]+")
        wanted = {name for name in options_of(text) if name.startswith("--")}
        check.equal(f"{command} --", names, wanted)
        for letter in sorted(options_of(text) - wanted):
            check.equal(f"{command} {letter}", words(shell.offered(f"lorafold {command} -"), letter), {letter})


def check_values(shell, check, program):
    """Every value that is offered is one that the program takes, and these are offered."""
    for option, wanted in {
        "--dtype": "keep bf16 f16 f32",
        "--save-method": "merged_16bit merged_4bit lora same",
        "--tied": "exact shared",
        "--quant-type": "nf4 fp4",
        "--lora-b-layout": "auto rank-major expert-major",
        "--base-numerics": "auto original dequantised nf4-roundtrip",
    }.items():
        for command in ("merge", "plan"):
            line = f"lorafold {command} {option} "
            check.equal(line, words(shell.offered(line), r"\w[\w-]*"), set(wanted.split()))
    check.equal("--dtype=b", shell.completed("lorafold merge --dtype=b"), ["merge", "--dtype=bf16"])
    check.equal("--dtype b", shell.completed("lorafold merge --strict --dtype b"), ["merge", "--strict", "--dtype", "bf16"])
    check.equal("--memory", shell.completed("lorafold merge --memory "), ["merge", "--memory"])
    if shell.kind == "bash":
        for name, others in spellings_of(shown(program, "merge", "--help")).items():
            for other in others:
                line = f"lorafold merge --{other.replace('-', '_')} "
                check.equal(line, shell.offered(line), shell.offered(f"lorafold merge --{name} "))


def check_places(shell, check):
    def done(line):
        # The '/' that zsh adds goes when the line is entered.
        return [word.rstrip("/") if shell.kind == "zsh" else word for word in shell.completed(line)]

    slash = "/" if shell.kind == "bash" else ""
    check.equal("a directory", done("lorafold merge -a ada"), ["merge", "-a", f"adapter one{slash}"])
    check.equal("BASE, a directory", done("lorafold merge base"), ["merge", f"base-model{slash}"])
    check.equal("BASE, a file", done("lorafold merge mod"), ["merge", "model.safetensors"])
    check.equal("OUT=", done("lorafold merge --output=base"), ["merge", f"--output=base-model{slash}"])
    check.equal("any file", done("lorafold inspect note"), ["inspect", "notes.txt"])
    check.equal("behind --", done("lorafold verify -- ba"), ["verify", "--", f"base-model{slash}"])
    check.equal("below", done("lorafold verify base-model/de"), ["verify", f"base-model/deep{slash}"])
    if shell.kind == "bash":  # zsh falls back on all files
        check.equal("BASE, no model", done("lorafold merge note"), ["merge", "note"])
        check.equal("no file", done("lorafold merge -o note"), ["merge", "-o", "note"])


def main():
    kind, script, program = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    if not shutil.which(kind):
        print(f"completion: there is no {kind}")
        return 77
    text = shown(program, "--help")
    commands = re.findall(r"^  ([a-z]+) ", text.split("commands:\n")[1].split("\n\n")[0], re.M)
    topics = re.findall(r"^  help ([a-z-]+) ", text, re.M)
    check = Check()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder, "place")
        for name in ("adapter one", "base-model/deep"):
            (place / name).mkdir(parents=True)
        for name in ("model.safetensors", "notes.txt"):
            (place / name).write_text("")
        shell = Shell(kind, script, pathlib.Path(folder))
        check.equal("commands", words(shell.offered("lorafold "), "[a-z]+"), set(commands))
        check.equal("a command", shell.completed("lorafold me"), ["merge"])
        if kind == "bash":
            check.equal("behind an option", shell.completed("lorafold --json me"), ["--json", "merge"])
        check.equal("help", words(shell.offered("lorafold help "), "[a-z-]+"), {*commands, *topics})
        check_options(shell, check, program, commands)
        check_values(shell, check, program)
        check_places(shell, check)
    print(f"completion of {kind}: {check.count - check.failed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
