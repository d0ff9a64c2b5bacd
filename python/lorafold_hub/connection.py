"""The connection to the Hub: huggingface_hub with time limits, and patience where it has none."""

# SPDX-License-Identifier: Apache-2.0

import logging
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from lorafold_hub import __version__
from lorafold_hub.failures import About, Failure, chain, explain, httpx, is_transport, status_of
from lorafold_hub.lines import Channel

Answer = TypeVar("Answer")

CONNECT_SECONDS = 30
# A commit of many files keeps the Hub busy for minutes before it answers.
SILENCE_SECONDS = 300
TRANSIENT = (408, 429, 500, 502, 503, 504)
PAUSES_SECONDS = (1, 2, 4)
# The quota of commits is one of an hour; who asks for a longer pause is not waited for.
WAIT_SECONDS_MAX = 3600
NOTICE_SECONDS = 5  # a pause that one should know of


def make_client() -> Any:
    client = default_client_factory()
    client.timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    return client


def asked_pause(error: BaseException) -> int | None:
    """Seconds that the Hub asks to wait, by its own header or the standard one."""
    for one in chain(error):
        if isinstance(one, HfHubHTTPError):
            limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", one.response.headers.get("ratelimit", ""))
            text = limit[1] if limit else one.response.headers.get("Retry-After", "").strip()
            return int(text) if text.isdigit() else None
    return None


class Pauses(logging.Handler):
    """The library waits by itself where it retries, and only logs that: long pauses are told."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        pause = re.search(r"Rate limited\. Waiting ([0-9.]+)s", record.getMessage())
        if pause and float(pause[1]) >= NOTICE_SECONDS:
            tell_pause(self._channel, round(float(pause[1])))


def tell_pause(channel: Channel, seconds: int) -> None:
    channel.notice(f"the Hub limits requests; waiting {seconds} s as it asks")


class Connection:
    def __init__(self, token: str | None, token_source: str | None, channel: Channel) -> None:
        set_client_factory(make_client)
        logging.getLogger("huggingface_hub").addHandler(Pauses(channel))
        # Without a token the library must not find one by itself: False says so.
        self.api = HfApi(token=token or False, library_name="lorafold", library_version=__version__)
        self.token_source = token_source
        self._channel = channel

    def about(self, repo: str, revision: str | None = None) -> About:
        return About(repo, revision, self.token_source)

    def check_name(self, repo: str) -> None:
        try:
            validate_repo_id(repo)
        except ValueError as error:
            raise explain(error, self.about(repo)) from None

    def call(self, function: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        """Call, and again after a pause when the failure may pass: the library itself retries only some calls."""
        for pause in PAUSES_SECONDS:
            try:
                return function(*arguments, **options)
            except Exception as error:
                if not self.passes(error):
                    raise
                self.wait(error, pause)
        return function(*arguments, **options)

    @staticmethod
    def passes(error: BaseException) -> bool:
        return status_of(error) in TRANSIENT or is_transport(error)

    def wait(self, error: BaseException, pause: int) -> None:
        asked = asked_pause(error)
        if asked is not None and asked > WAIT_SECONDS_MAX:
            raise Failure("rate_limited", f"the Hub limits requests and asks to wait {asked} s, and no more than "
                                          f"{WAIT_SECONDS_MAX} s are waited for; try again then") from error
        seconds = pause if asked is None else asked + 1  # its clock may be a little behind
        if seconds >= NOTICE_SECONDS:
            tell_pause(self._channel, seconds)
        time.sleep(seconds)
