"""YAML of rendered files. Does not belong here: their contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):
    """Text of several lines as a block; equal values are repeated, not referred to."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the parent's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def to_yaml(document: Mapping[str, Any], title: str) -> str:
    """A document in the given order, below a comment.

    Args:
        document: Mappings, lists and scalars.
        title: What the file holds, a sentence.
    """
    head = f"# {title} Rendered by `python -m crypto_assets.rendered_files`; do not edit by hand.\n\n"
    return head + yaml.dump(dict(document), Dumper=_Plain, sort_keys=False, width=110)
