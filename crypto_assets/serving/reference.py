"""`docs/querying.md`: how to ask a home for data, and the query catalogue. Does not belong here: the queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crypto_assets.serving.lake import MEMORY_LIMIT, TABLE_FUNCTIONS, TIMEOUT_S
from crypto_assets.serving.queries import CATALOGUE
from crypto_assets.serving.query import Parameter, Query

PATH = "docs/querying.md"

_FUNCTIONS = ", ".join(f"`{name}`" for name in sorted(TABLE_FUNCTIONS))
_HEAD = f"""# Querying

Rendered from `crypto_assets/serving/queries.py` by `python -m crypto_assets.rendered_files`; do not edit by hand.

```console
$ crypto-assets prices --home .crypto_assets/demo-replay
$ crypto-assets query --home .crypto_assets/demo-replay "SELECT coin_id, max(high) FROM gold.bars_5m GROUP BY coin_id"
$ crypto-assets query --home .crypto_assets/demo-replay --name price_line --set coin=bitcoin --set hours=6 --format csv
$ crypto-assets query --home .crypto_assets/demo-replay --tables
```

- `query` reads the tables of the home with DuckDB, at the versions of the moment that it starts; nothing is written or
  locked. A table is named `gold.bars_5m` or `bars_5m`; its columns are in the [data dictionary](data-dictionary.md).
- It runs one SELECT (also DESCRIBE and SUMMARIZE), from tables of the lake and {_FUNCTIONS}:
  no file, no network, no setting. It is stopped after {TIMEOUT_S:g} s (`--timeout`) or at {MEMORY_LIMIT} of memory.
- A table that has not been written yet is empty, and is named on standard error.
- Times are UTC. In CSV and JSON they are written as `2026-11-29T12:00:00Z`, and money with exactly its digits.
- In a home of a recording or the simulator the present is the newest event: "24 h" end there, and ages count from it.
- A table is a folder of Delta Lake, `<home>/lake/<schema>/<table>`, which other tools can read as well; see the
  [README](../README.md#prices-and-queries) for DuckDB and Polars in a notebook.

## The catalogue

The same queries serve commands, API, page and SQL dashboards. They run unchanged on DuckDB and Spark SQL; where a value
is null, another column says why. `:name` marks a parameter: `--set name=value` gives it.
"""  # noqa: S608


def querying() -> str:
    """Text of `docs/querying.md`."""
    lines = [_HEAD, "| query | answers |", "|---|---|"]
    lines += [f"| [{q.name}](#{q.name}) | {q.purpose} |" for q in CATALOGUE.values()]
    for query in CATALOGUE.values():
        lines += ["", *_section(query)]
    return "\n".join(lines) + "\n"


def files() -> Mapping[str, Callable[[], str]]:
    """Rendered files by path within a checkout, with their render functions."""
    return {PATH: querying}


def _section(query: Query) -> list[str]:
    lines = [f"### {query.name}", "", query.purpose, "", f"Reads {', '.join(f'`{t}`' for t in query.tables)}.", ""]
    if query.parameters:
        lines += ["| parameter | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {p.name} | {p.type} | {_default(p)} | {p.description} |" for p in query.parameters]
        lines.append("")
    lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
    lines += [f"| {c.name} | {c.type} | {c.unit} | {_cell(c.description)} |" for c in query.columns]
    lines += ["", "```sql", query.sql.strip(), "```"]
    return lines


def _default(parameter: Parameter) -> str:
    return "null" if parameter.default is None else f"{parameter.default}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
