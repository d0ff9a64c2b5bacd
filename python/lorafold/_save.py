"""The calls people know: save_pretrained_merged and push_to_hub_merged."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lorafold._options import Path, Size
from lorafold._place import temporary_directory
from lorafold._progress import ShowProgress
from lorafold._records import Report
from lorafold._save_options import SaveOptions, check
from lorafold._saving import save


def save_pretrained_merged(
    model: Any,
    save_directory: Path,
    tokenizer: Any = None,
    save_method: str = "merged_16bit",
    push_to_hub: bool = False,
    token: str | bool | None = None,
    is_main_process: bool = True,
    state_dict: Mapping[str, Any] | None = None,
    save_function: Any = None,
    max_shard_size: Size | None = "5GB",
    safe_serialization: bool | None = True,
    variant: str | None = None,
    save_peft_format: bool = True,
    tags: list[str] | str | None = None,
    temporary_location: Path | None = None,
    maximum_memory_usage: float = 0.75,
    datasets: list[str] | str | None = None,
    *,
    base: Path | None = None,
    repo_id: str | None = None,
    progress: ShowProgress = None,
    **more: Any,
) -> Report | None:
    """Fold the active adapters of a model into its base, and save a complete model directory.

    model: a live PEFT (or Unsloth) model, which stays as it is, or the path of an adapter.
    save_directory: made if needed; a model that it holds is replaced, other files in it stay.
    tokenizer: a tokenizer or processor, or a directory of one; None: the base's files.
    save_method: "merged_16bit", "merged_4bit", "merged_4bit_forced", "lora" or "same".
    token, tags, datasets, and in `more` private, revision, create_pr, commit_message and
        commit_description: for push_to_hub=True, which pushes what was saved to `repo_id`, or to
        save_directory where that is like org/name.
    is_main_process: False returns None at once.
    state_dict: the adapter's tensors, where they are not those of the model (gathered ones).
    save_function, save_peft_format, use_temp_dir: only values that change nothing.
    max_shard_size, safe_serialization, variant: as for merge(); None: the default.  In `more`
        dtype: None, dtypes as in the base; or one of torch's three floats, or its name.
    temporary_location: directory for the adapter and tokenizer meanwhile; None: in save_directory.
    maximum_memory_usage: fraction, up to 0.95, of the memory that is available; merge() takes
        128 MiB, or this if it is less.
    base: the base to read, where it is not the one that the model names.  For a base named as a
        quantised copy, such as "…-bnb-4bit", its original is read, which is logged as a warning;
        with "same" the copy itself.
    progress: as for merge().

    Raises ValueError (UsageError) for what cannot be done, also where the model holds changes that
    neither its base nor its adapter has, and the errors of merge().
    """
    if not is_main_process:
        return None
    options = SaveOptions(
        save_method, push_to_hub, token, state_dict, save_function, max_shard_size, safe_serialization, variant,
        save_peft_format, tags, temporary_location, maximum_memory_usage, datasets, base, repo_id, **more
    )
    check(options)
    repo = (repo_id or os.fspath(save_directory)) if push_to_hub else None
    return save(model, save_directory, tokenizer, options, progress, repo)


def push_to_hub_merged(
    model: Any,
    repo_id: str,
    tokenizer: Any = None,
    save_method: str = "merged_16bit",
    use_temp_dir: bool | None = None,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    max_shard_size: Size | None = "5GB",
    create_pr: bool = False,
    safe_serialization: bool | None = True,
    revision: str | None = None,
    commit_description: str | None = None,
    tags: list[str] | str | None = None,
    temporary_location: Path | None = None,
    maximum_memory_usage: float = 0.75,
    datasets: list[str] | str | None = None,
    *,
    is_main_process: bool = True,
    **more: Any,
) -> Report | None:
    """Fold the active adapters of a model into its base, and push the result in one commit.

    repo_id: org/name; the repository is made if needed, private if `private`.
    commit_message, commit_description, revision, create_pr: of the commit; a pull request goes to
        the main branch.
    token: of the Hub; None: as the Hugging Face tools find it; False: none.
    tags: added to the model card; a card that is on the Hub keeps its text.
    temporary_location: directory for the model meanwhile; None: the current directory.
    All else, and the errors: save_pretrained_merged().  MachineError: the Hub refuses or is away.
    """
    if not is_main_process:
        return None
    where = os.fspath(temporary_location) if temporary_location is not None else os.getcwd()
    with temporary_directory(where) as directory:
        return save_pretrained_merged(
            model, directory, tokenizer, save_method, True, token,
            max_shard_size=max_shard_size, safe_serialization=safe_serialization, tags=tags,
            maximum_memory_usage=maximum_memory_usage, datasets=datasets, repo_id=repo_id,
            use_temp_dir=use_temp_dir, commit_message=commit_message, private=private, create_pr=create_pr,
            revision=revision, commit_description=commit_description, no_local=True, **more,
        )
