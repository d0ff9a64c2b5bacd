"""Entry point: keep the protocol's pipe to ourselves, then serve."""

# SPDX-License-Identifier: Apache-2.0

import importlib.util
import os
import sys

from lorafold_hub.lines import Channel, ScrubbedStream

ABOUT = """lorafold-hub is started by lorafold and reads its requests from a pipe (docs/HUB.md).
Nothing is to be gained by starting it by hand."""
NO_LIBRARY = "the Python package 'huggingface_hub' is missing; install it with: pip install huggingface_hub"


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
    if importlib.util.find_spec("huggingface_hub") is None:
        first = channel.read()
        channel.write({"id": (first or {}).get("id", 0), "error": "no_library", "exit": 2, "sentence": NO_LIBRARY})
        sys.exit(2)
    from lorafold_hub.session import serve  # after the settings above

    status = serve(channel)
    # Uploads that were given up must not keep the process alive.
    os._exit(status)


if __name__ == "__main__":
    main()
