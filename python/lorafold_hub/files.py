"""Which files of a repository a merge needs."""

# SPDX-License-Identifier: Apache-2.0

import re

TEXT_ENDINGS = (".json", ".txt", ".model", ".py", ".jinja", ".md", ".tiktoken")
TEXT_BEGINNINGS = ("LICENSE", "LICENCE", "NOTICE")
# Of other tools and of training; some are as large as the model.
OTHER = re.compile(r"(consolidated|trainer_state|\.)")
VARIANT = re.compile(r"[^.]+\.[^.]+\.safetensors")  # model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
# Modules of sentence-transformers (1_Pooling) and the chat templates have directories of their own.
SIDE_DIRECTORY = re.compile(r"(additional_chat_templates|\d+_\w+)/[^/]+")
CHECKPOINT = re.compile(r"checkpoint-(\d+)/[^/]+")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def is_text(name: str) -> bool:
    return not OTHER.match(name) and (name.endswith(TEXT_ENDINGS) or name.startswith(TEXT_BEGINNINGS))


def choose_weights(paths: list[str]) -> list[str]:
    """Safetensors beside the configuration; of an adapter also a torch file, as older ones have no other."""
    names = [path for path in paths if "/" not in path and path.endswith(".safetensors") and not OTHER.match(path)]
    plain = [name for name in names if not VARIANT.fullmatch(name)]
    if "adapter_model.safetensors" not in paths and "adapter_model.bin" in paths:
        plain.append("adapter_model.bin")
    return plain or names


def choose_checkpoint(paths: list[str]) -> list[str]:
    """The adapter of the last checkpoint, where only checkpoints were uploaded."""
    numbers = [int(match[1]) for path in paths if (match := CHECKPOINT.fullmatch(path))]
    if not numbers:
        return []
    folder = f"checkpoint-{max(numbers)}/"
    return [path for path in paths if path.startswith(folder) and path[len(folder) :] in ADAPTER_FILES]


def choose(paths: list[str], with_weights: bool = True) -> list[str]:
    """Paths to fetch, in order; none if the repository has no weights that lorafold reads."""
    weights = (choose_weights(paths) or choose_checkpoint(paths)) if with_weights else []
    if with_weights and not weights:
        return []
    sides = [path for path in paths if SIDE_DIRECTORY.fullmatch(path)]
    return sorted({*weights, *sides, *(path for path in paths if "/" not in path and is_text(path))})
