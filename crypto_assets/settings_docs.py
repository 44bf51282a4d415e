"""Renders `.env.example` and `docs/settings.md` from the fields of `Settings`; does not read the environment.

`python -m crypto_assets.settings_docs [--check] [ROOT]` writes or checks both files of a checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, SecretStr

from crypto_assets import rendered_files
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

ENV_EXAMPLE = ".env.example"
PAGE = "docs/settings.md"
OURS = "CRYPTO_ASSETS_"
INTRODUCTION = """# Settings

Set these as environment variables or in `.env`; command-line options take precedence. Invalid values are rejected at
start, by name; `crypto-assets doctor` also reports misspelled names. Rendered, like `.env.example`, from
`crypto_assets/settings.py` by `python -m crypto_assets.settings_docs`.
"""


@dataclass(frozen=True)
class Setting:
    """One field: environment names (preferred first), default, type and description."""

    names: tuple[str, ...]
    default: str | None
    type: str
    secret: bool
    description: str


def documented(model: type[BaseSettings]) -> list[Setting]:
    """All settings in order of declaration: CRYPTO_ASSETS_*, then CRYPTO_ASSETS_DATABRICKS_*, then the vendors'.

    Raises:
        ValueError: A field has no description or no environment name.
    """
    found: list[Setting] = []
    undocumented: list[str] = []
    for field_name, field in model.model_fields.items():
        alias = field.validation_alias
        names = [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)] if alias else []
        if not names or not field.description:
            undocumented.append(field_name)
            continue
        kinds = [a for a in _members(field.annotation) if a is not NoneType]
        default = None if field.default is None else str(field.default)
        found.append(
            Setting(tuple(names), default, " or ".join(map(_type, kinds)), SecretStr in kinds, field.description)
        )
    if undocumented:
        raise ValueError(f"{model.__name__} fields without description or environment name: {undocumented}")
    return sorted(found, key=lambda s: (not s.names[0].startswith(OURS), s.names[0].startswith(f"{OURS}DATABRICKS_")))


def render_env_example(model: type[BaseSettings]) -> str:
    """`.env.example`: every setting commented out with its default, secrets empty."""
    lines = [
        "# Copy to .env and uncomment the lines you change. Each shows its default; the demo needs none of them.",
        "# Rendered from crypto_assets/settings.py by `python -m crypto_assets.settings_docs`.",
        "",
    ]
    for setting in documented(model):
        lines.append(f"# {setting.description}")
        if setting.type:
            lines.append(f"# {setting.type}" + (" (secret)" if setting.secret else ""))
        if other := setting.names[1:]:
            lines.append(f"# other name: {', '.join(other)}")
        lines += [f"# {setting.names[0]}={'' if setting.secret else setting.default or ''}", ""]
    return "\n".join(lines).rstrip() + "\n"


def render_page(model: type[BaseSettings]) -> str:
    """`docs/settings.md`: the settings as a table."""
    lines = [INTRODUCTION, "| variable | default | meaning |", "|---|---|---|"]
    for s in documented(model):
        names = " or ".join(f"`{n}`" for n in s.names)
        default = "secret, unset" if s.secret else f"`{s.default}`" if s.default is not None else "unset"
        lines.append(f"| {names} | {default} | {_cell(s.description)} |")
    return "\n".join(lines) + "\n"


def files(model: type[BaseSettings]) -> rendered_files.Files:
    """Both files of a checkout."""
    return {ENV_EXAMPLE: lambda: render_env_example(model), PAGE: lambda: render_page(model)}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of: " + ", ".join(str(v) for v in get_args(annotation))
    return {str: "text", int: "whole number", float: "number", Path: "path", SecretStr: "text"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def main(arguments: Sequence[str]) -> int:
    """Write or check both files; returns 1 if a check finds a stale one."""
    what = f"{ENV_EXAMPLE} and {PAGE}"
    return rendered_files.run("crypto_assets.settings_docs", what, lambda _: files(Settings), arguments)


if __name__ == "__main__":
    from crypto_assets.faults import program

    program(lambda: main(sys.argv[1:]))
