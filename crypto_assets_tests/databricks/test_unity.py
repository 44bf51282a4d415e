"""The SQL set: complete both ways, ordered, parsed, and least privilege."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from crypto_assets.contracts import render
from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.deploy import unity
from crypto_assets.databricks.deploy.compat import VIEWS
from crypto_assets.settings import Settings
from crypto_assets.storage import delta_rs

ROOT = Path(__file__).resolve().parents[2]
FILES = {f.name: f for f in unity.sql_files()}
NAME = r"`[\w-]+`"
GRANT = re.compile(rf"GRANT ([A-Z ,]+) ON (CATALOG|SCHEMA|TABLE|VOLUME) ({NAME}(?:\.{NAME})*) TO ({NAME})")
ALLOWED = {
    "CATALOG": {"USE CATALOG"},
    "SCHEMA": {"USE SCHEMA", "CREATE MODEL", "EXECUTE"},
    "TABLE": {"SELECT", "MODIFY"},
    "VOLUME": {"READ VOLUME", "WRITE VOLUME"},
}


def granted() -> list[tuple[str, str, str, str]]:
    """Every grant as (role, privilege, kind, name below the catalog)."""
    found = []
    for statement in (*unity.catalog_grants(), *unity.grants()):
        match = GRANT.fullmatch(statement)
        assert match, statement
        privileges, kind, name, group = match.groups()
        role = group.strip("`").removeprefix("crypto-assets-")
        short = name.replace("`", "").removeprefix(unity.CATALOG).removeprefix(".")
        found += [(role, p, kind, short) for p in privileges.split(", ")]
    return found


def test_every_name_in_a_grant_exists_and_nobody_gets_everything() -> None:
    names = {
        "CATALOG": {""},
        "SCHEMA": set(unity.SCHEMAS),
        "TABLE": {*TABLES, *VIEWS},
        "VOLUME": {v.full_name for v in unity.VOLUMES},
    }
    for role, privilege, kind, name in granted():
        assert role in unity.ROLES
        assert privilege in ALLOWED[kind], (role, privilege, kind)
        assert name in names[kind]
    doubled = [g for g, n in Counter(granted()).items() if n > 1]
    assert doubled == []


def test_every_table_has_a_writer_and_a_reader_that_does_not_write() -> None:
    grants = set(granted())
    for name in TABLES:
        can_write = {r for r, p, k, n in grants if (p, k, n) == ("MODIFY", "TABLE", name)}
        can_read = {r for r, p, k, n in grants if (p, k, n) == ("SELECT", "TABLE", name)}
        assert can_write, f"nobody writes {name}"
        assert can_read - can_write, f"nobody but its writers reads {name}"


def test_whoever_may_read_a_thing_may_also_reach_it() -> None:
    grants = set(granted())
    for role, _, kind, name in grants:
        if kind in ("TABLE", "VOLUME"):
            assert (role, "USE SCHEMA", "SCHEMA", name.split(".")[0]) in grants
        assert (role, "USE CATALOG", "CATALOG", "") in grants


def test_the_dashboard_changes_nothing_and_sees_no_raw_record() -> None:
    mine = {(p, n) for r, p, _, n in granted() if r == "dashboard"}
    assert {p for p, _ in mine} == {"USE CATALOG", "USE SCHEMA", "SELECT"}
    assert not any(n.startswith("bronze") or n == "silver.quarantine" for _, n in mine)
    assert set(VIEWS) <= {n for _, n in mine}


def test_models_may_be_run_by_who_scores_and_made_by_who_trains() -> None:
    on_models = {(r, p) for r, p, k, n in granted() if (k, n) == ("SCHEMA", "ml") and p != "USE SCHEMA"}
    assert on_models == {("train", "CREATE MODEL"), ("train", "EXECUTE"), ("serve", "EXECUTE")}


def test_a_role_may_read_what_the_steps_of_its_tables_read() -> None:
    """Table names that occur in the module of a step must be readable by the role that writes the step's table."""
    from crypto_assets.assets.card import steps

    constants = {"RAW_PRICES": "bronze.raw_prices", "MARKET_HISTORY": "bronze.market_history",
                 "SILVER_PRICES": "silver.prices", "PROMOTIONS": "ml.promotions", "ANOMALIES": "gold.anomalies",
                 "PRICE_PREDICTIONS": "gold.price_predictions", "LATEST_PRICES": "gold.latest_prices"}  # fmt: skip
    seen = 0
    for step in steps():
        source = Path(str(__import__(step.work.__module__, fromlist=["x"]).__file__)).read_text()
        read = set(re.findall(r"\.read(?:_arrow)?\(\s*\"([a-z]+\.\w+)\"", source))
        read |= {constants[c] for c in re.findall(r"\.read(?:_arrow)?\(\s*(\w+)\.full_name", source) if c in constants}
        for table in (made.full_name for made in step.makes):
            for role in unity.writers(table):
                if table == "ml.promotions" and role == "serve":
                    continue  # it only puts the baselines there
                missing = read - set(unity.ROLES[role].readable())
                assert not missing, f"{role} writes {table}, whose step reads {missing}"
                seen += len(read)
    assert seen > 10


def test_files_run_in_the_order_of_their_names_and_each_table_is_in_each_file() -> None:
    assert list(FILES) == sorted(FILES)
    for name, per_table in (("04_tables.sql", 1), ("05_keys.sql", 2), ("08_tags.sql", 1)):
        assert len(FILES[name].statements) == per_table * len(TABLES)
        for table in TABLES:
            target = render.qualified(f"{unity.CATALOG}.{table}")
            assert sum(f"{target} " in s for s in FILES[name].statements) == per_table
    assert len(FILES["06_checks.sql"].statements) == 2 * sum(r.blocking for t in TABLES.values() for r in t.rules)
    assert {t.schema for t in TABLES.values()} | {v.split(".")[0] for v in VIEWS} == set(unity.SCHEMAS)


def test_every_statement_names_the_catalog_it_was_rendered_for() -> None:
    for file in unity.sql_files("elsewhere", {"train": "data-science"}):
        for statement in file.statements:
            assert "`elsewhere`" in statement
            assert unity.CATALOG not in statement
    text = "".join(f.text() for f in unity.sql_files(groups={"train": "data-science"}))
    assert "`data-science`" in text
    assert "crypto-assets-train" not in text
    assert Settings.model_fields["catalog"].default == unity.CATALOG


def test_primary_keys_are_on_columns_that_are_never_null() -> None:
    assert [f"{t.full_name}.{k}" for t in TABLES.values() for k in t.key if t.column(k).nullable] == []


def test_properties_are_those_of_the_laptop_but_for_retention() -> None:
    for table in TABLES.values():
        mine = unity.table_properties(table)
        laptop = delta_rs._configuration(table)
        for name in ("delta.isolationLevel", "delta.checkpointInterval", "delta.dataSkippingStatsColumns"):
            assert mine.get(name) == laptop.get(name)
        assert mine["delta.enableDeletionVectors"] == "false"
        assert "delta.setTransactionRetentionDuration" not in mine
        days = {n: int(mine[n].split()[1]) for n in unity.WORKSPACE_PROPERTIES}
        assert all(mine[n].endswith(" days") for n in days)
        assert days["delta.logRetentionDuration"] >= days["delta.deletedFileRetentionDuration"] >= 7


def test_no_table_is_external_or_clustered() -> None:
    for statement in FILES["04_tables.sql"].statements:
        assert "LOCATION" not in statement
        assert "CLUSTER BY" not in statement


@pytest.mark.parametrize("name", VIEWS)
def test_views_read_only_tables_that_exist(name: str) -> None:
    text = unity.create_view(name)
    read = re.findall(r"(?:FROM|JOIN) (`\w+`\.`\w+`\.`\w+`)", text)
    assert read
    assert {r.replace("`", "").removeprefix(f"{unity.CATALOG}.") for r in read} <= set(TABLES)
    assert len(read) == len(re.findall(r"\b(?:FROM|JOIN)\b", text))


def test_the_rendered_set_lies_in_the_checkout_and_nothing_else_does() -> None:
    assert {p.name for p in (ROOT / unity.FOLDER).iterdir() if p.is_file()} == set(FILES)
    for name, file in FILES.items():
        assert (ROOT / unity.FOLDER / name).read_text() == file.text(), "run: python -m crypto_assets.rendered_files"


class Recorder:
    """A catalog that answers what `apply` asks and notes what it is told; it executes nothing."""

    def __init__(self, stored: dict[str, list[tuple[str, str]]]) -> None:
        self.stored, self.changes = stored, list[str]()

    def __call__(self, text: str) -> list[tuple[str, ...]]:
        asked = re.match(r"(SHOW TABLES IN|DESCRIBE TABLE|SHOW TBLPROPERTIES) (\S+)", text)
        if not asked:
            self.changes.append(text)
            return []
        name = asked[2].replace("`", "").removeprefix(f"{unity.CATALOG}.")
        if asked[1] == "SHOW TABLES IN":
            return [(name, t.split(".")[1], "false") for t in self.stored if t.split(".")[0] == name]
        return list(self.stored.get(name, [])) if asked[1] == "DESCRIBE TABLE" else []


def test_a_catalog_that_differs_is_refused_with_every_difference_before_anything_changes() -> None:
    polls = [(c.name, c.type) for c in TABLES["ops.polls"].columns if c.name != "detail"]
    alerts = [(c.name, "string") for c in TABLES["ops.alerts"].columns] + [("more", "int"), ("# Partition", "")]
    catalog = Recorder({"ops.polls": polls, "ops.alerts": alerts})
    with pytest.raises(unity.SetupRefused) as refused:
        unity.apply(catalog, say=lambda _: None)
    for told in ("ops.polls: no column detail", "ops.alerts: unknown column more", "ops.alerts: at is string",
                 "ADD COLUMN"):  # fmt: skip
        assert told in str(refused.value)
    assert catalog.changes == []


def test_applying_runs_what_sql_owns_in_order_and_says_so() -> None:
    catalog, said = Recorder({}), list[str]()
    count = unity.apply(catalog, skip=("08_tags.sql",), say=said.append)
    assert count == len(catalog.changes)
    assert [s.split(":")[0] for s in said] == ["04_tables.sql", "05_keys.sql", "06_checks.sql", "07_views.sql",
                                               "09_grants.sql"]  # fmt: skip
    assert catalog.changes[0].startswith("CREATE TABLE IF NOT EXISTS")
    assert catalog.changes[-1].startswith("GRANT ")
    assert not any("CATALOG" in c or c.startswith("CREATE SCHEMA") for c in catalog.changes)
