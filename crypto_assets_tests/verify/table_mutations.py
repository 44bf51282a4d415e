"""Ways to break the tables that are recomputed from the log, the registry or the calendar."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from crypto_assets_tests.verify.mutations import (
    Mutation,
    Row,
    Rows,
    change,
    delete,
    double,
    dropped,
    emptied,
    middle,
    moved,
    null,
    swap,
)

MUTATED = (
    "bronze.raw_prices", "ops.polls", "silver.prices", "silver.quarantine", "gold.bars_1m", "gold.bars_5m",
    "gold.bars_1h", "gold.bars_1d", "gold.dim_coin", "gold.dim_date", "gold.latest_prices", "gold.leaderboard_24h",
    "ops.pipeline_metrics", "ops.alerts",
)  # fmt: skip


def all_tables() -> Iterator[Mutation]:
    """Every mutation of this module."""
    yield from bronze()
    yield from polls()
    yield from silver()
    yield from quarantine()
    for width in ("1m", "5m", "1h", "1d"):
        yield from bars(width)
    yield from dimensions()
    yield from latest()
    yield from leaderboard()
    yield from metrics()
    yield from alerts()


def tick(row: Row) -> bool:
    return row["granularity"] == "tick"


def bronze() -> Iterator[Mutation]:
    table, law = "bronze.raw_prices", "bronze_holds_the_topic"
    yield change(table, "raw_json", law, to=lambda text: text.replace("0", "1", 1))
    yield change(table, "kafka_timestamp", law)
    yield change(table, "message_key", law)
    yield null(table, "message_key", law)
    yield change(table, "headers", law, to=lambda text: text.replace("300", "60"))
    yield null(table, "headers", law)
    yield change(table, "topic", law)
    yield change(table, "event_hour", "bronze_is_valid_plus_quarantined", to=lambda at: at + timedelta(hours=1))
    yield change(table, "offset", "bronze_offsets_once")
    yield change(table, "range_end", "bronze_ranges_contiguous")
    yield change(table, "seq", "bronze_ranges_contiguous")
    yield delete(table, law)
    yield double(table, "bronze_offsets_once")
    yield dropped(table)
    yield emptied(table)


def polls() -> Iterator[Mutation]:
    table, law = "ops.polls", "polls_are_read_rightly"
    yield change(table, "outcome", law)
    yield change(table, "latency_ms", law)
    yield change(table, "http_status", law)
    yield change(table, "finished_at", law)
    yield change(table, "coins_missing", law)
    yield change(table, "delivered", law)
    yield null(table, "poll_id", law)
    yield swap(table, "started_at", law)
    yield change(table, "message_key", "polls_holds_the_topic")
    yield change(table, "headers", "polls_holds_the_topic")
    yield delete(table, "polls_holds_the_topic")
    yield double(table, "polls_offsets_once")
    yield dropped(table)
    yield emptied(table)


def silver() -> Iterator[Mutation]:
    table, law = "silver.prices", "silver_is_the_distinct_quotes"
    yield change(table, "price_usd", law)
    yield change(table, "name", law)
    yield change(table, "available_at", law)
    yield change(table, "cadence_s", law)
    yield change(table, "poll_id", law)
    yield null(table, "volume_24h_usd", law)
    yield swap(table, "market_cap_usd", law)
    yield moved(table, law)
    yield delete(table, law)
    yield double(table, law)
    yield dropped(table)
    yield emptied(table)


def quarantine() -> Iterator[Mutation]:
    table, law = "silver.quarantine", "quarantine_keeps_the_record"
    yield change(table, "raw_json", law)
    yield change(table, "coin_id", law)
    yield change(table, "headers", law)
    yield null(table, "message_key", law)
    yield change(table, "day", law)
    yield change(table, "hour", "quarantine_is_deserved")
    yield change(table, "reasons", "quarantine_accuses_rightly", to=["too_late"], where=no_time_fault)
    yield delete(table, "bronze_is_valid_plus_quarantined")
    yield double(table, "quarantine_is_deserved")
    yield emptied(table, "bronze_is_valid_plus_quarantined")


def no_time_fault(row: Row) -> bool:
    return row["reasons"] in (["unknown_coin"], ["non_positive_price"])


def bars(width: str) -> Iterator[Mutation]:
    table, law = f"gold.bars_{width}", f"bars_{width}_are_silver_recomputed"
    yield change(table, "close", law)
    yield change(table, "price_avg", law)
    yield change(table, "sample_count", law)
    yield change(table, "is_complete", law)
    yield null(table, "volume_24h_usd", law)
    yield swap(table, "open", law)
    yield double(table, law)
    # A day without any bar is judged once it has one: rows of several coins stay.
    yield delete(table, law)
    yield dropped(table)
    yield emptied(table)


def dimensions() -> Iterator[Mutation]:
    coins, law = "gold.dim_coin", "dim_coin_is_the_registry"
    yield change(coins, "symbol", law)
    yield change(coins, "name", law)
    yield change(coins, "coin_key", law)
    yield change(coins, "aliases", law)
    yield change(coins, "is_active", law)
    yield change(coins, "valid_to", law)
    yield change(coins, "valid_from", "dim_coin_spans_follow", where=lambda r: r["valid_to"] is None and aliased(r))
    yield delete(coins, law)
    yield double(coins, "dim_coin_spans_follow")
    yield dropped(coins)
    yield emptied(coins)
    days, calendar = "gold.dim_date", "dim_date_is_the_calendar"
    yield change(days, "iso_week", calendar)
    yield change(days, "is_weekend", calendar)
    yield change(days, "date_key", calendar)
    yield delete(days, calendar)
    yield Mutation(days, "the first day deleted", lambda rows: rows[1:], calendar)
    yield Mutation(days, "the last day deleted", lambda rows: rows[:-1], calendar)
    yield double(days, calendar)
    yield dropped(days)


def aliased(row: Row) -> bool:
    return bool(row["aliases"])


def latest() -> Iterator[Mutation]:
    table, law, covers = "gold.latest_prices", "latest_prices_are_newest", "latest_prices_cover_what_they_say"
    yield change(table, "price_usd", law)
    yield change(table, "name", law)
    yield change(table, "last_updated_at", law)
    yield change(table, "available_at", law)
    yield null(table, "volume_24h_usd", law)
    yield swap(table, "market_cap_usd", law)
    yield change(table, "age_s", covers)
    yield change(table, "covered_until", covers)
    yield change(table, "covered_offsets", covers, to='{"0": 1}')
    yield delete(table, law)
    yield double(table, law)
    yield dropped(table)
    yield emptied(table)


def leaderboard() -> Iterator[Mutation]:
    table, law = "gold.leaderboard_24h", "leaderboard_is_bars_recomputed"
    yield change(table, "price_usd", law)
    yield change(table, "change_24h", law)
    yield change(table, "high_24h", law)
    yield change(table, "window_end", law)
    yield null(table, "price_24h_ago_usd", law)
    yield null(table, "price_24h_ago_at", law)
    yield swap(table, "rank", law)
    yield delete(table, law)
    yield double(table, law)
    yield dropped(table)


def metrics() -> Iterator[Mutation]:
    table, law = "ops.pipeline_metrics", "metrics_are_recomputed"
    yield change(table, "value", law)
    yield change(table, "measured_over", law)
    yield change(table, "unit", law)
    yield change(table, "metric", law)
    yield null(table, "value", law)
    yield swap(table, "value", law, where=lambda r: r["metric"] == "messages_produced")
    yield moved(table, law)
    yield delete(table, law)
    yield Mutation(table, "an hour deleted", without_an_hour, law)
    yield double(table, law)
    yield dropped(table)


def without_an_hour(rows: Rows) -> Rows:
    hour = rows[middle(rows)]["hour"]
    return [row for row in rows if row["hour"] != hour]


def alerts() -> Iterator[Mutation]:
    table, law = "ops.alerts", "alerts_are_what_their_id_says"
    yield change(table, "cause", law)
    # The id of a market alert leaves its state out.
    other_state = {"firing": "resolved", "resolved": "firing"}
    yield change(table, "state", law, to=other_state.__getitem__, where=lambda row: row["rule"] is None)
    yield change(table, "at", law)
    yield change(table, "check_name", law)
    yield null(table, "asset", law)
    yield change(table, "rule", law)
    yield change(table, "coin_id", law)
    yield change(table, "value", law, to=0.5, where=lambda row: row["value"] is None)
    yield change(table, "state", "alerts_are_transitions", to="resolved", where=still_open)
    yield double(table, law)


def still_open(row: Row) -> bool:
    return row["asset"] == "gold/bars_5m"
