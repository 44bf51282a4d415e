"""Searches a home for secret values: logs, the event log and other SQLite files, table metadata, state.

Belongs here: locating a secret without ever repeating it. Does not belong here: which secrets there are
(`settings.Settings.secrets`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

SHORTEST = 6
"""Minimum length: shorter values occur everywhere and are reported as not searchable."""

SKIPPED_SUFFIXES = frozenset({".parquet", ".jar", ".so", ".pyc"})
"""Compressed or foreign binaries. Checkpoints of the Delta log are parquet too: `audit` searches their text."""

SKIPPED_FOLDERS = frozenset({"jars", ".venv"})
_SQLITE = b"SQLite format 3\x00"
_CHUNK = 4 * 1024 * 1024


def spellings(secret: str) -> set[bytes]:
    """Spellings of a value: as it is, inside JSON, inside JSON inside JSON, inside a URL."""
    once = json.dumps(secret)[1:-1]
    return {text.encode() for text in (secret, once, json.dumps(once)[1:-1], quote(secret, safe=""))}


def search(home: Path, secrets: Mapping[str, str]) -> tuple[int, list[dict[str, str]]]:
    """Files below `home` that hold a secret value.

    SQLite files are also queried value by value, because a value may lie on pages that do not follow one another.

    Args:
        home: Folder to search.
        secrets: Values by their names.

    Returns:
        Number of files read, and per finding `secret` (its name), `where` (path below home, with table and column for
        SQLite); secrets too short to search are findings too.
    """
    wanted = {name: spellings(value) for name, value in secrets.items() if len(value) >= SHORTEST}
    found: list[dict[str, str]] = [
        {"secret": name, "where": f"not searched: shorter than {SHORTEST} characters"}
        for name, value in secrets.items()
        if 0 < len(value) < SHORTEST
    ]
    read = 0
    for path in _files(home) if wanted else ():
        shown = str(path.relative_to(home))
        try:
            hits, is_sqlite = _in_file(path, wanted)
        except FileNotFoundError:  # a log rotated or a file removed by housekeeping meanwhile
            continue
        read += 1
        found += [{"secret": name, "where": shown} for name in sorted(hits)]
        if is_sqlite:
            found += [
                {"secret": n, "where": f"{shown} {place}"} for n, place in _in_sqlite(path, wanted) if n not in hits
            ]
    return read, found


def in_texts(texts: Iterable[tuple[str, str]], secrets: Mapping[str, str]) -> list[dict[str, str]]:
    """Findings in texts that are not files, given as (place, text)."""
    wanted = {name: spellings(value) for name, value in secrets.items() if len(value) >= SHORTEST}
    return [
        {"secret": name, "where": place}
        for place, text in texts
        for name, forms in wanted.items()
        if any(form in text.encode() for form in forms)
    ]


def _files(home: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(home):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix not in SKIPPED_SUFFIXES and path.is_file():
                yield path


def _in_file(path: Path, wanted: Mapping[str, set[bytes]]) -> tuple[set[str], bool]:
    overlap = max(len(form) for forms in wanted.values() for form in forms) - 1
    hits: set[str] = set()
    with path.open("rb") as handle:
        block = handle.read(_CHUNK)
        is_sqlite = block.startswith(_SQLITE)
        while block:
            hits |= {name for name, forms in wanted.items() if any(form in block for form in forms)}
            more = handle.read(_CHUNK)
            block = block[-overlap:] + more if more else b""
    return hits, is_sqlite


def _in_sqlite(path: Path, wanted: Mapping[str, set[bytes]]) -> Iterable[tuple[str, str]]:
    """Pairs of secret name and `table.column`."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    except sqlite3.Error:
        return
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            for column in columns:
                for name, forms in wanted.items():
                    condition = " OR ".join([f'instr(CAST("{column}" AS BLOB), ?) > 0'] * len(forms))
                    query = f'SELECT 1 FROM "{table}" WHERE {condition} LIMIT 1'  # noqa: S608 - names from the file
                    if connection.execute(query, sorted(forms)).fetchone():
                        yield name, f"{table}.{column}"
    except sqlite3.DatabaseError as error:
        yield "?", f"cannot be searched: {error}"
    finally:
        connection.close()
