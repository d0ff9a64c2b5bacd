"""Entry point: keep the protocol's pipe to ourselves, then serve."""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import os
import shlex
import sys
import sysconfig

from lorafold_hub.lines import Channel, ScrubbedStream

ABOUT = """lorafold-hub is started by lorafold and reads its requests from a pipe (docs/HUB.md).
Nothing is to be gained by starting it by hand."""
PACKAGE = "huggingface_hub"


def how_to_install() -> str:
    """A command that works where this Python is: distributions keep their own free of what pip installs."""
    python = shlex.quote(sys.executable or "python3")
    is_alone = sys.prefix != sys.base_prefix  # a virtual environment
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if importlib.util.find_spec("pip") is None:
        return f"install it into an environment and use that: {python} -m venv hub && . hub/bin/activate && pip install {PACKAGE}"
    if is_alone or not os.path.exists(marker):
        return f"install it with: {python} -m pip install {PACKAGE}"
    return (f"install it for yourself with: {python} -m pip install --user --break-system-packages {PACKAGE} (this Python belongs "
            "to the system), or install lorafold itself into a virtual environment")



def main() -> None:
    if len(sys.argv) > 1 or sys.stdin.isatty():
        print(ABOUT)
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    # Whatever a library prints goes to stderr: stdout is for answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    channel = Channel(os.fdopen(0, "rb", closefd=False), answers)
    sys.stderr = ScrubbedStream(sys.stderr, channel)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when huggingface_hub is imported
    if importlib.util.find_spec(PACKAGE) is None:
        first = channel.read()
        sentence = f"the Python package '{PACKAGE}' is missing; {how_to_install()}"
        channel.write({"id": (first or {}).get("id", 0), "error": "no_library", "exit": 2, "sentence": sentence})
        sys.exit(2)
    from lorafold_hub.session import serve  # after the settings above

    status = serve(channel)
    # Uploads that were given up must not keep the process alive.
    os._exit(status)


if __name__ == "__main__":
    main()
