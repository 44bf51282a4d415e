"""Rows of a ledger form hash chains, whoever writes them and in whatever order."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import ContractViolation
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import HOUR, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.storage import ledger
from crypto_assets.verify import delta
from crypto_assets.verify.audit import audit
from crypto_assets_tests.storage.rows import FIVE, PREDICTIONS, forecast, table

LAW = "predictions_chains_are_whole"
NOW = datetime(2024, 1, 2, tzinfo=UTC)


def insert(store: Any, *rows: dict[str, Any]) -> Any:
    return store.merge(PREDICTIONS, table(PREDICTIONS, rows), mode="insert_if_absent")


def lake_of(store: Any) -> Path:
    return Path(store.path(PREDICTIONS)).parents[1]


def problems(store: Any) -> tuple[str, ...]:
    """What the audit, which shares no code with the store, says of the chains."""
    found = {f.law: f for f in audit(lake_of(store), None, now=NOW).findings}[LAW]
    assert found.outcome in ("holds", "broken")
    return found.examples


def stored(store: Any) -> list[dict[str, Any]]:
    return sorted(
        store.read_arrow(PREDICTIONS).to_pylist(), key=lambda r: (r["chain_commit"] or 0, r["chain_seq"] or 0)
    )


def test_chains_follow_the_order_of_writing(store):
    insert(store, forecast(FIVE), forecast(FIVE) | {"horizon": "1h"})
    insert(store, forecast(FIVE + 2 * HOUR), forecast(FIVE + HOUR))
    insert(store, forecast(FIVE - HOUR))  # a backfill of an earlier hour comes later in its chain
    rows = stored(store)
    five = [r for r in rows if r["horizon"] == "5m"]
    assert [(r["window_end"], r["chain_seq"]) for r in five] == [
        (FIVE, 1), (FIVE + HOUR, 2), (FIVE + 2 * HOUR, 3), (FIVE - HOUR, 4)
    ]  # fmt: skip
    assert [r["chain_previous"] == ledger.FIRST for r in rows if r["chain_seq"] == 1] == [True, True]
    assert problems(store) == ()


def test_the_log_names_the_newest_commit_also_after_housekeeping(store):
    insert(store, forecast(FIVE))
    insert(store, forecast(FIVE + HOUR))
    store.maintain(PREDICTIONS, as_of=NOW, closed_before=NOW, dry_run=False)
    snapshot = delta.read_snapshot(Path(store.path(PREDICTIONS)))
    assert snapshot is not None
    assert snapshot.transactions[ledger.app_id(PREDICTIONS)] == stored(store)[-1]["chain_commit"]
    assert problems(store) == ()


@pytest.mark.engine("local")
def test_newest_rows_that_were_taken_away_are_missed_when_only_a_checkpoint_is_left(store):
    from deltalake import DeltaTable

    for i in range(3):
        insert(store, forecast(FIVE + i * HOUR))
    handle = DeltaTable(store.path(PREDICTIONS))
    handle.delete("chain_seq = 3")
    handle.create_checkpoint()
    log = Path(store.path(PREDICTIONS)) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[:-1]:
        commit.unlink()
    assert problems(store) == ("the log names another newest commit: 3 chain_commit=2",)


def test_the_data_version_does_not_depend_on_the_place_in_a_chain():
    contract = TABLES[PREDICTIONS]
    rows, nothing = table(PREDICTIONS, [forecast(FIVE)]), table(PREDICTIONS, [])
    versions = {
        rules.content_version(contract, ledger.linked(contract, rows, nothing, commit), [hour_key(FIVE)])[
            hour_key(FIVE)
        ]
        for commit in (1, 7)
    }
    assert len(versions) == 1


def test_inserting_what_is_there_writes_nothing(store):
    insert(store, forecast(FIVE))
    before = stored(store)
    assert not insert(store, forecast(FIVE, price=2.0)).committed
    assert stored(store) == before


@pytest.mark.parametrize("mode", ["upsert", "replace_all"])
def test_a_ledger_is_never_rewritten(store, mode):
    with pytest.raises(ContractViolation, match="hash chain"):
        store.merge(PREDICTIONS, table(PREDICTIONS, [forecast(FIVE)]), mode=mode)


def test_racing_writers_do_not_fork_a_chain(store, make_engine):
    stores = [make_engine(lake_of(store)).store for _ in range(2)]
    insert(store, forecast(FIVE))
    failures: list[BaseException] = []

    def write(mine: Any, first: int) -> None:
        try:
            for i in range(4):
                insert(mine, forecast(FIVE + timedelta(days=first) + i * HOUR))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=write, args=(s, n + 1)) for n, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(r["chain_seq"] for r in stored(store)) == list(range(1, 10))
    assert problems(store) == ()


@pytest.mark.engine("local")
def test_a_ledger_from_before_chains_is_read_and_goes_on(store, tmp_path):
    from deltalake import DeltaTable, write_deltalake

    insert(store, forecast(FIVE), forecast(FIVE + HOUR))
    old = store.read_arrow(PREDICTIONS).drop_columns(list(CHAIN_COLUMNS))
    path = store.path(PREDICTIONS)
    shutil.rmtree(path)
    partitioned = list(TABLES[PREDICTIONS].partition_by)
    write_deltalake(path, old, partition_by=partitioned, configuration={"delta.isolationLevel": "Serializable"})
    assert store.read_arrow(PREDICTIONS).column("chain_seq").null_count == 2
    assert {r.chain_seq for r in store.read(PREDICTIONS).collect()} == {None}
    assert problems(store) == ()

    assert insert(store, forecast(FIVE), forecast(FIVE + 2 * HOUR)).rows == 1
    assert "chain_seq" in {f.name for f in DeltaTable(path).schema().fields}
    assert [r["chain_seq"] for r in stored(store)] == [None, None, 1]
    assert problems(store) == ()
    found = {f.law: f for f in audit(lake_of(store), None, now=NOW).findings}[LAW]
    assert found.note == "2 rows are older than the chains and not judged by them"
