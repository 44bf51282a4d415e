"""Audit of log and lake by separate code, law by law.

Belongs here: what is read, in which order, and how a law is judged. The laws are in `laws` (listed in `coverage`), the
readers in `delta` (Delta), `topic` (Kafka), `folder` (files, with their law) and `secret_search`. Does not belong here:
anything of `storage`, `transforms`, `steps`, `landing` or `kafka`; only contracts and the coin registry are shared with
what is audited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.tables import TABLES
from crypto_assets.errors import reason
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.verify import coverage, delta, secret_search
from crypto_assets.verify import folder as folder_reader
from crypto_assets.verify import topic as topic_reader
from crypto_assets.verify.laws import log, records
from crypto_assets.verify.laws.base import LOG_TABLES, Evidence, Law
from crypto_assets.verify.report import Finding, Outcome, Report

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 10
_APP_ID = re.compile(r"^[^/]+/(?P<topic_id>[^/]+)/(?P<y>\d{4})-?(?P<m>\d{2})-?(?P<d>\d{2})[-T ](?P<h>\d{2})")
_CONTRACT_TYPES = {
    "string": "VARCHAR", "bigint": "BIGINT", "int": "INTEGER", "double": "DOUBLE", "boolean": "BOOLEAN",
    "binary": "BLOB", "date": "DATE", "timestamp": "TIMESTAMPTZ", "decimal(38,18)": "DECIMAL(38,18)",
    "array<string>": "VARCHAR[]",
}  # fmt: skip

_SCHEMA = """
    CREATE TABLE audit_presence (table_name VARCHAR, present BOOLEAN, rows BIGINT);
    CREATE TABLE audit_adopted (topic_id VARCHAR, generation INTEGER, "partition" INTEGER, first BIGINT);
    CREATE TABLE audit_transactions
        (table_name VARCHAR, app_id VARCHAR, topic_id VARCHAR, arrival_hour TIMESTAMPTZ, version BIGINT);
    CREATE TABLE audit_coins
        (coin_id VARCHAR, symbol VARCHAR, name VARCHAR, active_from TIMESTAMPTZ, active_to TIMESTAMPTZ);
    CREATE TABLE audit_aliases (old_id VARCHAR, until TIMESTAMPTZ, coin_id VARCHAR, old_symbol VARCHAR);
    CREATE TABLE audit_stale (table_name VARCHAR, stale BOOLEAN, written_at TIMESTAMPTZ);
    CREATE TABLE audit_ledgers (table_name VARCHAR, version BIGINT);
"""
"""What the laws refer to beside the tables."""


@dataclass
class _Audit:
    lake: Path
    connection: duckdb.DuckDBPyConnection
    report: Report
    home: Path | None = None
    stored: dict[str, delta.Snapshot] = field(default_factory=dict)

    def absence(self, tables: Sequence[str]) -> str:
        """Reason why a law on unread tables is not judged."""
        unread = [t for t in tables if t in self.report.unread]
        return f"a catalog keeps the commits of {', '.join(unread)}" if unread else f"no table {', '.join(tables)}"

    def add(self, name: str, statement: str, checked: int, problems: Sequence[str], note: str = "") -> None:
        """Add the outcome of a check that is no law on tables: holds without problems."""
        outcome: Outcome = "broken" if problems else "holds"
        examples = tuple(problems[:EXAMPLES])
        self.report.findings.append(Finding(name, statement, outcome, checked, len(problems), examples, note))

    def add_law(
        self, law: Law, outcome: Outcome, checked: int, violations: int, examples: Sequence[str], note: str
    ) -> None:
        """Add the outcome of a law on tables."""
        self.report.findings.append(
            Finding(
                law.name, law.statement, outcome, checked, violations, tuple(examples), note,
                tables=tuple(law.covers), recomputed=law.recomputed,
            )
        )  # fmt: skip


def audit(
    lake: str | Path,
    kafka: Callable[[], Mapping[str, Any]] | None,
    *,
    now: datetime,
    topics: Mapping[str, str] | None = None,
    folders: Mapping[str, Path] | None = None,
    home: Path | None = None,
    secrets: Mapping[str, str] | None = None,
    coins: Sequence[Mapping[str, Any]] | None = None,
) -> Report:
    """Audit a lake against its log and against itself; writes nothing.

    Args:
        lake: Root of the tables, a local folder.
        kafka: Returns consumer options; None leaves the topics unread (their laws are then `skipped`).
        now: Time of the audit (UTC), for retention.
        topics: Topic by append-once table.
        folders: Folder of landed files by append-once table; they are then read in place of the topics.
        home: Folder to search for secrets; None skips the search.
        secrets: Secret values by name.
        coins: Registry records (coin_id, aliases with old_id and until), so that a quote under a former id is found
            under its coin; None reads the home's registry, if there is a home.

    Returns:
        The report. A table that cannot be read is a broken law, not an exception.

    Raises:
        ValueError: The lake is not a local folder.
    """
    if "://" in str(lake):
        raise ValueError(f"the audit reads local lakes; {lake} is not one. Run it where the files are")
    run = _Audit(Path(lake), delta.fresh_connection(), Report(), home)
    try:
        run.connection.execute(_SCHEMA)
        _load_tables(run)
        _load_adopted(run, home)
        _load_context(run, now, coins if coins is not None else _registry(home))
        for table, short in LOG_TABLES.items():
            if folders is not None:
                _judge_folder(run, table, short, folders.get(table))
            else:
                _judge_topic(run, table, short, kafka, (topics or {}).get(table))
        if "bronze.raw_prices" in run.stored:
            records.load_records(run.connection)
        of_topics = {log.topic_law(table).name for table in LOG_TABLES}
        _judge_all(run, [law for law in coverage.all_laws() if law.name not in of_topics])
        _judge_secrets(run, home, secrets or {})
    finally:
        run.connection.close()
    return run.report


def _load_tables(run: _Audit) -> None:
    """Read every table's log and create its view; absent tables of the contracts become empty views."""
    problems: list[str] = []
    found = dict(delta.tables_of(run.lake))
    for name, folder in found.items():
        try:
            snapshot = delta.read_snapshot(folder)
            if snapshot is None:
                continue
            known = TABLES[name].columns if name in TABLES else ()
            # Columns gained after the table was created are unknown in every row.
            later = {c.name: _CONTRACT_TYPES[c.type] for c in known if c.nullable and c.name not in snapshot.columns}
            delta.create_view(run.connection, name, folder, snapshot, later)
            count = run.connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608
        except delta.CatalogManagedError as error:
            run.report.unread[name] = f"{name} at {error}"
            continue
        except (delta.UnreadableLogError, OSError, _duckdb_error()) as error:
            problems.append(f"{name}: {reason(error).splitlines()[0]}")
            continue
        run.stored[name] = snapshot
        run.report.counted[name] = count[0] if count else 0
        missing = (path for path in snapshot.files if not (folder / path).is_file())
        problems += [f"{name}: the log lists {path}, which is not there" for path in missing]
        contract = TABLES.get(name)
        columns = {*snapshot.columns, *later}
        absent = [c for c in contract.column_names if c not in columns] if contract else []
        if absent:
            problems.append(f"{name}: column(s) {absent} of the contract are not in the table")
            del run.stored[name]
    for name, contract in TABLES.items():
        if name not in run.stored:
            types = ", ".join(f'NULL::{_CONTRACT_TYPES[c.type]} AS "{c.name}"' for c in contract.columns)
            run.connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT {types} WHERE false')
    for name in (t for t in TABLES if t not in run.report.unread):
        row = [name, name in run.stored, run.report.counted.get(name, 0)]
        run.connection.execute("INSERT INTO audit_presence VALUES (?, ?, ?)", row)
    run.add(
        "tables_are_readable",
        "every table's log is whole, and every file that it lists is there",
        len(found) - len(run.report.unread),
        problems,
    )
    if run.report.unread:
        statement = "no catalog keeps the newest commits of a table"
        note = "; ".join(run.report.unread.values())
        run.report.findings.append(Finding("tables_are_in_the_lake", statement, "skipped", note=note))


def _load_context(run: _Audit, now: datetime, coins: Sequence[Mapping[str, Any]]) -> None:
    """Fill small tables that the laws refer to: transactions, coins, aliases, retention."""
    connection = run.connection
    for table in LOG_TABLES:
        for app_id, version in (run.stored[table].transactions if table in run.stored else {}).items():
            match = _APP_ID.match(app_id)
            hour = datetime(*(int(match[g]) for g in "ymdh"), tzinfo=UTC) if match else None  # type: ignore[misc]
            topic_id = match["topic_id"] if match else None
            connection.execute(
                "INSERT INTO audit_transactions VALUES (?, ?, ?, ?, ?)", [table, app_id, topic_id, hour, version]
            )
    for coin in coins:
        row = [coin["coin_id"], *(coin.get(n) for n in ("symbol", "name", "active_from", "active_to"))]
        connection.execute("INSERT INTO audit_coins VALUES (?, ?, ?, ?::TIMESTAMPTZ, ?::TIMESTAMPTZ)", row)
        for alias in coin.get("aliases") or ():
            row = [alias["old_id"], str(alias["until"]), coin["coin_id"], alias.get("old_symbol")]
            connection.execute("INSERT INTO audit_aliases VALUES (?, ?::TIMESTAMPTZ, ?, ?)", row)
    kept = {
        name: now - timedelta(days=TABLES[name].retention_days or 0) for name in ("bronze.raw_prices", "silver.prices")
    }
    connection.execute(
        "CREATE TABLE audit_clock AS SELECT ?::TIMESTAMPTZ AS asked_at, ?::TIMESTAMPTZ AS bronze_from, "
        f"?::TIMESTAMPTZ AS silver_from, ({log.COVERED_UNTIL}) AS covered_until, ?::DATE AS partitions_start",
        [now, kept["bronze.raw_prices"], kept["silver.prices"], _bound_to(run.home).get("partitions_start")],
    )


def _load_adopted(run: _Audit, home: Path | None) -> None:
    """Load the first offsets of adopted log incarnations from the home's records."""
    kept = home / "state" / "adopted.json" if home is not None else None
    found = json.loads(kept.read_text(encoding="utf-8")) if kept is not None and kept.exists() else {}
    for topic_id, entries in found.items():
        for generation, entry in enumerate(entries, start=2):
            for partition, first in entry["starts"].items():
                row = [topic_id, generation, int(partition), first]
                run.connection.execute("INSERT INTO audit_adopted VALUES (?, ?, ?, ?)", row)


def _judge_all(run: _Audit, judged: Iterable[Law]) -> None:
    evidence = Evidence(run.connection, run.lake, run.home, run.stored)
    for law in judged:
        named = {*law.tables, *law.covers}
        unread = [t for t in run.report.unread if t in named or f'"{t}"' in law.checked + law.broken]
        absent = [t for t in law.tables if t not in run.stored]
        if unread or absent:
            run.add_law(law, "skipped", 0, 0, (), run.absence(unread or absent))
            continue
        try:
            note = (law.prepare(evidence) if law.prepare else None) or ""
            checked = run.connection.execute(law.checked).fetchone()
            run.connection.execute(f"CREATE OR REPLACE TEMP TABLE audit_broken AS {law.broken}")
        except (OSError, ValueError, _duckdb_error()) as error:
            run.add_law(law, "broken", 0, 1, [f"cannot be judged: {reason(error).splitlines()[0]}"], "")
            continue
        total = run.connection.execute("SELECT count(*) FROM audit_broken").fetchone()
        shown = run.connection.execute(f"SELECT * FROM audit_broken ORDER BY ALL LIMIT {EXAMPLES}")  # noqa: S608
        names = [d[0] for d in shown.description or ()]
        examples = [_example(names, row) for row in shown.fetchall()]
        violations = total[0] if total else 0
        run.add_law(law, "broken" if violations else "holds", checked[0] if checked else 0, violations, examples, note)


def _judge_topic(
    run: _Audit, table: str, short: str, kafka: Callable[[], Mapping[str, Any]] | None, topic: str | None
) -> None:
    law = log.topic_law(table)
    why = "no broker was given" if kafka is None else "no topic was given" if topic is None else ""
    if kafka is None or topic is None or table not in run.stored:
        run.add_law(law, "skipped", 0, 0, (), why or run.absence([table]))
        return
    try:
        run.report.counted[topic] = topic_reader.load_topic(run.connection, short, kafka(), topic)
    except topic_reader.UnreadableTopicError as error:
        run.add_law(law, "broken", 0, 1, [str(error)], "")
        return
    _judge_all(run, [law])
    waiting, oldest = run.connection.execute(log.pending_query(table)).fetchone() or (0, None)
    found = run.report.findings[-1]
    if waiting:
        note = f"{waiting:,} record(s) are not stored yet, the oldest of {oldest:%Y-%m-%d %H:%M:%S} UTC"
        outcome: Outcome = "pending" if found.outcome == "holds" else found.outcome
        run.report.findings[-1] = replace(found, note=note, outcome=outcome)


def _judge_folder(run: _Audit, table: str, short: str, folder: Path | None) -> None:
    law = folder_reader.folder_law(table)
    if folder is None or table not in run.stored:
        why = "no folder was given" if folder is None else run.absence([table])
        run.add_law(law, "skipped", 0, 0, (), why)
        return
    try:
        run.report.counted[str(folder)], unfinished = folder_reader.load_folder(run.connection, short, folder)
    except folder_reader.UnreadableFolderError as error:
        run.add_law(law, "broken", 0, 1, [str(error)], "")
        return
    _judge_all(run, [law])
    if unfinished:
        note = (
            f"{len(unfinished)} file(s) not judged, their last line has no newline: {', '.join(unfinished[:EXAMPLES])}"
        )
        run.report.findings[-1] = replace(run.report.findings[-1], note=note)


def _judge_secrets(run: _Audit, home: Path | None, secrets: Mapping[str, str]) -> None:
    name, statement = "no_secret_is_stored", "no secret value is in logs, event log, state or table metadata"
    if home is None:
        run.report.findings.append(Finding(name, statement, "skipped", note="no home was given"))
        return
    read, found = secret_search.search(home, secrets)
    if not run.lake.is_relative_to(home):
        more, also = secret_search.search(run.lake, secrets)
        read, found = read + more, found + also
    texts = ((f"table properties of {n}", str(s.configuration)) for n, s in run.stored.items())
    found += secret_search.in_texts(texts, secrets)
    note = "" if secrets else "no secret is set, so there is none to look for"
    run.add(name, statement, read, [f"{hit['secret']} in {hit['where']}" for hit in found], note)


def _bound_to(home: Path | None) -> Mapping[str, Any]:
    """Binding of a home from its first use; empty without a home."""
    if home is None or not (home / "home.json").exists():
        return {}
    return json.loads((home / "home.json").read_text(encoding="utf-8"))


def _registry(home: Path | None) -> Sequence[Mapping[str, Any]]:
    """Registry records of a home: its `coins.toml`, else the default basket of its mode."""
    if home is None:
        return ()
    if (home / "coins.toml").exists():
        return CoinRegistry.from_toml((home / "coins.toml").read_text(encoding="utf-8")).to_records()
    source = _bound_to(home).get("source")
    return default_registry(source).to_records() if source else ()


def _example(names: Sequence[str], row: Sequence[object]) -> str:
    def text(value: object) -> str:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)  # type: ignore[attr-defined]

    pairs = [(n, v) for n, v in zip(names, row, strict=True) if v is not None and v != ""]
    return " ".join(text(v) if n == "problem" else f"{n}={text(v).strip()}" for n, v in pairs)


def _duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error
