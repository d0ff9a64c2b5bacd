#!/usr/bin/env python3
"""Run a command and send it signals once it has said that its work began.

usage: signal_run.py SIGNAL[,SIGNAL ...] COMMAND [ARGUMENT ...]

The first signal follows the line "note: work began", each further one the line "cancel called", which
fake_library.c writes: two equal signals that are pending at once are one signal.  Standard input stays open until the command has ended.
Exits with the command's status, 200 + N if a signal N killed it.
"""
import signal
import subprocess
import sys

signals = [getattr(signal, "SIG" + name) for name in sys.argv[1].split(",")]
# The runner may have been started in the background, where a shell ignores these.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
process = subprocess.Popen(
    sys.argv[2:], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
)


def read_until(start):
    for line in process.stderr:
        sys.stderr.write(line)
        if line.startswith(start):
            return


read_until("note: work began")
process.send_signal(signals[0])
for number in signals[1:]:
    read_until("cancel called")
    process.send_signal(number)
sys.stderr.write(process.stderr.read())
status = process.wait()
sys.exit(status if status >= 0 else 200 - status)
