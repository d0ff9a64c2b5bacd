"""The steps of save_pretrained_merged, once its parameters are known to be good."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafold import _adapter, _base, _live
from lorafold._base import Base
from lorafold._errors import LorafoldError, UsageError
from lorafold._merge import merge
from lorafold._place import Place, temporary_directory
from lorafold._progress import ShowProgress
from lorafold._records import Report
from lorafold._save_options import SaveOptions, merge_options, push_options
from lorafold._verify import inspect, verify
from lorafold._work import unbroken


@dataclass
class Source:
    """What is folded into what."""

    base: Base
    path: Path | None  # of an adapter, or None for a live model
    model: Any = None
    adapters: tuple[str, ...] = ()  # active in the model
    save_embeddings: bool = False


def find_source(model: Any, options: SaveOptions) -> Source:
    """Check a model or the path of an adapter; writes nothing."""
    if isinstance(model, (str, os.PathLike)):
        about = inspect(model)
        if about["type"] != "adapter":
            raise UsageError(f"'{os.fspath(model)}' is no adapter but a {about['type']}")
        if options.state_dict is not None:
            raise UsageError("a state_dict stands for the tensors of a live model, and an adapter's path is given")
        as_named = options.save_method == "same"
        return Source(_base.find(about.get("base_model"), None, options.base, as_named), Path(model))
    model = _adapter.unwrap(model)
    _adapter.check_is_peft(model)
    adapters = _adapter.active_adapters(model)
    base = find_live_base(model, adapters, options)
    stored = _live.read_base(base.directory) if base.directory else {}
    resized = _live.are_resized(model, stored)
    _live.check_unchanged(model, adapters, stored, resized)
    return Source(base, None, model, tuple(adapters), resized)


def find_live_base(model: Any, adapters: list[str], options: SaveOptions) -> Base:
    config = model.get_base_model().config
    loaded = getattr(config, "_name_or_path", None)
    named = loaded or model.peft_config[adapters[0]].base_model_name_or_path
    commit = getattr(config, "_commit_hash", None) if loaded else None
    return _base.find(named, commit, options.base, options.save_method == "same")


def check_tokenizer(tokenizer: Any, model: Any) -> None:
    """A token without a row of the embeddings would end in an index error or in noise."""
    if model is None or tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
        return
    try:
        tokens = len(getattr(tokenizer, "tokenizer", tokenizer))
        rows = int(_live.weight_of(model.get_input_embeddings()).shape[0])
    except (TypeError, AttributeError, NotImplementedError):
        return
    if 0 < rows < tokens:
        raise UsageError(f"the tokenizer has {tokens} tokens and the model's embeddings {rows} rows; the added tokens need "
                         "model.resize_token_embeddings() and training before the model is saved")


def check_directory(directory: Path, source: Source) -> None:
    """The inputs are not to be touched, not even by a work directory."""
    for what, path in (("base", source.base.directory), ("adapter", source.path)):
        if path is not None and path.is_dir() and directory.is_dir() and os.path.samefile(path, directory):
            raise UsageError(f"'{directory}' is the {what} itself; save into another directory")


@contextmanager
def scratch(place: Place, location: Any) -> Iterator[Path]:
    """Where adapter and tokenizer are written for the library to read."""
    if location is None:
        yield place.make("inputs")
    else:
        with temporary_directory(location) as made:
            yield made


def write_inputs(source: Source, tokenizer: Any, options: SaveOptions, into: Path) -> tuple[list[Path], Any]:
    """Paths of the adapters and of the tokenizer (None: none given)."""
    if source.path is not None:
        adapters = [source.path]
    else:
        adapters = _adapter.write(
            source.model, list(source.adapters), into / "adapters", options.state_dict, source.save_embeddings
        )
    if tokenizer is not None and not isinstance(tokenizer, (str, os.PathLike)):
        tokenizer.save_pretrained(str(into / "tokenizer"))
        tokenizer = into / "tokenizer"
    return adapters, tokenizer


def check_repo(repo_id: str) -> None:
    if repo_id.count("/") != 1:
        raise UsageError(f"'{repo_id}' is not the name of a repository: it is org/name (repo_id=)")


def save(model: Any, directory: Any, tokenizer: Any, options: SaveOptions, progress: ShowProgress,
         repo_id: str | None) -> Report:
    """Merge, put into the directory, and push, while it is made, if there is a repository to push to."""
    directory = Path(directory)
    source = find_source(model, options)
    check_tokenizer(tokenizer, source.model)
    check_directory(directory, source)
    if repo_id is not None:
        check_repo(repo_id)
    with ExitStack() as stack:
        place = stack.enter_context(Place(directory, is_model=options.save_method != "lora", variant=options.variant))
        inputs = stack.enter_context(scratch(place, options.temporary_location))
        adapters, tokens = write_inputs(source, tokenizer, options, inputs)
        more = merge_options(options, tokens) | ({} if repo_id is None else push_options(options, repo_id))
        built = place.work / "out"
        try:
            report = merge(source.base.name, adapters, built, progress=progress, **more)
        except LorafoldError as error:
            if not built.is_dir():
                raise
            finish(place, built)  # complete, but not pushed
            raise type(error)(str(error).replace(str(built), str(directory))) from None
        if options.no_local:
            return report
        finish(place, built)
    return report.moved(str(built), str(directory))


def finish(place: Place, built: Path) -> None:
    if place.holds_weights():
        verify(built, progress=False)  # before what it replaces is gone
    unbroken(lambda: place.publish(built))
