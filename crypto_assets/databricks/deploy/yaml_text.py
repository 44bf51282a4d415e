"""YAML with comments, from plain values. Does not belong here: contents of the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_yaml(document: Mapping[str, Any], header: str, comments: Mapping[str, str]) -> str:
    """A document as block YAML in the given order, with a header and comments above named keys.

    Args:
        document: Mappings, lists and scalars.
        header: Comment at the top, without `#`.
        comments: Comment by dotted path of keys, e.g. `services.kafka`; keys below lists cannot be named.

    Raises:
        KeyError: A comment's path is not in the document.
    """
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the parent's signature
            return True

    lines = yaml.dump(dict(document), Dumper=Plain, sort_keys=False, width=110, default_flow_style=False).splitlines()
    out = [f"# {line}".rstrip() for line in header.splitlines()] + [""]
    missing = set(comments)
    path: list[tuple[int, str]] = []
    for line in lines:
        stripped = line.lstrip()
        indent = len(line) - len(stripped)
        if not stripped.startswith("- ") and ":" in stripped:
            path = [(i, k) for i, k in path if i < indent] + [(indent, stripped.split(":")[0])]
            dotted = ".".join(k for _, k in path)
            if dotted in missing:
                missing.discard(dotted)
                out += [f"{' ' * indent}# {text}" for text in comments[dotted].splitlines()]
        out.append(line)
    if missing:
        raise KeyError(f"comments on keys that are not in the document: {sorted(missing)}")
    return "\n".join(out) + "\n"
