"""lorafold-hub: the helper that speaks to the Hugging Face Hub for lorafold, through huggingface_hub.

The program starts it and talks to it in lines of JSON; docs/HUB.md is the protocol.  Nothing here is
an interface for other Python code.
"""

# SPDX-License-Identifier: Apache-2.0

__version__ = "0.1.0"
