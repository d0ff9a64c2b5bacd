"""What goes wrong with the Hub, in one sentence per kind."""

# SPDX-License-Identifier: Apache-2.0

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import constants, errors

try:  # the library moved from the one to the other
    import httpx2 as httpx
except ImportError:
    import httpx

USAGE_KINDS = {"name", "option", "token_file", "offline", "mixed"}  # exit 2: the command cannot be run as given
SERVER_TEXT_MAX = 300
NO_TOKEN = "no token was given: set HF_TOKEN, run 'hf auth login', or name a file that holds one"


class Failure(Exception):
    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.exit = 2 if kind in USAGE_KINDS else 1


@dataclass
class About:
    """What the sentence may speak of."""

    repo: str
    revision: str | None = None
    token_source: str | None = None  # where the token came from; None without one


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, as the library wraps errors in its own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def status_of(error: BaseException) -> int | None:
    for one in chain(error):
        if isinstance(one, errors.HfHubHTTPError):
            return one.response.status_code
    return None


def is_transport(error: BaseException) -> bool:
    return any(isinstance(one, httpx.TransportError) for one in chain(error))


def first_line(text: str) -> str:
    """What a server says, fit for a sentence."""
    lines = [line.strip() for line in re.sub(r"[^\S\n]+", " ", text).splitlines() if line.strip()]
    line = "".join(c for c in (lines[0] if lines else "") if c.isprintable())
    return line[:SERVER_TEXT_MAX].rstrip(".")


def says(error: errors.HfHubHTTPError) -> str:
    return first_line(error.server_message or "") or f"status {error.response.status_code}"


def explain(error: BaseException, about: About) -> Failure:
    for one in chain(error):
        if isinstance(one, Failure):
            return one
        failure = explain_one(one, about)
        if failure:
            return failure
    text = first_line(str(error))
    return Failure("internal", f"the Hub helper failed: {type(error).__name__}{': ' + text if text else ''}")


def explain_one(error: BaseException, about: About) -> Failure | None:
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Failure("offline", f"HF_HUB_OFFLINE is set, and '{about.repo}' must be asked for on the Hub")
    if isinstance(error, errors.HFValidationError):
        return Failure("name", f"'{about.repo}' is not the name of a repository: it is org/name of letters, digits, "
                               "'-', '_' and '.'")
    if isinstance(error, errors.HfHubHTTPError):
        return explain_status(error, about)
    if isinstance(error, httpx.TransportError):
        reason = first_line(str(error)) or type(error).__name__
        return Failure("network", f"the Hub at {constants.ENDPOINT} cannot be reached: {reason}")
    if isinstance(error, OSError) and error.errno:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or constants.HF_HUB_CACHE
            return Failure("no_space", f"no space left for '{where}': {os.strerror(error.errno)}")
        return Failure("local", f"'{error.filename}': {os.strerror(error.errno)}")
    return None


def explain_status(error: errors.HfHubHTTPError, about: About) -> Failure:
    repo, source, status = about.repo, about.token_source, error.response.status_code
    token = f"the token from {source}"
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        todo = f"use a token of that account ({token} has no access)" if source else f"log in ({NO_TOKEN})"
        return Failure("gated", f"'{repo}' is gated: accept its terms at {page} and {todo}")
    if status == 401 and "Invalid credentials" in error.response.headers.get("X-Error-Message", ""):
        return Failure("bad_token", f"the Hub does not accept {token}: it is wrong or has expired")
    if isinstance(error, errors.RevisionNotFoundError):
        return Failure("revision_missing", f"'{repo}' has no revision '{about.revision or 'main'}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        why = f"is private and {token} may not see it" if source else f"is private and {NO_TOKEN}"
        return Failure("repo_missing", f"'{repo}' is not on the Hub, or {why}")
    if status == 401:
        return Failure("no_token", f"the Hub wants a token for '{repo}', and "
                                   + (f"does not accept {token}" if source else NO_TOKEN))
    if status == 403:
        return Failure("no_access", f"{token if source else 'without a token one'} may not do this to '{repo}': "
                                    f"{says(error)}")
    if status == 402:
        return Failure("quota", f"the Hub wants payment for '{repo}': {says(error)}")
    if status == 412:
        return Failure("conflict", f"'{repo}' was changed by somebody else during the push; push again")
    if status == 429:
        return Failure("rate_limited", "the Hub still limits requests after several attempts; try again later")
    if status >= 500 or status == 408:
        return Failure("server", f"the Hub at {constants.ENDPOINT} failed (status {status}); try again later")
    return Failure("rejected", f"the Hub rejects a request for '{repo}': {says(error)}")
