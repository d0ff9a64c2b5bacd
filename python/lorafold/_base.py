"""Which base a model was trained on, where it is on this machine, and its 16-bit sibling."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lorafold import _progress
from lorafold._errors import UsageError

# Names of repositories (and directories) of quantised copies: the name of the original, and an ending.
COPY = re.compile(
    r"(.*?[^/])-(unsloth-bnb-4bit|bnb-[48]bit|[48]bit|FP8(-[\w.]+)?|NVFP4|MXFP4|AWQ|GPTQ(-Int[48])?|HQQ)", re.IGNORECASE
)
# Trained on the rounded weights, which the original is not close enough to.
ONLY_ROUNDED = re.compile(r"(.*/)?falcon-?h1[^/]*", re.IGNORECASE)


@dataclass
class Base:
    """What is given to the library, and the directory that it will find, if it is here."""

    name: str
    directory: Path | None


def directory_of(name: str) -> Path | None:
    """A directory as it is, else the snapshot of org/name[@revision] in the Hugging Face cache."""
    if os.path.isdir(name):
        return Path(name)
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    repo, _, revision = name.partition("@")
    try:
        found = try_to_load_from_cache(repo, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def original_of(name: str) -> str | None:
    """The name of the 16-bit original, where the name says that this is a quantised copy.

    None if the copy is here and the original is not: the copy is read then, as its files say.
    """
    bare = name.rstrip("/")
    copy = COPY.fullmatch(bare)
    if copy is None or ONLY_ROUNDED.fullmatch(bare):
        return None
    return copy[1] if directory_of(copy[1]) or not directory_of(bare) else None


def find(named: str | None, commit: str | None, given: str | os.PathLike[str] | None, as_named: bool = False) -> Base:
    """The base to read.

    named: what the model or adapter says it was made from; commit: of that, if known.
    given: what the caller says, which is taken literally.
    as_named: a quantised copy is read itself, not its original.
    """
    if given is not None:
        return Base(os.fspath(given), directory_of(os.fspath(given)))
    if not named:
        raise UsageError("neither the model nor its adapter names a base: give base=, a directory or org/name")
    original = None if as_named else original_of(named)
    if original:
        _progress.log("warning", f"'{named}' is quantised, the adapter is folded into its original '{original}'; "
                                 "base= names another")
        return Base(original, directory_of(original))
    if commit and not os.path.isdir(named):
        pinned = f"{named}@{commit}"
        directory = directory_of(pinned)
        if directory:
            return Base(pinned, directory)
    return Base(named, directory_of(named))
