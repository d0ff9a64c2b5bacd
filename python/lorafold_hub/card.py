"""The model card: an existing one keeps its text and gets our metadata."""

# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass, field
from typing import Any

import yaml
from huggingface_hub import ModelCard

# Facts about the weights, which an older card cannot know.
OF_WEIGHTS = ("base_model", "base_model_relation", "library_name")


@dataclass
class Wanted:
    """Metadata that the caller asks for beside what the new card says."""

    tags: list[str] = field(default_factory=list)
    base_model: Any = None
    datasets: list[str] = field(default_factory=list)


class UnreadableCard(Exception):
    """The metadata of a card cannot be understood, so it cannot be changed either."""


def parse(text: str) -> ModelCard:
    try:
        return ModelCard(text.removeprefix("\ufeff"))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UnreadableCard(str(error)) from None


def update(card: ModelCard, metadata: dict[str, Any]) -> bool:
    """Put the metadata into the card: tags are added, the rest replaces.  Did anything change?"""
    before = card.data.to_dict()
    for name, value in metadata.items():
        if name == "tags":
            old = card.data.get("tags") or []
            old = [old] if isinstance(old, str) else list(old)
            value = old + [tag for tag in value if tag not in old]
        if value:
            card.data[name] = value
    return card.data.to_dict() != before


def make(existing: str | None, own: str | None, wanted: Wanted) -> str | None:
    """The card to commit, or None when the existing one stays as it is (or none is asked for).

    `existing` is the Hub's, `own` the one of the directory that is pushed.
    """
    others = {"base_model": wanted.base_model, "datasets": wanted.datasets}
    asked = {"tags": wanted.tags} | {name: value for name, value in others.items() if value}
    if existing is None:
        if own is None and not any(asked.values()):
            return None
        card = parse(own if own is not None else "")
        return str(card) if update(card, asked) or own is None else own
    ours = parse(own).data.to_dict() if own is not None else {}
    metadata = {name: ours[name] for name in OF_WEIGHTS if name in ours} | asked
    metadata["tags"] = list(ours.get("tags") or []) + wanted.tags
    card = parse(existing)
    return str(card) if update(card, metadata) else None
