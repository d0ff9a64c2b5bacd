#!/usr/bin/env python3
"""Run a command with standard error on a terminal of a given width; print what the terminal got.

usage: terminal_run.py COLUMNS COMMAND [ARGUMENT ...]

Escapes are printed visibly: \\r, \\e.  Each "\\r\\e[K", which erases the line, begins a new line of
output.  Exits with the command's status.
"""
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[1]), 0, 0))
process = subprocess.Popen(sys.argv[2:], stderr=slave)
os.close(slave)
shown = b""
while True:
    try:
        piece = os.read(master, 4096)
    except OSError:  # Linux: every writer has closed the terminal
        break
    if not piece:
        break
    shown += piece
status = process.wait()
text = shown.decode(errors="replace").replace("\r\n", "\n")
text = text.replace("\r\x1b[K", "\n<erase>").replace("\r", "\\r").replace("\x1b", "\\e")
print(text)
sys.exit(status)
