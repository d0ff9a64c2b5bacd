"""A loopback test hub: the part of the Hugging Face Hub that uploads and downloads of models need.

`state.py` holds repositories, `routes.py` says what each request gets, `server.py` speaks HTTP and
injects faults.  It is right as far as the genuine client says so: tests/python/test_hub_server.py.
"""

from hub.server import Fault, TestHub
from hub.state import Repo, User

__all__ = ["Fault", "Repo", "TestHub", "User"]
