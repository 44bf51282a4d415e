"""Homes of any number of days and coins: three days through the product, the days before as copies of the middle one.

Every coin's prices repeat each day, so a shifted copy of a day is the day that the product would have made: Silver is
still what Bronze says, and features are still what the bars before them give. Copies are written in bulk below the
tables' contracts, and each is a separate topic incarnation, since no topic holds records so old. Days beyond the
retention of a table (Bronze: 90 days) are left out, as maintenance would have left them. Models are trained on the last
day alone; their tables, and ledgers, are not copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import floor, sin
from typing import TYPE_CHECKING, Any

from bench.homes import Pipeline, temporary_home
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_key, hour_keys, key_slice
from crypto_assets.contracts.tables import TABLES
from crypto_assets.market.coins import DEFAULT_COINS, Coin, CoinRegistry
from crypto_assets.market.quotes import Poll, Tick

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa

    from crypto_assets.contracts.model import Table

POLL_EVERY = timedelta(minutes=5)
POLL_PHASE = timedelta(seconds=30)
MADE = 3
COIN_HOURS = 6000
"""Coins times hours of a range run: features of a day of 1,000 coins in one run take 19 GB."""
LONGEST_FACT = 200
"""Characters of an entry of a materialization's metadata that is copied."""
COPIED = (
    "bronze.raw_prices",
    "ops.polls",
    "silver.prices",
    "gold.bars_1m",
    "gold.bars_5m",
    "gold.bars_1h",
    "gold.bars_1d",
    "features.price_features",
    "gold.anomalies",
    "ops.pipeline_metrics",
)
WHEN_WRITTEN = ("bronze_ingested_at", "refreshed_at")
"""Columns that a copy keeps: they say when a row was written."""
OF_THE_DAY_BEFORE = ("features.price_features", "gold.anomalies", "ops.pipeline_metrics")
"""Tables whose first day differs from the others, because nothing lies before it."""


class Market:
    """A source that quotes any coin; a price is a function of the coin and the time of day."""

    name = "simulator"

    def __init__(self, registry: CoinRegistry) -> None:
        self._coins = {coin.coin_id: (number, coin) for number, coin in enumerate(registry)}

    def poll(self, coin_ids: Sequence[str], now: datetime) -> Poll:
        """A quote of every coin, half a second old."""
        at = now - timedelta(milliseconds=500)
        return Poll(now, now, "ok", tuple(self._tick(coin, at) for coin in coin_ids))

    def _tick(self, coin_id: str, at: datetime) -> Tick:
        number, coin = self._coins[coin_id]
        second = (at - floor_day(at)) / timedelta(seconds=1)
        chance = sin(number * 12.9898 + second * 78.233) * 43758.5453
        level = 10 ** (number % 5) * (1 + 0.02 * sin(second / 13750.987 + number) + 0.002 * (chance - floor(chance)))
        price = Decimal(f"{level:.6f}")
        return Tick(
            coin_id, coin.symbol, coin.name, price,
            market_cap_usd=price * 1_000_000, volume_24h_usd=price * 10_000, change_1h_pct=Decimal("0.1"),
            change_24h_pct=Decimal(0), change_7d_pct=Decimal(0), last_updated_at=at,
        )  # fmt: skip


def registry_of(coins: int) -> CoinRegistry:
    """So many coins: the default ones first, then invented ones."""
    known = DEFAULT_COINS.coins[:coins]
    more = (Coin(f"coin-{n:04d}", f"C{n:04d}", f"Coin {n}") for n in range(len(known), coins))
    return CoinRegistry((*known, *more))


@contextmanager
def synthetic_home(days: int, coins: int) -> Iterator[Pipeline]:
    """A home with so many days of so many coins behind it, every partition materialized and the last day's models made.

    Args:
        days: Days, all but the last three of them written in bulk.
        coins: Coins, each with a quote every five minutes.
    """
    from crypto_assets.cli.instance import open_instance
    from crypto_assets.definitions import build_definitions
    from crypto_assets.home import open_home
    from crypto_assets.producer.loop import STATE_FILE, Producer, governor_of, open_publisher

    end = floor_day(datetime.now(UTC)) - DAY
    made = Slice(end - min(days, MADE) * DAY, end)
    with temporary_home((end - days * DAY).date()) as (settings, _):
        home, registry = open_home(settings), registry_of(coins)
        home.coins_file.write_text(registry.to_toml(), encoding="utf-8")
        publisher = open_publisher(settings, datetime.now(UTC))
        governor, state = governor_of(settings), home.state / STATE_FILE
        with (
            open_instance(home) as instance,
            Producer(Market(registry), publisher, home.registry, governor, state) as producer,
        ):
            polls = int((made.end - made.start) / POLL_EVERY)
            producer.catch_up([made.start + POLL_PHASE + n * POLL_EVERY for n in range(polls)])
            pipeline = Pipeline(
                settings, home, instance, producer, build_definitions(settings), made, end + timedelta(minutes=10.5)
            )
            keys, at_once = hour_keys(made), max(1, COIN_HOURS // coins)
            for first in range(0, len(keys), at_once):
                pipeline.run("refresh", keys[first : first + at_once])
            if days > MADE:
                pipeline.run("daily", [day_key(made.start + DAY)])
                _copy_tables(pipeline, days)
                _copy_events(instance, made, days)
            pipeline.run("daily", [day_key(end - DAY)])
            pipeline.run("gold/leaderboard_24h", [])
            yield pipeline


def _copy_tables(pipeline: Pipeline, days: int) -> None:
    """Write the days before those that were made, each a copy of the middle one of these."""
    from crypto_assets.engine.engines import make_engine

    store, middle = make_engine(pipeline.settings).store, pipeline.span.end - 2 * DAY
    for name in COPIED:
        contract = TABLES[name]
        rows = store.read_arrow(name)
        at = rows.column(contract.time_column or "")
        mine = rows.filter(_between(at, middle, middle + DAY))
        if not mine.num_rows:
            raise AssertionError(f"{name} has no rows of {middle:%Y-%m-%d} to copy")
        back = range(2, min(days - 1, (contract.retention_days or days + 4) - 4))
        transactions = [
            (app_id, seq)
            for commit in store.commits_after(name, -1, 1_000_000)
            for app_id, seq in _transactions(commit.metadata)
            if contract.write == "append_once" and hour_key(middle)[:10] in app_id
        ]
        if name in OF_THE_DAY_BEFORE:
            first = rows.filter(_between(at, middle - DAY, middle))
            _write(store.path(name), contract, [shifted(first, middle - DAY, days - MADE)], [])
            _write(store.path(name), contract, [shifted(mine, middle, 1)], [], instead_of=middle - DAY)
            back = range(2, days - 2)
        _write(store.path(name), contract, [shifted(mine, middle, n) for n in back], [
            (_incarnation(app_id, middle, n), seq) for n in back for app_id, seq in transactions
        ])  # fmt: skip


def _transactions(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """Application transactions of an append, in the form of this revision and of those before it."""
    if "appends" in metadata:
        return [(app_id, int(seq)) for app_id, seq, _ in json.loads(metadata["appends"])]
    return [(metadata["app_id"], int(metadata["seq"]))] if "app_id" in metadata else []


def _between(column: Any, start: datetime, end: datetime) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    first, last = (pa.scalar(moment, column.type) for moment in (start, end))
    return pc.and_(pc.greater_equal(column, first), pc.less(column, last))


def shifted(rows: pa.Table, day: datetime, back: int) -> pa.Table:
    """Rows of a UTC day moved so many days back: times, dates, texts that name the day, and the topic incarnation."""
    import pyarrow as pa
    import pyarrow.compute as pc

    other, columns = day - back * DAY, []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if field.name in WHEN_WRITTEN:
            moved = column
        elif pa.types.is_timestamp(field.type):
            moved = pc.subtract(column, pa.scalar(back * DAY, pa.duration("us")))
        elif pa.types.is_date(field.type):
            days_since = pc.cast(pc.cast(column, pa.date32()), pa.int32())
            moved = pc.cast(pc.subtract(days_since, pa.scalar(back, pa.int32())), pa.date32())
        elif field.name in ("topic_id", "batch_id"):
            moved = pc.binary_join_element_wise(column, f"-{back}", "")
        elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            moved = pc.replace_substring(column, f"{day:%Y-%m-%d}", f"{other:%Y-%m-%d}")
            moved = pc.replace_substring(moved, f"{day:%Y%m%d}", f"{other:%Y%m%d}")
        else:
            moved = column
        columns.append(pc.cast(moved, field.type))
    return pa.table(columns, schema=rows.schema)


def _incarnation(app_id: str, day: datetime, back: int) -> str:
    """Application transaction of an hour's copy."""
    name, topic_id, hour = app_id.split("/")
    return f"{name}/{topic_id}-{back}/{hour.replace(f'{day:%Y-%m-%d}', f'{day - back * DAY:%Y-%m-%d}')}"


def _write(
    path: str,
    contract: Table,
    tables: Sequence[pa.Table],
    transactions: Sequence[tuple[str, int]],
    *,
    instead_of: datetime | None = None,
) -> None:
    """Append rows to a table in one commit, or put them in the place of a day's."""
    import pyarrow as pa
    from deltalake import CommitProperties, Transaction, write_deltalake

    if not tables:
        return
    used = [Transaction(app_id, seq) for app_id, seq in transactions]
    replaced: dict[str, Any] = {"mode": "append"}
    if instead_of is not None:
        replaced = {"mode": "overwrite", "predicate": f"{contract.partition_by[0]} = '{instead_of:%Y-%m-%d}'"}
    write_deltalake(
        path,
        pa.concat_tables(tables),
        commit_properties=CommitProperties(app_transactions=used, custom_metadata={"run_id": "bench"}),
        **replaced,
    )


def _copy_events(instance: dg.DagsterInstance, made: Slice, days: int) -> None:
    """Report the copied partitions as materialized, as the runs that made the middle day did."""
    import dagster as dg

    from crypto_assets.orchestration.event_log import together

    middle = made.end - 2 * DAY
    for name in COPIED:
        contract = TABLES[name]
        key = dg.AssetKey(list(contract.asset_key))
        keys = [day_key(middle)] if contract.grain == "day" else hour_keys(Slice(middle, middle + DAY))
        last = min(days - 1, (contract.retention_days or days + 4) - 4)
        found = instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys))
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(found.values()))
        records = instance.fetch_materializations(wanted, limit=max(1, len(found))).records if found else []
        with together():
            for record in records:
                event = record.asset_materialization
                # Reports on the whole run that made it are long, and of a refresh of one hour short.
                facts = {name: v for name, v in event.metadata.items() if len(str(v.value)) <= LONGEST_FACT}
                for back in range(2, last):
                    partition = _key_before(record.partition_key or "", contract.grain or "hour", back)
                    instance.report_runless_asset_event(
                        dg.AssetMaterialization(key, partition=partition, metadata=facts, tags=event.tags)
                    )


def _key_before(key: str, grain: str, back: int) -> str:
    start = key_slice(key, grain).start - back * DAY  # type: ignore[arg-type]
    return day_key(start) if grain == "day" else hour_key(start)


def newest_hours(pipeline: Pipeline, hours: int) -> list[str]:
    """Keys of the last hours that were made."""
    return hour_keys(Slice(pipeline.span.end - hours * HOUR, pipeline.span.end))
