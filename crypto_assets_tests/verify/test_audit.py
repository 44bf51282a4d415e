"""The audit passes an honest lake, and names the right law for every way of breaking it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from crypto_assets.verify.audit import Report, audit
from crypto_assets_tests.verify import honest_lake as honest
from crypto_assets_tests.verify.honest_lake import HonestLake

pytestmark = pytest.mark.kafka
SECRET = 'CG-s3cr"et/k3y'


@pytest.fixture(scope="module")
def pristine(kafka_broker, tmp_path_factory) -> HonestLake:
    from confluent_kafka.admin import AdminClient, NewTopic

    root = tmp_path_factory.mktemp("honest")
    names = [f"audit-prices-{root.name}", f"audit-polls-{root.name}"]
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    admin = AdminClient(kafka_broker.config)
    for future in admin.create_topics([NewTopic(n, 3, 1, config=config) for n in names]).values():
        future.result(30)
    return honest.build(root / "lake", *names, kafka_broker.config)


@pytest.fixture
def home(pristine, tmp_path) -> Path:
    """A home with a copy of the lake, to be broken."""
    shutil.copytree(pristine.lake, tmp_path / "home" / "lake")
    return tmp_path / "home"


def verify(pristine: HonestLake, home: Path, **changed) -> Report:
    arguments = {
        "lake": home / "lake",
        "kafka": lambda: pristine.config,
        "topics": {"bronze.raw_prices": pristine.topic, "ops.polls": pristine.polls_topic},
        "home": home,
        "secrets": {"COINGECKO_API_KEY": SECRET},
        "now": honest.NOW,
    }
    return audit(**(arguments | changed))


def broken(report: Report) -> set[str]:
    return {f.law for f in report.broken}


def table(home: Path, name: str):
    from deltalake import DeltaTable

    return DeltaTable(str(home / "lake" / name.replace(".", "/")))


def rows(home: Path, name: str, where: str = "true") -> pa.Table:
    from deltalake import QueryBuilder

    return pa.table(
        QueryBuilder().register("t", table(home, name)).execute(f"SELECT * FROM t WHERE {where}").read_all()
    )


def marked():
    """The mark of our writers, so that a breach is found by what it changes and not by who wrote it."""
    from deltalake import CommitProperties

    return CommitProperties(custom_metadata={"engine": "sail+delta-rs"})


def append(home: Path, name: str, extra: pa.Table) -> None:
    from deltalake import write_deltalake

    write_deltalake(table(home, name), extra, mode="append", commit_properties=marked())


def test_an_honest_lake_keeps_every_law(pristine, home):
    report = verify(pristine, home)
    assert broken(report) == set(), report.rows()
    assert report.ok
    held = [f for f in report.findings if f.outcome == "holds"]
    skipped = {f.note.removeprefix("no table ").split(".")[0] for f in report.findings if f.outcome == "skipped"}
    assert skipped <= {"features", "gold", "ml", "ops"}, "tables that this lake has are judged"
    sent = len(honest.messages())
    assert report.counted["bronze.raw_prices"] == report.counted[pristine.topic] == sent
    checked = {f.law: f.checked for f in held}
    assert checked["bronze_is_valid_plus_quarantined"] == sent
    assert checked["quarantine_is_deserved"] == sum(bool(m.reasons) for m in honest.messages())
    assert all(count > 0 for count in checked.values()), checked


def delete(name: str, where: str) -> Callable[[Path], None]:
    def breaker(home: Path) -> None:
        assert rows(home, name, where).num_rows
        table(home, name).delete(where, commit_properties=marked())

    return breaker


def update(name: str, where: str, **changes: str) -> Callable[[Path], None]:
    def breaker(home: Path) -> None:
        assert rows(home, name, where).num_rows
        table(home, name).update(updates=changes, predicate=where, commit_properties=marked())

    return breaker


def double(name: str, where: str) -> Callable[[Path], None]:
    def breaker(home: Path) -> None:
        append(home, name, rows(home, name, where).slice(0, 1))

    return breaker


def quarantined_quote_in_silver(home: Path) -> None:
    bad = rows(home, "silver.quarantine", "reasons[1] = 'unknown_coin'").to_pylist()[0]
    good = rows(home, "silver.prices", "granularity = 'tick'").to_pylist()[0]
    forged = good | {"partition": bad["partition"], "offset": bad["offset"], "coin_id": "dogecoin"}
    append(home, "silver.prices", honest.arrow("silver.prices", [forged]))


def valid_record_quarantined(home: Path) -> None:
    """A good quote is accused and taken out of Silver: the balance still holds, the accusation does not."""
    row = rows(home, "silver.prices", "coin_id = 'ethereum'").to_pylist()[0]
    where = f'"partition" = {row["partition"]} AND "offset" = {row["offset"]}'
    record = rows(home, "bronze.raw_prices", where).to_pylist()[0]
    accused = {
        "reasons": ["bad_number"],
        "detail": "",
        "day": record["arrival_hour"].date(),
        "hour": record["arrival_hour"],
    }
    append(home, "silver.quarantine", honest.arrow("silver.quarantine", [record | accused]))
    table(home, "silver.prices").delete(where, commit_properties=marked())


def history_beside_live(home: Path) -> None:
    at = honest.START + timedelta(seconds=8)
    row = honest.history_row() | {"last_updated_at": at, "hour": honest.START, "price_usd": Decimal("61000.25")}
    append(home, "silver.prices", honest.arrow("silver.prices", [row]))


def vanished_file(home: Path) -> None:
    path = next((home / "lake" / "gold" / "bars_1h").glob("day=*/*.parquet"))
    path.unlink()


def other_transaction(home: Path) -> None:
    from deltalake import CommitProperties, Transaction

    name = "bronze.raw_prices"
    app_id = next(iter(_transactions(home / "lake" / "bronze" / "raw_prices")))
    properties = CommitProperties(app_transactions=[Transaction(app_id, 9)], custom_metadata={"engine": "x"})
    table(home, name).delete("kind = 'nothing'", commit_properties=properties)
    # A delete of nothing makes no commit, so that the transaction is written beside a real one.
    if _transactions(home / "lake" / "bronze" / "raw_prices")[app_id] != 9:
        from deltalake import write_deltalake

        write_deltalake(table(home, name), rows(home, name).slice(0, 0), mode="append", commit_properties=properties)


def _transactions(folder: Path) -> dict[str, int]:
    from crypto_assets.verify.delta import read_snapshot

    snapshot = read_snapshot(folder)
    assert snapshot is not None
    return snapshot.transactions


def exchanged_file(home: Path) -> None:
    """A file is overwritten in place by another version of itself, without the log."""
    import pyarrow.parquet as pq

    folder = home / "lake" / "gold" / "bars_1h"
    file = next(folder.rglob("*.parquet"))
    held = pq.read_table(file)
    pq.write_table(held.slice(0, held.num_rows - 1), file)


def deleted_by_another_program(home: Path) -> None:
    table(home, "bronze.market_history").delete("coin_id = 'bitcoin'")


def known_coin_accused(home: Path) -> None:
    """A record of a coin that the registry had then is in quarantine as of an unknown one."""
    (home / "home.json").write_text('{"source": "replay", "partitions_start": "2018-01-01"}')
    valid_record_quarantined(home)
    table(home, "silver.quarantine").update(
        new_values={"reasons": ["unknown_coin"]}, predicate="detail = ''", commit_properties=marked()
    )


WAYS = {
    "a Bronze row deleted": (delete("bronze.raw_prices", '"partition" = 0 AND "offset" = 4'), "bronze_holds_the_topic"),
    "a Bronze value altered": (
        update(
            "bronze.raw_prices", '"partition" = 1 AND "offset" = 3', headers="'{}'", raw_json='\'{"coin_id": "x"}\''
        ),
        "bronze_holds_the_topic",
    ),
    "an offset doubled": (double("bronze.raw_prices", '"partition" = 0'), "bronze_offsets_once"),
    "a hole between ranges": (
        delete("bronze.raw_prices", "arrival_hour = '2024-03-01T11:00:00Z' AND seq = 1"),
        "bronze_ranges_contiguous",
    ),
    "a commit's range widened": (
        update("bronze.raw_prices", '"partition" = 0 AND seq = 1', range_end="range_end + 1"),
        "bronze_ranges_contiguous",
    ),
    "a poll lost": (delete("ops.polls", '"offset" = 2'), "polls_holds_the_topic"),
    "a transaction that disagrees": (other_transaction, "bronze_transactions_agree"),
    "an hour's last commit lost": (
        delete("bronze.raw_prices", "arrival_hour = '2024-03-01T12:00:00Z' AND seq = 2"),
        "bronze_transactions_agree",
    ),
    "a Silver row missing": (
        delete("silver.prices", "coin_id = 'bitcoin' AND hour = '2024-03-01T11:00:00Z'"),
        "silver_is_the_distinct_quotes",
    ),
    "a Silver row missing, by the balance": (
        delete("silver.prices", "coin_id = 'bitcoin' AND hour = '2024-03-01T11:00:00Z'"),
        "bronze_is_valid_plus_quarantined",
    ),
    "a Silver price altered": (
        update("silver.prices", "coin_id = 'bitcoin' AND \"offset\" = 3", price_usd="price_usd + 0.000000000000000001"),
        "silver_is_the_distinct_quotes",
    ),
    "a Silver row doubled": (double("silver.prices", "granularity = 'tick'"), "silver_is_the_distinct_quotes"),
    "a history row doubled": (double("silver.prices", "granularity = '1h'"), "silver_is_the_distinct_quotes"),
    "a Silver row of nowhere": (quarantined_quote_in_silver, "silver_is_the_distinct_quotes"),
    "a quarantined quote in Silver": (quarantined_quote_in_silver, "bronze_is_valid_plus_quarantined"),
    "a quarantine row removed": (
        delete("silver.quarantine", "reasons[1] = 'not_json'"),
        "bronze_is_valid_plus_quarantined",
    ),
    "a good record quarantined": (valid_record_quarantined, "quarantine_is_deserved"),
    "history from nowhere": (
        update("silver.prices", "coin_id = 'bitcoin' AND \"offset\" = 3", granularity="'5m'"),
        "silver_history_is_grounded",
    ),
    "a history price altered": (
        update("silver.prices", "granularity = '1h'", price_usd="price_usd * 1.000001"),
        "silver_history_is_grounded",
    ),
    "history beside a live sample": (history_beside_live, "silver_history_is_grounded"),
    "a history row missing": (delete("silver.prices", "granularity = '1h'"), "history_is_of_its_days"),
    "a reply of another day": (
        update("bronze.market_history", "coin_id = 'bitcoin'", day_start="day_start + INTERVAL '1 day'"),
        "history_is_of_its_days",
    ),
    "a reply with another count": (
        update("bronze.market_history", "coin_id = 'bitcoin'", points="points + 1"),
        "history_is_of_its_days",
    ),
    "a reply of another spacing": (
        update("bronze.market_history", "coin_id = 'bitcoin'", granularity="'5m'"),
        "history_is_of_its_days",
    ),
    "a reply of another source": (
        update("bronze.market_history", "coin_id = 'bitcoin'", source="'coingecko'"),
        "history_is_of_its_days",
    ),
    "a reply doubled": (double("bronze.market_history", "coin_id = 'bitcoin'"), "history_is_of_its_days"),
    "a reply fetched at another time": (
        update("bronze.market_history", "coin_id = 'bitcoin'", fetched_at="fetched_at + INTERVAL '1 second'"),
        "silver_history_is_grounded",
    ),
    "a bar's close altered": (
        update("gold.bars_1m", "coin_id = 'ethereum'", close="close + 0.000000000000000001"),
        "bars_1m_are_silver_recomputed",
    ),
    "a bar's mean altered": (
        update("gold.bars_5m", "coin_id = 'ethereum'", price_avg="price_avg * 1.00000001"),
        "bars_5m_are_silver_recomputed",
    ),
    "an hour's bar missing": (
        delete("gold.bars_1h", "coin_id = 'ethereum' AND hour = '2024-03-01T11:00:00Z'"),
        "bars_1h_are_silver_recomputed",
    ),
    "a day bar of too many samples": (
        update("gold.bars_1d", "coin_id = 'ethereum'", sample_count="sample_count + 1"),
        "bars_1d_are_silver_recomputed",
    ),
    "a bar called complete": (
        update("gold.bars_1h", "coin_id = 'ethereum' AND NOT is_closed", is_complete="true"),
        "bars_1h_are_silver_recomputed",
    ),
    "a bar that expected less": (
        update("gold.bars_1h", "coin_id = 'ethereum'", expected_count="expected_count - 1"),
        "bars_1h_are_silver_recomputed",
    ),
    "a bar closed before its time": (
        update("gold.bars_1h", "coin_id = 'ethereum' AND hour = '2024-03-01T12:00:00Z'", is_closed="true"),
        "bars_1h_are_silver_recomputed",
    ),
    "a data file gone": (vanished_file, "tables_are_readable"),
    "a data file exchanged": (exchanged_file, "files_are_as_the_log_lists_them"),
    "rows deleted by another program": (deleted_by_another_program, "commits_are_ours"),
    "a quarantined value altered": (
        update("silver.quarantine", "reasons[1] = 'missing_field'", raw_json="'{}'"),
        "quarantine_keeps_the_record",
    ),
    "a known coin called unknown": (known_coin_accused, "quarantine_accuses_rightly"),
    "a poll's typed column altered": (update("ops.polls", '"offset" = 2', poll_id="'q'"), "polls_are_read_rightly"),
    "a poll's typed column emptied": (update("ops.polls", '"offset" = 2', poll_id="NULL"), "polls_are_read_rightly"),
    "a poll's typed column invented": (
        update("ops.polls", '"offset" = 2', cadence_s="60.0"),
        "polls_are_read_rightly",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_broken_lake_is_caught_by_the_right_law(pristine, home, way):
    breaker, law = WAYS[way]
    breaker(home)
    report = verify(pristine, home)
    assert law in broken(report), report.rows()
    finding = next(f for f in report.findings if f.law == law)
    assert finding.violations >= 1
    assert 1 <= len(finding.examples) <= 10
    assert not report.ok


def test_one_breach_does_not_turn_unrelated_laws_red(pristine, home):
    WAYS["a bar's close altered"][0](home)
    assert broken(verify(pristine, home)) == {"bars_1m_are_silver_recomputed"}


def test_the_audit_survives_checkpoints_and_compaction(pristine, home):
    for name in ("bronze.raw_prices", "silver.prices", "gold.bars_1m"):
        table(home, name).optimize.compact()
        table(home, name).create_checkpoint()
        log = home / "lake" / name.replace(".", "/") / "_delta_log"
        newest = max(log.glob("*.json"))
        for commit in log.glob("*.json"):
            if commit != newest:
                commit.unlink()
    report = verify(pristine, home)
    assert broken(report) == set(), report.rows()
    assert report.counted["bronze.raw_prices"] == len(honest.messages())


@pytest.mark.parametrize("damage", ["cut", "empty", "hint"])
def test_a_damaged_checkpoint_or_hint_counts_as_absent(pristine, home, damage):
    table(home, "gold.bars_1m").create_checkpoint()
    log = home / "lake" / "gold" / "bars_1m" / "_delta_log"
    file = log / "_last_checkpoint" if damage == "hint" else next(log.glob("*.checkpoint.parquet"))
    file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:40])
    assert broken(verify(pristine, home)) == set()


def test_a_column_that_no_file_has_yet_is_null(pristine, home):
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    table(home, "gold.bars_1m").alter.add_columns([Field("later", PrimitiveType("string"))])
    assert broken(verify(pristine, home)) == set()


def test_a_commit_of_zero_bytes_is_named(pristine, home):
    log = home / "lake" / "gold" / "bars_1m" / "_delta_log"
    max(log.glob("*.json")).write_bytes(b"")
    report = verify(pristine, home)
    assert "is empty" in next(f for f in report.findings if f.law == "tables_are_readable").examples[0]


def test_a_gap_in_a_delta_log_is_named(pristine, home):
    log = home / "lake" / "silver" / "prices" / "_delta_log"
    (log / f"{1:020d}.json").unlink()
    report = verify(pristine, home)
    assert "tables_are_readable" in broken(report)
    assert "no commit 1" in next(f for f in report.findings if f.law == "tables_are_readable").examples[0]


@pytest.mark.parametrize("place", ["log", "json_log", "sqlite", "commit"])
def test_a_stored_secret_is_found_and_never_repeated(pristine, home, place):
    if place == "log":
        (home / "logs").mkdir()
        (home / "logs" / "producer.log").write_text(f"GET /coins/markets {SECRET}\n")
    elif place == "json_log":
        (home / "state.json").write_text(json.dumps({"header": SECRET}))
    elif place == "sqlite":
        # A value longer than a page lies on several pages; the secret is where two of them meet or not: found anyhow.
        connection = sqlite3.connect(home / "runs.db")
        connection.execute("CREATE TABLE event_logs (event TEXT)")
        connection.executemany(
            "INSERT INTO event_logs VALUES (?)", [["x" * n + SECRET + "y" * 5000] for n in range(4040, 4100)]
        )
        connection.commit()
        connection.close()
    else:
        from deltalake import CommitProperties

        properties = CommitProperties(custom_metadata={"config": SECRET, "engine": "x"})
        table(home, "silver.prices").delete("coin_id = 'bitcoin' AND \"offset\" = 3", commit_properties=properties)
    report = verify(pristine, home)
    assert "no_secret_is_stored" in broken(report)
    assert "COINGECKO_API_KEY" in str(report.rows())
    assert SECRET not in str(report.rows())


def test_without_broker_the_topic_is_skipped_and_said_so(pristine, home):
    report = verify(pristine, home, kafka=None)
    skipped = {f.law for f in report.findings if f.outcome == "skipped" and "broker" in f.note}
    assert skipped == {"bronze_holds_the_topic", "polls_holds_the_topic"}
    assert report.ok
    assert "no broker was given" in str(report.rows())


def test_an_empty_lake_has_nothing_to_judge(pristine, tmp_path):
    (tmp_path / "lake").mkdir()
    report = audit(tmp_path / "lake", None, now=honest.NOW)
    assert report.ok
    assert {f.law for f in report.findings if f.outcome == "holds" and f.checked} <= {"tables_are_there"}


def test_a_remote_lake_is_refused():
    with pytest.raises(ValueError, match="local"):
        audit("s3://bucket/lake", None, now=honest.NOW)
