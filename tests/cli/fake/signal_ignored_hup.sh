command -v python3 >/dev/null || { echo "no python3"; exit 77; }
# As under nohup: the program goes on, and the second signal ends it.
python3 - <<'END'
import os, signal, subprocess, sys

signal.signal(signal.SIGHUP, signal.SIG_IGN)
command = [os.environ["LORAFOLD"], "merge", "stubborn", "-a", "one", "-o", "out"]
process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    if line.startswith("note: work began"):
        break
process.send_signal(signal.SIGHUP)
process.stdin.close()
sys.stderr.write(process.stderr.read())
sys.exit(process.wait())
END
