"""Silver and its quarantine: from parsed records and history replies to rows.

Belongs here: which of several records of one quote counts, which history points fill a gap, the shape of both tables.
Does not belong here: judging single records (`transforms.parse`), reading or writing tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.model import MONEY
from crypto_assets.contracts.tables import QUARANTINE, SILVER_PRICES
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.transforms.parse import PRICE_LIMIT, day_of, decimal_of, hour_of, where_computed

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from crypto_assets.contracts.slices import Slice

TICK = "tick"
SLOT_S = 300
"""Seconds of a slot: a history point counts only if its slot has no live sample."""

POINT_COLUMNS = (
    *("coin_id", "symbol", "last_updated_at", "price_usd", "market_cap_usd", "volume_24h_usd"),
    *("available_at", "source", "granularity"),
)
"""Columns of a history point."""

ARRIVAL_ORDER = ("available_at", "topic_id", "partition", "offset")
"""Order of arrival: the first record of a quote wins, so that later copies change nothing."""


def silver(parsed: DataFrame, history: DataFrame | None, slice_: Slice) -> DataFrame:
    """Rows of `silver.prices` of some hours.

    Args:
        parsed: Rows of `parse_bronze` for all records whose event lies in the slice.
        history: Rows of `history_points`, or None without history (the parse then runs once, not twice).
        slice_: Hours by event time (UTC).

    Returns:
        One row per coin_id and last_updated_at. Columns and types of the contract.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Times differ more often than coins do, so they come first: they decide most of the sort.
    copies = Window.partitionBy("last_updated_at", "coin_id").orderBy(*ARRIVAL_ORDER)
    live = samples(where_computed(parsed, F.col("is_valid") & _within(F.col("event_hour"), slice_)))
    numbered = live.withColumn("_copy", F.row_number().over(copies))
    live = numbered.where(F.col("_copy") == 1).select(*SILVER_PRICES.column_names)
    if history is None:
        return live
    # `groupBy` instead of `distinct`, which needs the frame to be analysed (see `where_computed`).
    slots = live.groupBy("coin_id", _slot("last_updated_at").alias("_slot")).agg(F.count("*").alias("_samples"))
    points = history.where(_within(F.col("last_updated_at"), slice_)).withColumn("_slot", _slot("last_updated_at"))
    return live.unionByName(_as_silver(points.join(slots, ["coin_id", "_slot"], "left_anti")))


def samples(valid: DataFrame) -> DataFrame:
    """Valid records as rows of Silver, later copies of a quote included, with their other columns.

    Args:
        valid: Rows of `parse_bronze` or `parse_plain`.
    """
    from pyspark.sql import functions as F

    event = F.col("last_updated_at")
    known = {"available_at": F.col("kafka_timestamp"), "granularity": F.lit(TICK)}
    return valid.withColumns({**known, "hour": hour_of(event), "day": day_of(event)})


def first_arrived(rows: pa.Table) -> pa.Table:
    """The first row of each quote to arrive, as `silver` chooses it, from loaded rows of `samples`.

    Engines find them by sorting all rows, which takes a quarter of the time of Silver; here only copies cost anything.
    """
    import pyarrow as pa

    pc = compute()
    key = ["coin_id", "last_updated_at"]
    if rows.select(key).group_by(key).aggregate([]).num_rows == rows.num_rows:
        return rows
    rows = rows.sort_by([(name, "ascending") for name in (*key, *ARRIVAL_ORDER)])
    ids, times = rows.column("coin_id"), rows.column("last_updated_at")
    repeated = pc.and_(pc.equal(ids[1:], ids[:-1]), pc.equal(times[1:], times[:-1]))
    return pa.concat_tables([rows[:1], rows[1:].filter(pc.invert(repeated))])


def examined(parsed: DataFrame) -> DataFrame:
    """Every parsed record as a row of `silver.quarantine`, with the columns of `parse_bronze` that its balance needs.

    The invalid ones are the quarantine, the others its balance, both in one pass. Value, headers and detail of valid
    records are null, so that all records of many hours fit into memory.
    """
    from pyspark.sql import functions as F

    arrival = F.col("arrival_hour")
    heavy = ("raw_json", "raw_bytes", "headers", "detail", "message_key")
    light = {name: F.when(~F.col("is_valid"), F.col(name)) for name in heavy}
    shaped = parsed.withColumns({**light, "hour": arrival, "day": day_of(arrival)})
    return shaped.select(*QUARANTINE.column_names, "is_valid", "last_updated_at", "out_of_range")


def history_points(market_history: DataFrame, coins: CoinRegistry) -> DataFrame:
    """Points of stored history replies, one row each.

    A point needs a price above zero; capitalisation and volume come from the point of the same time, else are null.
    Where a reply has a time twice, its first point counts. Numbers are taken from the reply's text digit by digit.

    Args:
        market_history: Rows of `bronze.market_history`.
        coins: The registry (see `parse_bronze`); points of coins that are not in it are left out.

    Returns:
        `POINT_COLUMNS`.
    """
    from pyspark.sql import functions as F

    prices = _points(market_history, "prices", "price_usd")
    caps = _points(market_history, "market_caps", "market_cap_usd")
    volumes = _points(market_history, "total_volumes", "volume_24h_usd")
    key = ["coin_id", "day", "last_updated_at"]
    about = market_history.select(
        "coin_id",
        "day",
        F.col("fetched_at").alias("available_at"),
        "source",
        "granularity",
        _symbol(coins).alias("symbol"),
    )
    joined = prices.join(caps, key, "left").join(volumes, key, "left").join(about, ["coin_id", "day"])
    usable = (F.col("price_usd") > 0) & (F.col("price_usd") < PRICE_LIMIT) & F.col("symbol").isNotNull()
    of_its_day = F.col("day") == day_of(F.col("last_updated_at"))
    return joined.where(usable & of_its_day).select(*POINT_COLUMNS)


def _as_silver(points: DataFrame) -> DataFrame:
    """History points as rows of Silver; record-only columns are null."""
    from pyspark.sql import functions as F

    event = F.col("last_updated_at")
    absent = [c for c in SILVER_PRICES.columns if c.name not in (*POINT_COLUMNS, "day", "hour")]
    unknown = {c.name: F.lit(None).cast(c.type) for c in absent}
    return points.withColumns({**unknown, "hour": hour_of(event), "day": day_of(event)}).select(
        *SILVER_PRICES.column_names
    )


def _within(moment: Column, slice_: Slice) -> Column:
    from pyspark.sql import functions as F

    return (moment >= F.lit(slice_.start)) & (moment < F.lit(slice_.end))


def _slot(moment: str) -> Column:
    from pyspark.sql import functions as F

    return F.floor(F.unix_seconds(F.col(moment)) / F.lit(SLOT_S))


def _symbol(coins: CoinRegistry) -> Column:
    """Symbol of a coin at the start of `day`: its former one before the date of change."""
    from pyspark.sql import functions as F

    found: list[Column] = []
    for coin in coins:
        is_coin = F.col("coin_id") == coin.coin_id
        for alias in coin.aliases:
            if alias.old_symbol:
                before = is_coin & (F.col("day") < F.lit(alias.until))
                found.append(F.when(before, F.lit(alias.old_symbol.upper())))
        found.append(F.when(is_coin, F.lit(coin.symbol.upper())))
    return F.coalesce(*found, F.lit(None).cast("string"))


def _points(market_history: DataFrame, array: str, value: str) -> DataFrame:
    """One array of the replies, `[[milliseconds, value], ...]`, as rows (coin_id, day, last_updated_at, value).

    The text is split rather than parsed: Sail's `from_json` passes numbers through a double that can be off by one in
    its last digit.
    """
    from pyspark.sql import functions as F

    # From the text itself: Spark returns bare numbers of a JSON array as the nearest double's text.
    pairs = F.regexp_extract("raw_json", rf'(?s)"{array}"\s*:\s*\[(\s*\[.*?\]\s*)\]', 1)
    text = F.regexp_replace(F.when(pairs != "", pairs), r'[\s"]', "")
    inner = F.regexp_replace(text, r"^\[|\]$", "")
    exploded = market_history.select("coin_id", "day", F.posexplode(F.split(inner, r"\],\[")).alias("_at", "_point"))
    millis = decimal_of(F.substring_index("_point", ",", 1)).cast("bigint")
    number = decimal_of(F.substring_index("_point", ",", -1)).cast(MONEY)
    typed = exploded.select(
        "coin_id", "day", "_at", F.timestamp_millis(millis).alias("last_updated_at"), number.alias(value)
    )
    named = typed.where(F.col("last_updated_at").isNotNull() & F.col(value).isNotNull())
    return named.groupBy("coin_id", "day", "last_updated_at").agg(F.min_by(value, "_at").alias(value))
