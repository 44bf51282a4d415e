"""Scale-free features per coin on the 5-minute grid, point in time.

Every active coin has a row at every closed slot. All lags are by grid time: the grid is complete, so that n rows before
is n slots before. Nothing later than a row's window_end enters it. Definitions are in the contract and in the functions
below; windows end at the row itself unless noted otherwise.

Belongs here: DataFrame -> DataFrame. Does not belong here: which slice is read, or writing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.slices import Slice
from crypto_assets.contracts.tables import PRICE_FEATURES
from crypto_assets.market.coins import CoinRegistry

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NAME, VERSION = "price_features", "4"
SLOT = timedelta(minutes=5)
LOOK_BACK = timedelta(hours=26)
SETTLED = timedelta(seconds=60)
"""How far past a slot's end the log must reach for the slot to be closed."""

MAX_AGE_S = 600
MAD_SLOTS, MAD_PRESENT = 288, 144
MARKET_HALF_LIFE = 72
"""Slots after which a market-relative return counts half in `s_market`."""

ACTIVITY_HALF_LIFE = 12
"""Slots after which a move of the market counts half in `common_activity`: an hour."""

LEAST_COINS = 3
"""Coins with a return from which they are compared with each other."""

SIGMA_FLOOR = 1e-5
MAD_TO_SIGMA = 1.4826
"""Consistency factor of the MAD for a normal distribution, 1 / Phi^-1(3/4)."""

KERNEL = 130
BAND = 20
_EXACT = "decimal(38,24)"
"""Type of summed terms. Sums of doubles depend on the order of terms, and a sliding window's also on slots that have
left it, so a row would depend on where its slice begins. Prices have 14 digits before the point here."""

USED = (
    *("coin_id", "window_end", "close", "last_event_at", "expected_count", "sample_count", "volume_24h_usd"),
    *("available_at", "is_complete", "granularity"),
)
"""Columns of closed bars from which features follow; the first two are their key."""

DIGITS = 12
"""Decimals kept, which hides differences between engines in the last bits of a double."""


def features(bars_5m: DataFrame, slice_: Slice, coins: CoinRegistry, as_of: datetime) -> DataFrame:
    """Feature rows of one slice.

    Args:
        bars_5m: Rows of `gold.bars_5m` of at least [slice start - 26 h, slice end).
        slice_: Slots whose window_start lies in it get rows.
        coins: The registry; a coin has rows while it is active.
        as_of: Highest broker timestamp that the log covers; later slots are not closed and have no row.

    Returns:
        Rows of `features.price_features`, in no order.
    """
    from pyspark.sql import functions as F

    grid = _with_prices(_grid(bars_5m, slice_, coins, as_of), bars_5m)
    rows = _with_returns(grid)
    wanted = rows.where(F.col("window_start") >= F.lit(slice_.start))
    frame = wanted.join(_kernels(wanted, rows), ["coin_id", "slot"], "left").join(_baskets(wanted), ["slot"], "left")
    return _finish(frame)


def last_slot(slice_: Slice, as_of: datetime) -> int:
    """Number of the last closed slot of a slice, counted since the epoch."""
    return int(min(slice_.end, as_of - SETTLED).timestamp() // SLOT.total_seconds()) - 1


def _grid(bars: DataFrame, slice_: Slice, coins: CoinRegistry, as_of: datetime) -> DataFrame:
    """Every coin x every closed slot of look-back and slice; `slot` numbers slots since the epoch."""
    from pyspark.sql import functions as F

    first = int((slice_.start - LOOK_BACK).timestamp() // SLOT.total_seconds())
    last = last_slot(slice_, as_of)
    spark = bars.sparkSession
    ends = [2**40 if c.active_to is None else int(c.active_to.timestamp()) for c in coins]
    records = [(c.coin_id, int(c.active_from.timestamp()), end) for c, end in zip(coins, ends, strict=True)]
    basket = spark.createDataFrame(records, "coin_id string, active_from bigint, active_to bigint")
    slots = spark.range(first, max(first, last + 1)).withColumnRenamed("id", "slot")
    start = F.col("slot") * F.lit(int(SLOT.total_seconds()))
    return (
        basket.crossJoin(slots)
        .withColumn("at", start)
        .where((F.col("active_from") <= F.col("at")) & (F.col("at") < F.col("active_to")))
        .withColumn("window_start", F.timestamp_seconds("at"))
        .withColumn("window_end", F.timestamp_seconds(F.col("at") + F.lit(int(SLOT.total_seconds()))))
        .drop("active_from", "active_to", "at")
    )


def _with_prices(grid: DataFrame, bars: DataFrame) -> DataFrame:
    """price(t), its time and age. A sample counts for 2 x cadence, at most 10 min: of this slot or the one before.

    The cadence is 300 s / expected_count of the sample's own bar (history without a cadence: 300 s).
    """
    from pyspark.sql import functions as F

    seconds = F.lit(SLOT.total_seconds())
    cadence = seconds / F.coalesce(F.col("expected_count").cast("double"), F.lit(1.0))
    kept = bars.where(F.col("is_closed") & (F.col("granularity").isin("tick", "5m"))).select(
        "coin_id",
        "window_end",
        F.col("close").cast("double").alias("bar_close"),
        F.col("last_event_at").alias("bar_at"),
        F.least(cadence * 2, F.lit(float(MAX_AGE_S))).alias("bar_max_age"),
        F.col("sample_count").alias("bar_samples"),
        F.col("volume_24h_usd").cast("double").alias("bar_volume"),
        F.col("available_at").alias("bar_available_at"),
        F.col("is_complete").alias("bar_complete"),
    )
    joined = grid.join(kept, ["coin_id", "window_end"], "left")
    by_coin = _by_coin()
    previous = {n: F.lag(n, 1).over(by_coin) for n in ("bar_close", "bar_at", "bar_max_age", "bar_volume")}
    joined = joined.withColumns({f"previous_{n}": c for n, c in previous.items()})
    age = _seconds("window_end", "bar_at")
    previous_age = _seconds("window_end", "previous_bar_at")
    own, before = age <= F.col("bar_max_age"), previous_age <= F.col("previous_bar_max_age")
    from_before = F.col("bar_close").isNull() & before

    def pick(name: str) -> Column:
        return F.when(own, F.col(name)).when(from_before, F.col(f"previous_{name}"))

    return joined.withColumns({"price": pick("bar_close"), "price_at": pick("bar_at")}).withColumn(
        "staleness_s", _seconds("window_end", "price_at")
    )


def _with_returns(grid: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    coin = _by_coin()
    positive = (F.col("bar_volume") > 0) & (F.col("previous_bar_volume") > 0)
    frame = grid.withColumn("x", F.ln("price"))
    frame = frame.withColumns(
        {name: F.col("x") - F.lag("x", slots).over(coin) for name, slots in _LAGS.items()}
        | {"step": F.col("price") - F.lag("price", 1).over(coin)}
        | {"volume_change": F.when(positive, F.ln(F.col("bar_volume") / F.col("previous_bar_volume")))}
    )
    up, down = F.greatest("step", F.lit(0.0)), F.greatest(-F.col("step"), F.lit(0.0))
    band = _last(BAND)
    return frame.withColumns(
        {
            **{
                name: _full(F.sqrt(_sum(F.col("r5") * F.col("r5"), _last(slots))), "r5", slots)
                for name, slots in _VOLATILITY.items()
            },
            "gain": _full(_sum(up, _last(14)), "step", 14),
            "loss": _full(_sum(down, _last(14)), "step", 14),
            "band_mean": _full(_sum(F.col("price"), band) / BAND, "price", BAND),
            "band_is_flat": F.max("price").over(band) == F.min("price").over(band),
            "r5_median": _median(F.collect_list("r5").over(_past(MAD_SLOTS))),
            "r5_present": F.count("r5").over(_past(MAD_SLOTS)),
            "latest_input": F.max("bar_available_at").over(_last(int(LOOK_BACK / SLOT))),
            "changed_slot": F.max(F.when(~F.coalesce(F.col("step") == 0, F.lit(False)), F.col("slot"))).over(
                _last(MAD_SLOTS)
            ),
            # A return depends on its own slot, the one before, and the one before that if a price is carried over.
            "r5_available_at": F.when(F.col("r5").isNotNull(), F.max("bar_available_at").over(_last(3))),
            "place": _place("r5"),
            "returns": F.count("r5").over(_slot()),
        }
    ).withColumns(
        {
            "r5_market": F.col("r5") - _median_of_others(),
            "basket_available_at": F.max("r5_available_at").over(_slot()),
        }
    )


def _median_of_others() -> Column:
    """Median r5 of the other coins in the slot, where at least two others have one.

    The sorted returns without the coin's own: those from its place on move up by one. So the median is of two places
    in the middle, or of the next ones, which are the same for every coin of the slot: a list of the returns in every
    row would grow with the square of the coins.
    """
    from pyspark.sql import functions as F

    lower, upper = F.floor(F.col("returns") / 2), F.ceil(F.col("returns") / 2)  # counted from 1, as places are

    def at(place: Column) -> Column:
        here = F.max(F.when(F.col("place") == place, F.col("r5"))).over(_slot())
        after = F.max(F.when(F.col("place") == place + 1, F.col("r5"))).over(_slot())
        return F.when(place >= F.col("place"), after).otherwise(here)

    return F.when(F.col("r5").isNotNull() & (F.col("returns") >= LEAST_COINS), (at(lower) + at(upper)) / 2)


def _median_of_slot() -> Column:
    """Median rz of the coins in the slot, where at least three have one."""
    from pyspark.sql import functions as F

    def at(place: Column) -> Column:
        return F.max(F.when(F.col("rz_place") == place, F.col("rz"))).over(_slot())

    known = F.col("rz_known") + 1
    middle = (at(F.floor(known / 2)) + at(F.ceil(known / 2))) / 2
    return F.when(F.col("rz").isNotNull() & (F.col("rz_known") >= LEAST_COINS), middle)


def _place(column: str) -> Column:
    """A value's place among those of its slot, from 1; unknown ones come last."""
    from pyspark.sql import functions as F

    return F.row_number().over(_slot().orderBy(F.asc_nulls_last(column), "coin_id"))


def _median(values: Column) -> Column:
    """Median of a list: Spark refuses `median` over a window with a frame. Sail leaves nulls in such a list."""
    from pyspark.sql import functions as F

    ordered = F.array_sort(F.array_compact(values))
    last = F.size(ordered) - 1
    lower, upper = F.floor(last / 2).cast("int"), F.ceil(last / 2).cast("int")
    return F.when(last >= 0, (F.get(ordered, lower) + F.get(ordered, upper)) / 2)


_LAGS = {"r5": 1, "r15": 3, "r1h": 12, "r24h": 288}
_VOLATILITY = {"rv15m": 3, "rv1h": 12, "rv4h": 48}


def _kernels(wanted: DataFrame, rows: DataFrame) -> DataFrame:
    """Values that need every one of the last 288 slots: MAD around the row's own median, spread, and weighted sums.

    MACD is EMA12 - EMA26 of ln price and its signal EMA9 of that, each a finite kernel of 130 slots with weights (1 -
    a)^k, a = 2 / (n + 1), scaled to sum to 1. The signal is therefore one kernel of 259 slots on ln price. All slots
    under a kernel must have a price. The Bollinger band's spread is here too, because it needs the finished mean.
    The EWMAs behind s_market and common_activity are kernels of slots t - 288 .. t - 1, whose weights are scaled to sum
    to 1 over the known.
    """
    from pyspark.sql import functions as F

    weights = wanted.sparkSession.createDataFrame(
        _weights(), "k bigint, w_macd double, w_signal double, w_market double, w_activity double"
    )
    lagged = (
        wanted.select("coin_id", "slot", F.col("r5_median").alias("median"), "band_mean")
        .crossJoin(F.broadcast(weights))
        .withColumn("past", F.col("slot") - F.col("k"))
    )
    values = rows.select(
        *("coin_id", F.col("slot").alias("past"), "x", "r5", "r5_market", "basket_available_at"),
        F.col("price").alias("past_price"),
    )
    deviation = F.when(F.col("k") >= 1, F.abs(F.col("r5") - F.col("median")))
    # Relative to the mean, so that cheap and dear coins keep the same digits.
    spread = F.when(F.col("k") < BAND, F.col("past_price") / F.col("band_mean") - 1)
    market = F.when(F.col("k") >= 1, F.col("r5_market"))
    recent = F.when(F.col("k") < MAD_SLOTS, F.col("r5"))
    others = F.when(F.col("k") >= 1, F.col("r5") - F.col("r5_market"))

    def weight(name: str) -> Column:
        return F.when(market.isNotNull(), F.col(name))

    sums = (
        lagged.join(values, ["coin_id", "past"])
        .groupBy("coin_id", "slot")
        .agg(
            F.median(deviation).alias("mad"),
            F.sum((spread * spread).cast(_EXACT)).cast("double").alias("spread_squares"),
            F.sum((recent * recent).cast(_EXACT)).cast("double").alias("r5_squares"),
            F.count(recent).alias("recent"),
            F.sum((F.col("w_macd") * F.col("x")).cast(_EXACT)).cast("double").alias("macd_sum"),
            F.sum((F.col("w_signal") * F.col("x")).cast(_EXACT)).cast("double").alias("signal_sum"),
            F.sum((F.col("w_market") * market * market).cast(_EXACT)).cast("double").alias("market_squares"),
            F.sum(weight("w_market").cast(_EXACT)).cast("double").alias("market_weight"),
            F.sum((F.col("w_activity") * others * others).cast(_EXACT)).cast("double").alias("hour_squares"),
            F.sum(weight("w_activity").cast(_EXACT)).cast("double").alias("hour_weight"),
            F.sum((others * others).cast(_EXACT)).cast("double").alias("day_squares"),
            F.count(market).alias("market_present"),
            F.max("basket_available_at").alias("market_available_at"),
            F.count(F.when(F.col("k") < KERNEL, F.col("x"))).alias("macd_present"),
            F.count(F.when(F.col("k") < 2 * KERNEL - 1, F.col("x"))).alias("signal_present"),
        )
    )

    def floored(squares: str, known: str) -> Column:
        return F.greatest(F.col(squares) / F.col(known), F.lit(SIGMA_FLOOR**2))

    return sums.select(
        "coin_id",
        "slot",
        "mad",
        "market_available_at",
        F.sqrt(F.col("spread_squares") / BAND).alias("spread"),
        F.when(F.col("recent") >= MAD_PRESENT, F.sqrt(F.col("r5_squares") / F.col("recent") * MAD_SLOTS)).alias(
            "rv24h"
        ),
        F.when(F.col("macd_present") == KERNEL, F.col("macd_sum")).alias("macd"),
        F.when(F.col("signal_present") == 2 * KERNEL - 1, F.col("signal_sum")).alias("macd_signal"),
        F.when(
            F.col("market_present") >= MAD_PRESENT,
            F.greatest(F.sqrt(F.col("market_squares") / F.col("market_weight")), F.lit(SIGMA_FLOOR)),
        ).alias("s_market"),
        F.when(
            F.col("market_present") >= MAD_PRESENT,
            F.sqrt(floored("hour_squares", "hour_weight") / floored("day_squares", "market_present")),
        ).alias("common_activity"),
    )


@lru_cache(maxsize=1)
def _weights() -> list[tuple[int, float, float, float, float]]:
    def kernel(n: int) -> list[float]:
        raw = [(1 - 2 / (n + 1)) ** k for k in range(KERNEL)]
        return [w / sum(raw) for w in raw]

    macd = [a - b for a, b in zip(kernel(12), kernel(26), strict=True)]
    signal = [0.0] * (2 * KERNEL - 1)
    for i, a in enumerate(kernel(9)):
        for j, b in enumerate(macd):
            signal[i + j] += a * b
    pad = [0.0] * (MAD_SLOTS + 1)
    return [
        (k, (macd + pad)[k], (signal + pad)[k], 0.5 ** (k / MARKET_HALF_LIFE), 0.5 ** (k / ACTIVITY_HALF_LIFE))
        for k in range(MAD_SLOTS + 1)
    ]


def _baskets(wanted: DataFrame) -> DataFrame:
    """Hash of the coins that had r5 in the slot."""
    from pyspark.sql import functions as F

    having = F.when(F.col("r5").isNotNull(), F.col("coin_id"))
    return wanted.groupBy("slot").agg(
        F.substring(F.sha2(F.concat_ws(",", F.array_sort(F.collect_list(having))), 256), 1, 16).alias("basket_hash")
    )


def _finish(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    enough = F.col("r5_present") >= MAD_PRESENT
    width = F.col("band_mean") * F.col("spread") * 4
    moved = F.col("gain") + F.col("loss")
    frame = frame.withColumns(
        {
            "s": F.when(enough, F.greatest(F.col("mad") * MAD_TO_SIGMA, F.lit(SIGMA_FLOOR))),
            "r5_median": F.when(enough, F.col("r5_median")),
            # Without any move gains and losses balance: 50, as the limit of equal ones.
            "rsi14": F.when(moved == 0, F.lit(50.0)).otherwise(F.col("gain") / moved * 100),
            "macd_hist": F.col("macd") - F.col("macd_signal"),
            # Likewise a price that did not move lies in the middle of its band.
            "bollinger_b": F.when(F.col("band_mean").isNotNull() & F.col("band_is_flat"), F.lit(0.5)).when(
                width > 0, (F.col("price") - F.col("band_mean") + width / 2) / width
            ),
            "unchanged_slots": F.when(F.col("price").isNull(), F.lit(0)).otherwise(
                F.coalesce(F.col("slot") - F.col("changed_slot") + 1, F.lit(MAD_SLOTS))
            ),
        }
    )
    frame = frame.withColumn("rz", (F.col("r5") - F.col("r5_median")) / F.col("s"))
    frame = frame.withColumns({"rz_place": _place("rz"), "rz_known": F.count("rz").over(_slot())})
    frame = frame.withColumn("rz_common", _median_of_slot())
    exact = ("price", "staleness_s")
    rounded = [c.name for c in PRICE_FEATURES.columns if c.type == "double" and c.name not in exact]
    frame = frame.withColumns({n: F.round(n, DIGITS) for n in rounded})
    frame = frame.withColumns(
        {
            "sample_count": F.coalesce(F.col("bar_samples"), F.lit(0)).cast("bigint"),
            "is_complete": F.coalesce(F.col("bar_complete"), F.lit(False)),
            "available_at": F.greatest("latest_input", "market_available_at"),
            "null_reason": _reason(),
            "hour": F.date_trunc("hour", "window_start"),
            "day": F.to_date("window_start"),
        }
    )
    return frame.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in PRICE_FEATURES.columns))


_LONG = ("s", "rv15m", "rv1h", "rv4h", "rv24h", "rsi14", "macd", "macd_signal", "bollinger_b")
"""Columns whose window must be known, by half or in full."""


def _reason() -> Column:
    """Codes of everything that is null, sorted and joined; null when nothing is."""
    from pyspark.sql import functions as F

    known = F.col("price").isNotNull()

    def any_null(*names: str) -> Column:
        return reduce(or_, [F.col(name).isNull() for name in names])

    codes = (
        F.when(
            F.col("r5").isNotNull() & F.col("r5_market").isNull()
            | known & F.col("s").isNotNull() & F.col("s_market").isNull()
            | F.col("rz").isNotNull() & F.col("rz_common").isNull(),
            F.lit("few_coins"),
        ),
        F.when(known & any_null("r5", "r15", "r1h", "r24h"), F.lit("no_lag")),
        F.when(F.col("volume_change").isNull(), F.lit("no_volume")),
        F.when(known & any_null(*_LONG), F.lit("short_history")),
        F.when(~known, F.lit("stale_price")),
    )
    text = F.concat_ws(",", *codes)
    return F.when(text != "", text)


def _by_coin() -> Any:
    from pyspark.sql import Window

    return Window.partitionBy("coin_id").orderBy("slot")


def _slot() -> Any:
    """All coins of the row's slot."""
    from pyspark.sql import Window

    return Window.partitionBy("slot")


def _last(slots: int) -> Any:
    """The row's slot and those before it, `slots` in total."""
    return _by_coin().rowsBetween(1 - slots, 0)


def _past(slots: int) -> Any:
    """The `slots` before the row's own."""
    return _by_coin().rowsBetween(-slots, -1)


def _sum(value: Column, window: Any) -> Column:
    """Exact sum over a window, as a double."""
    from pyspark.sql import functions as F

    return F.sum(value.cast(_EXACT)).over(window).cast("double")


def _full(value: Column, column: str, slots: int) -> Column:
    """The value where all of the last `slots` have the column."""
    from pyspark.sql import functions as F

    return F.when(F.count(column).over(_last(slots)) == slots, value)


def _seconds(later: str, earlier: str) -> Column:
    """Difference of two timestamp columns in seconds, to the microsecond."""
    from pyspark.sql import functions as F

    return (F.unix_micros(F.col(later)) - F.unix_micros(F.col(earlier))) / F.lit(1e6)
