"""Renders contracts as DDL with comments and tags, JSON Schemas, the data dictionary, column lineage.

Does not belong here: Arrow and Spark schemas (`contracts.arrow`), Dagster's classes (`checks.factories`), configuration
(`settings_docs`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from crypto_assets.contracts import messages
from crypto_assets.contracts.model import Column, Table
from crypto_assets.contracts.tables import TABLES

Upstream = Callable[[Table], Sequence[str]]

TABLE_PROPERTIES: Mapping[str, str] = {
    "delta.isolationLevel": "Serializable",
    "delta.checkpointInterval": "10",
    "delta.enableDeletionVectors": "false",
}
"""Properties of every table: both backends can write it, and concurrent writers of a slice conflict, not duplicate."""

LOG_STATISTICS = ("partition", "offset", "kafka_timestamp", "event_hour", "range_start", "range_end")
"""Columns with file statistics in tables that mirror the log; statistics on raw JSON would only bloat the Delta log.

A Spark writer uses those of the range columns to skip files that cannot contain its offsets."""

DATA_DICTIONARY = "docs/data-dictionary.md"
SCHEMAS = "docs/schemas"

_GRAIN = {"hour": "hour", "day": "day", None: "none: the whole table is one asset"}
_VERB = {
    "append_once": "appended exactly once",
    "replace_slice": "replaced slice by slice",
    "merge": "merged on its key",
}
_SCHEMAS_IN_FLOW = ("bronze", "silver", "gold", "features", "ml", "ops")


def lineage_markdown(table: Table) -> str:
    """Column lineage as a markdown table; columns without upstream are omitted."""
    lines = ["| column | from |", "|---|---|"]
    lines += [f"| {c.name} | {_lineage(c)} |" for c in table.columns if c.lineage]
    return "\n".join(lines) + "\n"


def table_properties(table: Table) -> dict[str, str]:
    """Delta properties that the table is created with."""
    found = dict(TABLE_PROPERTIES)
    if table.write == "append_once":
        found["delta.dataSkippingStatsColumns"] = ",".join(c for c in LOG_STATISTICS if c in table.column_names)
    return found


def add_columns(name: str, columns: Sequence[Column]) -> str:
    """Spark SQL `ALTER TABLE ... ADD COLUMNS` with comments, for columns added to a contract later.

    Args:
        name: Quoted name of the table.
        columns: Nullable columns.
    """
    lines = [f"{quoted(c.name)} {c.type.upper()} COMMENT {literal(_comment(c))}" for c in columns]
    return f"ALTER TABLE {name} ADD COLUMNS ({', '.join(lines)})"


def create_table(
    table: Table,
    name: str,
    location: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> str:
    """Spark SQL `CREATE TABLE IF NOT EXISTS` with all comments; no clustering, which delta-rs cannot write.

    Args:
        table: Contract.
        name: Name to create, e.g. with a catalog.
        location: Folder of an external table; None = managed.
        properties: Table properties; default `table_properties`.
    """
    lines = [
        f"  {quoted(c.name)} {c.type.upper()}{'' if c.nullable else ' NOT NULL'} COMMENT {literal(_comment(c))}"
        for c in table.columns
    ]
    parts = [
        f"CREATE TABLE IF NOT EXISTS {qualified(name)} (",
        ",\n".join(lines),
        ")",
        "USING DELTA",
    ]
    if table.partition_by:
        parts.append(f"PARTITIONED BY ({', '.join(map(quoted, table.partition_by))})")
    if location is not None:
        parts.append(f"LOCATION {literal(location)}")
    parts.append(f"COMMENT {literal(table.description)}")
    named = table_properties(table) if properties is None else properties
    parts.append(f"TBLPROPERTIES ({', '.join(f'{literal(k)} = {literal(v)}' for k, v in named.items())})")
    return "\n".join(parts)


def tags(table: Table, name: str) -> str:
    """Unity Catalog tags of a table: owner, layer, partition, retention, code version.

    Args:
        table: Contract.
        name: Three-level name.
    """
    found = {
        "owner": table.owner,
        "layer": table.schema,
        "partition": table.grain or "none",
        "retention_days": "for ever" if table.retention_days is None else str(table.retention_days),
        "code_version": table.code_version,
    }
    pairs = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in found.items())
    return f"ALTER TABLE {qualified(name)} SET TAGS ({pairs})"


def json_schema(name: str) -> str:
    """JSON Schema text of a message format, such as `crypto-prices-raw-v1`.

    Raises:
        KeyError: No such format.
    """
    return json.dumps(_MESSAGE_SCHEMAS[name], indent=2, ensure_ascii=False) + "\n"


def data_dictionary(upstream: Upstream) -> str:
    """The data dictionary as markdown: messages, then all tables in order of data flow.

    Args:
        upstream: Returns a table's upstream assets, as `schema/name`.
    """
    ordered = [t for schema in _SCHEMAS_IN_FLOW for t in TABLES.values() if t.schema == schema]
    parts = [
        "# Data dictionary",
        "",
        "Rendered from `crypto_assets/contracts` by `python -m crypto_assets.rendered_files`; do not edit by hand.",
        "All times are UTC, money is in USD, windows are [start, end).",
        "A table's full name is `schema.table`; the same two words are its asset key in Dagster.",
        "*From* names the upstream columns that determine a value or make it null; columns that only filter, join,",
        "group or order rows are omitted. It is empty for values that come from no table.",
        "",
        "| table | partition | write mode | retention | contents |",
        "|---|---|---|---|---|",
        *(
            f"| [{t.full_name}](#{_anchor(t.full_name)}) | {t.grain or '-'} | {_VERB[t.write]} | {_kept(t)} "
            f"| {_cell(t.description.split('. ', maxsplit=1)[0].rstrip('.') + '.')} |"
            for t in ordered
        ),
        "",
        *_messages_markdown(),
    ]
    for table in ordered:
        parts += _table_markdown(table, upstream(table))
    return "\n".join(parts).rstrip() + "\n"


def files(upstream: Upstream) -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout, with their render functions.

    Args:
        upstream: Returns a table's upstream assets, as `schema/name`.
    """
    return {
        DATA_DICTIONARY: lambda: data_dictionary(upstream),
        **{f"{SCHEMAS}/{name}.json": partial(json_schema, name) for name in _MESSAGE_SCHEMAS},
    }


_MESSAGE_SCHEMAS: Mapping[str, dict] = {
    "crypto-prices-raw-v1": messages.PRICE_SCHEMA,
    "crypto-polls-v1": messages.POLL_SCHEMA_V1,
    "crypto-polls-v2": messages.POLL_SCHEMA,
}


def _messages_markdown() -> list[str]:
    lines = ["## Messages", ""]
    for name, schema in _MESSAGE_SCHEMAS.items():
        required = set(schema["required"])
        lines += [
            f"### {name}",
            "",
            f"JSON in UTF-8; the schema is [`schemas/{name}.json`](schemas/{name}.json).",
            "Unknown = null; additional fields are not allowed. Numbers of quotes are plain decimal text, never in",
            "scientific notation.",
            "",
            "| field | required | type |",
            "|---|---|---|",
            *(
                f"| `{f}` | {'yes' if f in required else 'no'} | {_json_type(s)} |"
                for f, s in schema["properties"].items()
            ),
            "",
        ]
    always = (messages.HEADER_SCHEMA_VERSION, messages.HEADER_SOURCE, messages.HEADER_POLL_ID, messages.HEADER_CADENCE)
    replayed = (messages.HEADER_RECORDED_AT, messages.HEADER_SHIFT_DAYS, messages.HEADER_SEAM)
    of_all, of_replays = (", ".join(f"`{name}`" for name in names) for names in (always, replayed))
    headers = f"Headers of every price message: {of_all}; of a replay also {of_replays}; of a replay and the simulator "
    lines += [
        headers + f"`{messages.HEADER_SENT_AT}`, the time at which they were really sent.",
        "",
        "### Quarantine reasons",
        "",
        "| reason | meaning |",
        "|---|---|",
        *(f"| `{reason}` | {_cell(meaning)} |" for reason, meaning in messages.QUARANTINE_REASONS.items()),
        "",
    ]
    return lines


def _table_markdown(table: Table, upstream: Sequence[str]) -> list[str]:
    facts = {
        "asset": f"`{'/'.join(table.asset_key)}`, group {table.group}, code version {table.code_version}",
        "owner": table.owner,
        "row key": ", ".join(f"`{c}`" for c in table.key),
        "partition": _GRAIN[table.grain] + (f" of `{table.time_column}`" if table.time_column else ""),
        "write mode": _VERB[table.write],
        "retention": _kept(table),
        "upstream": ", ".join(f"`{u}`" for u in upstream) or "-",
    }
    lines = [f"## {table.full_name}", "", table.description, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in facts.items()]
    lines += ["", "| column | type | null | unit | meaning | from |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{c.name}` | {c.type} | {'yes' if c.nullable else 'no'} | {_cell(c.unit)} | {_cell(c.description)} "
        f"| {_lineage(c)} |"
        for c in table.columns
    ]
    lines += ["", "| rule | condition of a valid row | if violated | rationale |", "|---|---|---|---|"]
    lines += [
        f"| `{r.name}` | `{_cell(r.sql)}` | {'commit aborted' if r.blocking else r.severity} | {_cell(r.description)} |"
        for r in table.rules
    ]
    return [*lines, ""]


def _lineage(column: Column) -> str:
    """Upstream columns grouped by table: `schema.table.{one, other}`."""
    tables: dict[str, list[str]] = {}
    for text in column.lineage:
        table, _, name = text.rpartition(".")
        tables.setdefault(table, []).append(name)
    shown = {t: names[0] if len(names) == 1 else f"{{{', '.join(names)}}}" for t, names in tables.items()}
    return ", ".join(f"`{t}.{names}`" for t, names in shown.items())


def _comment(column: Column) -> str:
    return f"{column.description} [{column.unit}]" if column.unit else column.description


def _kept(table: Table) -> str:
    return "for ever" if table.retention_days is None else f"{table.retention_days} days"


def _json_type(schema: Mapping[str, object]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{v}`" for v in schema["enum"])  # type: ignore[attr-defined]
    kind = schema["type"]
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return text + (f", `{_cell(str(schema['pattern']))}`" if "pattern" in schema else "")


def _anchor(heading: str) -> str:
    """Anchor that GitHub gives a heading."""
    return "".join(ch for ch in heading.lower().replace(" ", "-") if ch.isalnum() or ch in "-_")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def literal(text: str) -> str:
    """Text as a SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted(name: str) -> str:
    """One part of a name in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def qualified(name: str) -> str:
    """A dotted name with each part in backquotes."""
    return ".".join(quoted(part) for part in name.split("."))


def in_catalog(select: str, catalog: str) -> str:
    """A SELECT over `schema.table` names, which follow FROM or JOIN, with three-level names.

    Args:
        select: SQL.
        catalog: Name of the catalog; may be a variable that is filled in later.
    """
    names = rf"\b(FROM|JOIN) ((?:{'|'.join(sorted({t.schema for t in TABLES.values()}))})\.[a-z0-9_]+)"
    return re.sub(names, lambda m: f"{m[1]} {quoted(catalog)}.{qualified(m[2])}", select)
