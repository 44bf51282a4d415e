"""Reads and writes `home.json`, which binds a home to a data mode and a first partition at first use.

Belongs here: the file, and how to repair a damaged one. Does not belong here: whether the settings agree with it
(`home`).
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from crypto_assets.files import UnreadableFile, read_object, write_atomic
from crypto_assets.source_facts import REPLAY, SourceName, listed

FILE = "home.json"
FORMAT = 1


class Binding(BaseModel):
    """Contents of `home.json`.

    Args:
        format: Version of this file.
        source: Data mode.
        partitions_start: First UTC day that has partitions.
        transport: A default only: a home may switch transports, since its tables can hold records of both.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1] = FORMAT
    source: SourceName
    partitions_start: date
    transport: Literal["kafka", "landing"] = "kafka"


def read(home: Path, lake: str) -> Binding | None:
    """Read the binding of a home; None if it is not bound yet.

    Args:
        home: Home folder.
        lake: Root of its tables, from which a lost binding is reconstructed.

    Raises:
        UnreadableFile: `home.json` is invalid; the message contains the text to write into it.
        OSError: The file or its folder is not readable.
    """
    path = home / FILE
    if home.exists() and not home.is_dir():
        raise UnreadableFile(f"{home} is a file, and a home is a folder: choose another one with CRYPTO_ASSETS_HOME")
    try:
        found = read_object(path)
    except FileNotFoundError:
        return None
    except UnreadableFile as error:
        raise UnreadableFile(f"{error}; {remedy(lake)}") from None
    if isinstance(found.get("format"), int) and found["format"] > FORMAT:
        raise UnreadableFile(
            f"{path} has format {found['format']} and this version reads format {FORMAT}: use the version that wrote "
            "it, or another home with CRYPTO_ASSETS_HOME"
        )
    try:
        return Binding.model_validate_json(json.dumps({"format": None, **found}), strict=True)
    except ValidationError as error:
        wrong = "; ".join(
            f"{p['loc'][0]} {json.dumps(found.get(str(p['loc'][0])))}: {p['msg']}" for p in error.errors()
        )
        raise UnreadableFile(f"{path} is damaged ({wrong}); {remedy(lake, found)}") from None


def write(home: Path, binding: Binding) -> None:
    """Write the binding of a home atomically."""
    lasting = binding.model_dump(mode="json")
    if binding.transport == "kafka":
        del lasting["transport"]
    write_atomic(home / FILE, json.dumps(lasting, indent=2) + "\n")


def remedy(lake: str, found: dict[str, Any] | None = None) -> str:
    """Fix for a damaged binding: the text to write, reconstructed from the tables and what is left of the file."""
    recovered = _from_tables(lake)
    for field in ("source", "partitions_start", "transport"):
        with suppress(ValidationError):
            one = {field: (found or {}).get(field)}
            any_other = {"source": REPLAY.name, "partitions_start": "2024-01-01"}
            Binding.model_validate_json(json.dumps({**any_other, **one}), strict=True)
            recovered |= one
    if not recovered and not Path(lake).exists():
        return "the home has no tables, so delete the file: the next start writes it again"
    text = {"format": FORMAT, "source": f"<{listed()}>", "partitions_start": "<first day>", **recovered}
    return f"restore it from a backup, or write into it: {json.dumps(text)}"


def _from_tables(lake: str) -> dict[str, Any]:
    """Data mode and first partition according to the tables; missing keys could not be read, for whatever reason."""
    recovered: dict[str, Any] = {}
    # Every quote names its data mode, and the calendar starts with the first partition.
    for table, column, field in (("silver/prices", "source", "source"), ("gold/dim_date", "day", "partitions_start")):
        with suppress(Exception):  # only a hint, and the lake may be damaged too
            from deltalake import DeltaTable, QueryBuilder

            # Not `to_pyarrow_dataset`, which now and then aborts the process at its exit.
            opened = QueryBuilder().register("t", DeltaTable(f"{lake}/{table}"))
            found = opened.execute(f"SELECT min({column}) AS least FROM t").read_all()  # noqa: S608
            recovered[field] = str(found.column("least")[0].as_py())
    return recovered
