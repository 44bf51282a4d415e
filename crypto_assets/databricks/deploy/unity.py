"""Unity Catalog as one ordered set of SQL files: catalog, schemas, volumes, tables, constraints, views, tags, grants.

Belongs here: which role may do what, which tool owns which kind of object, and the statements, rendered from the
contracts. Does not belong here: the bundle and Terraform (`deploy/`), opening a session.

`python -m crypto_assets.rendered_files` writes the files below `deploy/databricks/sql/`. Every statement may be run
again: what exists stays as it is, and only constraints and primary keys are dropped and re-added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crypto_assets.assets.card import steps
from crypto_assets.contracts import render
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import ALERTS, TABLES
from crypto_assets.databricks.deploy.compat import VIEW_COLUMN_COMMENTS, VIEW_COMMENTS, VIEWS
from crypto_assets.errors import ReportedError

CATALOG = "crypto_analytics"
FOLDER = "deploy/databricks/sql"

Owner = Literal["terraform", "bundle", "sql"]
Run = Callable[[str], Sequence[Any]]
"""Runs one statement and returns its rows, e.g. `lambda text: spark.sql(text).collect()`."""

SCHEMAS: Mapping[str, str] = {
    "bronze": "Records and replies as they came; the system of record.",
    "silver": "Typed, deduplicated quotes, and the records that did not become any.",
    "gold": "Bars, dimensions, boards, anomalies and forecasts.",
    "features": "Scale-free features, known at their time.",
    "ml": "Registered models, and every decision about them.",
    "ops": "What the producer saw, the pipeline's own metrics, alerts, and working files.",
    "compat": "Views under the names of the systems this replaces.",
}
"""Schemas of the catalog, in the order of the flow, with their comments."""

MODELS_SCHEMA = "ml"

WORKSPACE_PROPERTIES: Mapping[str, str] = {
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
"""Days, where the laptop keeps 6 hours: there one machine writes and no step runs longer.

In a workspace boards, streams and shares hold a version open for long, a mistake of a Friday is noticed on a Monday and
undone by RESTORE, and VACUUM refuses less than 7 days."""


@dataclass(frozen=True)
class Volume:
    """A managed volume: `/Volumes/<catalog>/<schema>/<name>`."""

    schema: str
    name: str
    description: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """`schema.name`."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Role:
    """Permissions of a group of principals.

    Args:
        name: Role; its group is `crypto-assets-<name>` unless said otherwise.
        writes: Tables by full name that it modifies; it also reads them and everything they are made from.
        reads: Further tables that it reads.
        views: Views that it reads.
        models: Privileges on the schema of models, which hold for every model in it, also for later ones.
    """

    name: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def readable(self) -> list[str]:
        """Tables that the role may read, in the order of the contracts."""
        wanted = {*self.writes, *self.reads}
        for step in steps():
            if step.role == self.name:
                wanted |= {r.asset.replace("/", ".") for r in step.reads}
        return [name for name in TABLES if name in wanted]


def _written_by(role: str) -> tuple[str, ...]:
    """Tables that the steps of a role write, in the order of the contracts."""
    found = {made.full_name for step in steps() if step.role == role for made in (*step.makes, *step.also_writes)}
    return tuple(name for name in TABLES if name in found)


_PIPELINE = ("ingest", "transform", "train", "serve")

ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role("ingest", writes=_written_by("ingest"), reads=("silver.quarantine",)),
        Role("transform", writes=_written_by("transform")),
        Role("train", writes=_written_by("train"), models=("CREATE MODEL", "EXECUTE")),
        # The baselines are put into the promotions by whichever of training and scoring comes first.
        Role("serve", writes=(*_written_by("serve"), ALERTS.full_name), reads=("gold.bars_5m",), models=("EXECUTE",)),
        Role("dashboard", views=tuple(VIEWS), reads=(
            *("silver.prices", "ml.promotions", "ops.polls", "ops.pipeline_metrics", "ops.alerts"),
            *(n for n in TABLES if n.startswith("gold.")),
        )),
    )
}  # fmt: skip
"""Permissions by role; ALL PRIVILEGES is never granted."""

VOLUMES: tuple[Volume, ...] = (
    Volume("bronze", "landing", "JSON lines by date and hour, picked up exactly once.", ("transform",), ("ingest",)),
    Volume(
        "ml",
        "artifacts",
        "Files of models, by model and version; their checksums are in the promotions.",
        ("serve",),
        ("train",),
    ),
    Volume("ops", "staging", "Files of launched steps: code, inputs, events; wheels and messages.", (), _PIPELINE),
    Volume("ops", "checkpoints", "Progress of streams; the tables are the truth, whatever it says.", (), _PIPELINE[:2]),
)


@dataclass(frozen=True)
class SqlFile:
    """One file of the set: what it is for, who owns its objects in the recommended set-up, its statements."""

    name: str
    title: str
    owner: Owner
    statements: tuple[str, ...]

    def text(self) -> str:
        """The file as text, one statement after the other, each ended by a semicolon."""
        owners = {
            "terraform": "Owned by deploy/terraform: run this file only where Terraform is not used.",
            "bundle": "Owned by deploy/databricks.yml: run this file only where the bundle is not used.",
            "sql": "Owned by this file; the bundle's job `setup` runs the same statements.",
        }
        head = [
            f"-- {self.title}",
            f"-- {owners[self.owner]}",
            "-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.",
        ]
        return "\n".join(head) + "\n\n" + ";\n\n".join(self.statements) + ";\n"


def group_of(role: str) -> str:
    """Default group of a role."""
    return f"crypto-assets-{role}"


def table_properties(table: Table) -> dict[str, str]:
    """Properties of a table in a workspace: those of every store, and retention in days."""
    return {**render.table_properties(table), **WORKSPACE_PROPERTIES}


def create_table(table: Table, catalog: str = CATALOG) -> str:
    """`CREATE TABLE IF NOT EXISTS` of a managed table by its three-level name."""
    return render.create_table(table, f"{catalog}.{table.full_name}", properties=table_properties(table))


def primary_key(table: Table, catalog: str = CATALOG) -> list[str]:
    """Drop and add the primary key; it informs people and the optimizer, nothing enforces it (`unique` is checked)."""
    target = render.qualified(f"{catalog}.{table.full_name}")
    key = ", ".join(render.quoted(c) for c in table.key)
    return [
        f"ALTER TABLE {target} DROP PRIMARY KEY IF EXISTS",
        f"ALTER TABLE {target} ADD CONSTRAINT {render.quoted(f'{table.name}_pk')} PRIMARY KEY ({key})",
    ]


def check_constraints(table: Table, catalog: str = CATALOG) -> list[str]:
    """Drop and add each blocking rule as a CHECK; Delta reads the table once per added constraint."""
    target = render.qualified(f"{catalog}.{table.full_name}")
    found = []
    for rule in (r for r in table.rules if r.blocking):
        name = render.quoted(rule.name)
        found.append(f"ALTER TABLE {target} DROP CONSTRAINT IF EXISTS {name}")
        found.append(f"ALTER TABLE {target} ADD CONSTRAINT {name} CHECK ({table.condition(rule)})")
    return found


def create_view(name: str, catalog: str = CATALOG) -> str:
    """`CREATE OR REPLACE VIEW` with comments, over three-level names.

    Args:
        name: A key of `compat.VIEWS`.
        catalog: Catalog of the view and of the tables it reads.
    """
    select = VIEWS[name].strip()
    body = render.in_catalog(select, catalog)
    comments = VIEW_COLUMN_COMMENTS.get(name, {})
    listed = ""
    if comments:
        # Aliases are lower case, the types of casts upper case.
        aliases = re.findall(r" AS ([a-z_]+)", select.split("\nFROM")[0])
        shown = [f"{render.quoted(a)} COMMENT {render.literal(comments[a])}" if a in comments else render.quoted(a)
                 for a in aliases]  # fmt: skip
        listed = f" (\n  {', '.join(shown)}\n)"
    target = render.qualified(f"{catalog}.{name}")
    return f"CREATE OR REPLACE VIEW {target}{listed}\nCOMMENT {render.literal(VIEW_COMMENTS[name])}\nAS {body}"


def readers(table: str) -> list[str]:
    """Roles that read a table without writing it."""
    return [r.name for r in ROLES.values() if table in r.readable() and table not in r.writes]


def writers(table: str) -> list[str]:
    """Roles that write a table."""
    return [r.name for r in ROLES.values() if table in r.writes]


def schemas_of(role: Role) -> list[str]:
    """Schemas that a role needs to use, in the order of the flow."""
    touched = {name.split(".")[0] for name in (*role.readable(), *role.views)}
    touched |= {v.schema for v in VOLUMES if role.name in (*v.readers, *v.writers)}
    if role.models:
        touched.add(MODELS_SCHEMA)
    return [s for s in SCHEMAS if s in touched]


def catalog_grants(catalog: str = CATALOG, groups: Mapping[str, str] | None = None) -> list[str]:
    """USE CATALOG for every role."""
    return [_grant("USE CATALOG", "CATALOG", catalog, _group(r, groups)) for r in ROLES]


def grants(catalog: str = CATALOG, groups: Mapping[str, str] | None = None) -> list[str]:
    """Every grant below the catalog: schemas, models, tables, views, volumes.

    Args:
        catalog: Catalog name.
        groups: Group or service principal by role, where it is not `crypto-assets-<role>`.
    """
    found = []
    for role in ROLES.values():
        group = _group(role.name, groups)
        found += [_grant("USE SCHEMA", "SCHEMA", f"{catalog}.{s}", group) for s in schemas_of(role)]
        if role.models:
            found.append(_grant(", ".join(role.models), "SCHEMA", f"{catalog}.{MODELS_SCHEMA}", group))
    for table in TABLES:
        name = f"{catalog}.{table}"
        found += [_grant("SELECT", "TABLE", name, _group(r, groups)) for r in readers(table)]
        found += [_grant("SELECT, MODIFY", "TABLE", name, _group(w, groups)) for w in writers(table)]
    for role in ROLES.values():
        # Views are granted as tables.
        found += [_grant("SELECT", "TABLE", f"{catalog}.{v}", _group(role.name, groups)) for v in role.views]
    for volume in VOLUMES:
        name = f"{catalog}.{volume.full_name}"
        found += [_grant("READ VOLUME", "VOLUME", name, _group(r, groups)) for r in volume.readers]
        found += [_grant("READ VOLUME, WRITE VOLUME", "VOLUME", name, _group(w, groups)) for w in volume.writers]
    return found


def sql_files(catalog: str = CATALOG, groups: Mapping[str, str] | None = None) -> list[SqlFile]:
    """The whole set in the order in which it must run; see `grants` for the arguments."""
    tables = list(TABLES.values())
    name = render.quoted(catalog)
    comment = "Live crypto prices: Bronze, Silver, Gold, features, models."
    schemas = [f"CREATE SCHEMA IF NOT EXISTS {name}.{render.quoted(s)} COMMENT {render.literal(c)}"
               for s, c in SCHEMAS.items()]  # fmt: skip
    volumes = [
        f"CREATE VOLUME IF NOT EXISTS {render.qualified(f'{catalog}.{v.full_name}')} "
        f"COMMENT {render.literal(v.description)}"
        for v in VOLUMES
    ]
    tags = [render.tags(t, f"{catalog}.{t.full_name}") for t in tables]
    catalog_sql = (
        f"CREATE CATALOG IF NOT EXISTS {name} COMMENT {render.literal(comment)}",
        *catalog_grants(catalog, groups),
    )
    checks = tuple(s for t in tables for s in check_constraints(t, catalog))
    return [
        SqlFile("01_catalog.sql", "The catalog, and who may look into it.", "terraform", catalog_sql),
        SqlFile("02_schemas.sql", "Schemas.", "bundle", tuple(schemas)),
        SqlFile("03_volumes.sql", "Volumes for landed files, staged wheels and streams.", "bundle", tuple(volumes)),
        SqlFile("04_tables.sql", "Tables.", "sql", tuple(create_table(t, catalog) for t in tables)),
        SqlFile("05_keys.sql", "Primary keys (informational: nothing enforces them).", "sql",
                tuple(s for t in tables for s in primary_key(t, catalog))),
        SqlFile("06_checks.sql", "Blocking rules as constraints; each reads its table once.", "sql", checks),
        SqlFile("07_views.sql", "Views.", "sql", tuple(create_view(v, catalog) for v in VIEWS)),
        SqlFile("08_tags.sql", "Owner, layer, partition and retention as tags.", "sql", tuple(tags)),
        SqlFile("09_grants.sql", "Who may do what below the catalog.", "sql", tuple(grants(catalog, groups))),
    ]  # fmt: skip


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {f"{FOLDER}/{f.name}": f.text for f in sql_files()}


class SetupRefused(ReportedError):
    """Tables in the catalog differ from their contracts; nothing was changed."""


def apply(
    run: Run,
    catalog: str = CATALOG,
    groups: Mapping[str, str] | None = None,
    *,
    skip: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Bring a catalog up to the contracts: everything that the SQL set owns. Catalog and schemas must exist.

    Constraints that are already there with the same text are left alone, so a second run reads no table.

    Args:
        run: Runs a statement.
        catalog: Catalog name.
        groups: See `grants`.
        skip: Files to leave out, by name.
        say: Called with a line per file.

    Returns:
        Number of statements run.

    Raises:
        SetupRefused: A table exists with other columns than its contract; every such table is named.
    """
    todo = [f for f in sql_files(catalog, groups) if f.owner == "sql" and f.name not in skip]
    _refuse_other_columns(run, catalog)
    count = 0
    for file in todo:
        statements = _changed_checks(run, catalog) if file.name == "06_checks.sql" else file.statements
        for statement in statements:
            run(statement)
        say(f"{file.name}: {len(statements)} statements")
        count += len(statements)
    return count


def _refuse_other_columns(run: Run, catalog: str) -> None:
    problems = []
    there = {schema: run(f"SHOW TABLES IN {render.quoted(catalog)}.{render.quoted(schema)}") for schema in SCHEMAS}
    for table in TABLES.values():
        if table.name not in {row[1] for row in there[table.schema]}:
            continue
        target = f"{render.quoted(catalog)}.{render.quoted(table.schema)}"
        rows = run(f"DESCRIBE TABLE {target}.{render.quoted(table.name)}")
        stored: dict[str, str] = {}
        for row in rows:
            if not row[0] or row[0].startswith("#"):
                break  # what follows repeats partition columns
            stored[row[0]] = row[1]
        wanted = {c.name: c.type for c in table.columns}
        problems += [f"{table.full_name}: no column {c}" for c in wanted if c not in stored]
        problems += [f"{table.full_name}: unknown column {c}" for c in stored if c not in wanted]
        problems += [f"{table.full_name}: {c} is {stored[c]}, the contract says {t}" for c, t in wanted.items()
                     if c in stored and stored[c] != t]  # fmt: skip
    if problems:
        raise SetupRefused(
            f"{catalog} has tables that differ from their contracts, and nothing was changed: {'; '.join(problems)}. "
            "Add a missing column with ALTER TABLE ... ADD COLUMN, or drop the table and materialize it again"
        )


def _changed_checks(run: Run, catalog: str) -> list[str]:
    found = []
    for table in TABLES.values():
        shown = run(f"SHOW TBLPROPERTIES {render.qualified(f'{catalog}.{table.full_name}')}")
        stored = {row[0]: row[1] for row in shown}
        statements = check_constraints(table, catalog)
        for i, rule in enumerate(r for r in table.rules if r.blocking):
            before = stored.get(f"delta.constraints.{rule.name}")
            drop, add = statements[2 * i : 2 * i + 2]
            if before is None:
                found.append(add)
            elif _tokens(before) != _tokens(table.condition(rule)):
                found += [drop, add]
    return found


def _tokens(sql: str) -> list[str]:
    """An expression without its white space: Delta stores it with a space between any two tokens."""
    return re.findall(r"'[^']*'|[A-Za-z0-9_.]+|[^\sA-Za-z0-9_.']", sql)


def _group(role: str, groups: Mapping[str, str] | None) -> str:
    return (groups or {}).get(role, group_of(role))


def _grant(privileges: str, kind: str, name: str, group: str) -> str:
    return f"GRANT {privileges} ON {kind} {render.qualified(name)} TO {render.quoted(group)}"
