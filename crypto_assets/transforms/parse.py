"""Parses Bronze records into typed columns, with every reason why a record may not become Silver.

Belongs here: reading one record's JSON, numbers, times and headers exactly, and judging it. Does not belong here:
comparing records with each other (`transforms.silver`), reading or writing tables.

Every value is read as text first (`transforms.json_text`). Texts become numbers and times through a pattern and
`try_cast`, so that no record can fail a batch or change on the way: a typed `from_json` fails whole batches on some
engines, and a cast of `double` to `decimal(38,18)` turns 1e5 into 99999.999999999991611392 on Sail. Hours and days are
computed from seconds since 1970, so that no result depends on the session's time zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

from crypto_assets.contracts.messages import (
    CLOCK_SKEW_LIMIT_S,
    HEADER_CADENCE,
    HEADER_POLL_ID,
    HEADER_SCHEMA_VERSION,
    HEADER_SOURCE,
    MOST_CHARACTERS,
    NUMERIC,
    QUARANTINE_REASONS,
    REQUIRED,
    SCHEMA_VERSION,
)
from crypto_assets.contracts.model import MONEY
from crypto_assets.contracts.tables import QUARANTINE, RAW_PRICES
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.market.moments import RFC3339
from crypto_assets.transforms import json_text

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

RESTATABLE_DAYS = 89
"""Maximum delay of an event hour behind its arrival hour: Bronze's 90 days less one."""

PRICE_LIMIT = 10**15
"""Prices from here on are implausible in USD (all the world's money is less); below it sums of a day stay exact."""

MAY_BE_NULL = ("market_cap_usd", "volume_24h_usd", "change_24h_pct", "change_7d_pct")
"""Required fields that may be present as null."""

EXPONENT_LIMIT = 60
"""Largest power of ten in scientific notation; beyond it nothing fits decimal(38,18)."""

COORDINATES = tuple(name for name in QUARANTINE.column_names if name in RAW_PRICES.column_names)
"""Columns of a record that its quarantine row keeps."""

PLACE = ("topic_id", "partition", "offset")
"""Columns that name a record."""

_EXACT = rf"^{json_text.NUMBER}\z"
_NUMBER = r"^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?\z"
_SECONDS = r"^[0-9]{1,9}([.][0-9]{1,9})?\z"
_FIELDS = tuple(dict.fromkeys((*REQUIRED, "name", *NUMERIC)))
_TEXT_ONLY = ("coin_id", "symbol", "name")
"""Fields that hold text or nothing: a number or a list is not a name."""
_RFC3339 = rf"^{RFC3339}\z"
_FRACTION_DIGITS = 30
"""Digits after the point that determine how the 18th is rounded."""
_SHOWN = 60
"""Maximum number of characters of a value quoted in a detail."""


def parse_bronze(bronze: DataFrame, coins: CoinRegistry, partitions_start: datetime) -> DataFrame:
    """Every record of Bronze with its typed fields and its reasons.

    Rows of kind `gap` are left out: they are no records. A record is valid exactly when it has no reason; the
    `event_hour` of a valid record is the one that Bronze holds, which is what Silver is read by.

    Args:
        bronze: Rows of `bronze.raw_prices`.
        coins: The registry. An alias names its coin for quotes made before `until`, a UTC day.
        partitions_start: Earlier events have no partition (UTC).

    Returns:
        Coordinates of Bronze and arrival_hour; coin_id (the registry's, or what was read), symbol, name,
        last_updated_at, price_usd, market_cap_usd, volume_24h_usd, change_1h_pct, change_24h_pct, change_7d_pct,
        ingestion_timestamp, source, cadence_s, poll_id, event_hour; reasons (array of text, sorted), detail (text),
        is_valid (boolean, never null); out_of_range (array of text: numeric fields that are null because
        decimal(38,18) cannot hold their number, which costs the record nothing else; null = none).
    """
    from pyspark.sql import functions as F

    return _through(_stages(coins, partitions_start, plain=False), bronze.where(F.col("kind") == "record"))


def parse_plain(bronze: DataFrame, coins: CoinRegistry, partitions_start: datetime) -> DataFrame:
    """`parse_bronze` of what nearly all records are: in our producer's layout, and valid.

    An engine plans it in a fifth of the time, which for a few thousand records is most of their cost, and computes it
    in three quarters.

    Args:
        bronze: As for `parse_bronze`.
        coins: As for `parse_bronze`.
        partitions_start: As for `parse_bronze`.

    Returns:
        Every record, with `PLACE`, kafka_timestamp, arrival_hour, the typed fields, event_hour, is_valid, out_of_range.
        Where is_valid is true, all of them are as in `parse_bronze`; where it is false, nothing is said of the record,
        not even that it is invalid.
    """
    from pyspark.sql import functions as F

    return _through(_stages(coins, partitions_start, plain=True), bronze.where(F.col("kind") == "record"))


_KEPT: dict[object, list[list[Column | str]]] = {}
_MOST_KEPT = 8


def _through(stages: Sequence[Sequence[Column | str]], frame: DataFrame) -> DataFrame:
    return reduce(lambda frame, columns: frame.select(*columns), stages, frame)


def _stages(coins: CoinRegistry, partitions_start: datetime, *, plain: bool) -> list[list[Column | str]]:
    """Columns of the successive selects.

    Built once per registry: on a JVM session that takes twenty thousand calls into the JVM, three seconds however few
    the rows, and a stream parses every few seconds.
    """
    from pyspark.sql import functions as F

    # A process may have columns of both kinds: of a JVM session and of Spark Connect.
    key = (type(F.lit(None)), coins, partitions_start, plain)
    if key not in _KEPT:
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        known = [*COORDINATES, "arrival_hour", F.col("event_hour").alias("_bronze_hour")]
        conditions = _conditions(partitions_start)
        if plain:
            valid = F.col("_readable") & ~reduce(or_, conditions.values())
            in_range = F.lit(None).cast("array<string>").alias("out_of_range")
            about = [*PLACE, "kafka_timestamp", "arrival_hour"]
            judged = [[*about, *_fields(), valid.alias("is_valid"), in_range]]
        else:
            judged = [["*", *[c.alias(f"_is_{name}") for name, c in conditions.items()]], _judged()]
        texts = _plain_texts() if plain else _texts()
        _KEPT[key] = [known, *texts, *_typed(coins, plain=plain), *judged]
    return _KEPT[key]


def _fields() -> list[Column | str]:
    """The typed fields of a record."""
    from pyspark.sql import functions as F

    return [
        F.coalesce("_canonical", "_coin_id").alias("coin_id"),
        F.upper("_symbol").alias("symbol"),
        F.col("_name").alias("name"),
        *("last_updated_at", *NUMERIC, "ingestion_timestamp", "source", "cadence_s", "poll_id"),
        F.col("_hour").alias("event_hour"),
    ]


def _judged() -> list[Column | str]:
    """The columns that `parse_bronze` returns."""
    from pyspark.sql import functions as F

    flags = {name: F.col(f"_is_{name}") for name in sorted(QUARANTINE_REASONS)}
    beyond = {name: _out_of_range(name) for name in NUMERIC[1:]}
    return [
        *COORDINATES,
        "arrival_hour",
        *_fields(),
        _named(flags).alias("reasons"),
        F.concat_ws("; ", *[F.when(flag, _found(name)) for name, flag in flags.items()]).alias("detail"),
        (~reduce(or_, flags.values())).alias("is_valid"),
        F.when(reduce(or_, beyond.values()), _named(beyond)).alias("out_of_range"),
    ]


def _named(flags: Mapping[str, Column]) -> Column:
    """Names of the true flags, as an array."""
    from pyspark.sql import functions as F

    return F.array_compact(F.array(*[F.when(flag, F.lit(name)) for name, flag in flags.items()]))


def where_computed(frame: DataFrame, condition: Column) -> DataFrame:
    """Rows of a frame that fulfil a condition on costly computed columns.

    An optimizer pushes a plain filter below the columns it reads, and so copies their expressions into it: for the
    columns of `parse_bronze` planning a thousand rows grows from 0.5 s to more than ten minutes on Sail 0.7. Exploding
    an array that is null for unwanted rows is not pushed down. The rows have one more column, `_kept`, which callers
    leave out when they select: dropping it would need the frame to be analysed, which a declarative pipeline does not
    allow before all of it is known.
    """
    from pyspark.sql import functions as F

    return frame.select("*", F.explode(F.when(condition, F.array(F.lit(1)))).alias("_kept"))


def hour_of(moment: Column) -> Column:
    """Start of the UTC hour of a timestamp, whatever the session's time zone."""
    from pyspark.sql import functions as F

    seconds = F.unix_seconds(moment)
    return F.timestamp_seconds(seconds - F.pmod(seconds, F.lit(3600)))


def day_of(moment: Column) -> Column:
    """UTC date of a timestamp, whatever the session's time zone."""
    from pyspark.sql import functions as F

    days = F.floor(F.unix_seconds(moment) / F.lit(86400)).cast("int")
    return F.date_add(F.lit(date(1970, 1, 1)), days)


def decimal_of(text: Column) -> Column:
    """Exact decimal(38,18) of a plain or scientific text, rounded to 18 places.

    Null for non-numbers, 21 digits or more before the point, or an exponent beyond `EXPONENT_LIMIT`.
    """
    from pyspark.sql import functions as F

    return F.when(text.rlike(_EXACT), text.try_cast(MONEY)).when(text.rlike(_NUMBER), _scaled(text).try_cast(MONEY))


def moment_of(text: Column) -> Column:
    """The UTC timestamp of an RFC 3339 text with a zone (digits after microseconds are cut), else null."""
    from pyspark.sql import functions as F

    return F.when(text.rlike(_RFC3339), F.upper(text).try_cast("timestamp"))


def _scaled(text: Column) -> Column:
    """Plain decimal text of a number, by moving its point and cutting insignificant digits.

    The digits are padded with enough zeros for any move. The expression repeats `text` as rarely as possible, because a
    plan holds it once for each numeric field.
    """
    from pyspark.sql import functions as F

    power, zeros = F.concat(F.lower(text), F.lit("e0")), F.lit("0" * EXPONENT_LIMIT)
    mantissa = F.substring_index(power, "e", 1)
    exponent = F.translate(F.substring_index(F.substring_index(power, "e", 2), "e", -1), "+", "").try_cast("int")
    bounded = F.when(exponent.between(-EXPONENT_LIMIT, EXPONENT_LIMIT), exponent)
    digits = F.concat(zeros, F.translate(mantissa, ".-", ""), zeros)
    point = F.length(F.translate(F.substring_index(mantissa, ".", 1), "-", "")) + bounded + EXPONENT_LIMIT
    sign = F.when(text.startswith("-"), F.lit("-")).otherwise(F.lit(""))
    whole = F.concat(F.lit("0"), F.regexp_replace(digits.substr(F.lit(1), point), "^0+", ""))
    return F.concat(sign, whole, F.lit("."), digits.substr(point + 1, F.lit(_FRACTION_DIGITS)))


def _texts() -> list[list[Column | str]]:
    """Every field and header as text; null if absent, null or of a kind that the field cannot have.

    A record with a repeated name is not read, because it is ambiguous.
    """
    from pyspark.sql import functions as F

    fields = [_field(name).alias(f"_{name}") for name in _FIELDS]
    tags, distinct = F.col("_tags"), F.size("_keys") == F.size(F.array_distinct("_keys"))
    return [
        ["*", _true(json_text.plain(F.col("raw_json"))).alias("_plain")],
        ["*", F.when(~F.col("_plain"), json_text.tagged(json_text.marked(F.col("raw_json")))).alias("_tags")],
        ["*", F.when(json_text.is_one_value(tags), F.json_object_keys(tags)).alias("_keys")],
        ["*", (F.col("_plain") | _true(distinct)).alias("_readable")],
        ["*", *fields, *_headers()],
    ]


def _plain_texts() -> list[list[Column | str]]:
    """The same of records in our producer's layout; of all others nothing is read."""
    from pyspark.sql import functions as F

    fields = [F.get_json_object("_text", f"$.{name}").alias(f"_{name}") for name in _FIELDS]
    no_keys = F.lit(None).cast("array<string>").alias("_keys")
    return [
        ["*", F.when(json_text.plain(F.col("raw_json")), F.col("raw_json")).alias("_text")],
        ["*", F.col("_text").isNotNull().alias("_readable"), no_keys, *fields, *_headers()],
    ]


def _headers() -> list[Column]:
    from pyspark.sql import functions as F

    header = {
        HEADER_SCHEMA_VERSION: "_version",
        HEADER_SOURCE: "source",
        HEADER_POLL_ID: "poll_id",
        HEADER_CADENCE: "_cadence",
    }
    return [F.get_json_object("headers", f"$.{name}").alias(alias) for name, alias in header.items()]


def _field(name: str) -> Column:
    """Text of a field: the content of a text, and for numbers and times also a scalar as written."""
    from pyspark.sql import functions as F

    tag = F.when(F.col("_readable"), json_text.member(F.col("_tags"), name))
    if name in _TEXT_ONLY:
        text = F.when(tag.startswith("s"), tag.substr(F.lit(2), F.length(tag)))
    else:
        # The bracket of a list or an object stays, which is neither number nor time.
        text = F.when(tag != "nnull", F.regexp_replace(tag, r"^([\[{])[^\x00]*|^[sn]", "$1"))
    return F.when(F.col("_plain"), F.get_json_object("raw_json", f"$.{name}")).otherwise(text)


def _typed(coins: CoinRegistry, *, plain: bool) -> list[list[Column | str]]:
    """The texts as numbers and times, the coin's registry id, and the event hour."""
    from pyspark.sql import functions as F

    def number(text: Column) -> Column:
        exact = text.try_cast(MONEY)
        return exact if plain else F.when(F.col("_plain"), exact).otherwise(decimal_of(text))

    numbers = [number(F.col(f"_{name}")).alias(name) for name in NUMERIC]
    times = [moment_of(F.col(f"_{name}")).alias(name) for name in ("last_updated_at", "ingestion_timestamp")]
    cadence = F.when(F.col("_cadence").rlike(_SECONDS), F.col("_cadence").try_cast("double"))
    # A coin whose quote has no date is judged by its arrival.
    dated = F.coalesce("last_updated_at", "kafka_timestamp")
    canonical = canonical_coin(F.col("_coin_id"), dated, coins).alias("_canonical")
    return [
        ["*", *numbers, *times, F.when(cadence > 0, cadence).alias("cadence_s")],
        ["*", canonical, hour_of(F.col("last_updated_at")).alias("_hour")],
    ]


def canonical_coin(coin_id: Column, at: Column, coins: CoinRegistry) -> Column:
    """Registry id of a coin that was active at a time, by its present or a former id; else null."""
    from pyspark.sql import functions as F

    def within(start: datetime, end: datetime | None) -> list[Column]:
        return [at >= F.lit(start), *([at < F.lit(end)] if end else [])]

    same_span: dict[tuple[datetime, datetime | None], list[str]] = {}
    found: list[Column] = []
    for coin in coins:
        start, end = coin.active_from, coin.active_to
        same_span.setdefault((start, end), []).append(coin.coin_id)
        for alias in coin.aliases:
            limits = [*within(start, end), at < F.lit(datetime.combine(alias.until, time(), UTC))]
            found.append(F.when(reduce(and_, limits, coin_id == alias.old_id), F.lit(coin.coin_id)))
    # One look-up per activity span, so that hundreds of coins cost as much as one.
    known = [F.when(reduce(and_, within(*span), coin_id.isin(ids)), coin_id) for span, ids in same_span.items()]
    return F.coalesce(*known, *found, F.lit(None).cast("string"))


def _conditions(partitions_start: datetime) -> dict[str, Column]:
    """Whether each reason applies: true or false, never null."""
    from pyspark.sql import functions as F

    readable, event, arrived = F.col("_readable"), F.col("last_updated_at"), F.col("kafka_timestamp")
    skewed = event > arrived + F.expr(f"INTERVAL {CLOCK_SKEW_LIMIT_S} SECONDS")
    oldest = F.col("arrival_hour") - F.expr(f"INTERVAL {RESTATABLE_DAYS * 24} HOURS")
    late = (F.col("_hour") < oldest) | (event < F.lit(partitions_start))
    times = [F.col(f"_{n}").isNotNull() & F.col(n).isNull() for n in ("last_updated_at", "ingestion_timestamp")]
    # Silver is read by Bronze's event_hour: a record with another one would be in no slice at all.
    astray = event.isNotNull() & ~_true(skewed) & ~_true(late) & ~F.col("_bronze_hour").eqNullSafe(F.col("_hour"))
    is_bytes = F.col("raw_json").isNull() & F.col("raw_bytes").isNotNull()
    conditions = {
        "not_utf8": is_bytes,
        "not_json": ~readable & ~is_bytes,
        "unknown_schema_version": ~F.col("_version").eqNullSafe(F.lit(SCHEMA_VERSION)),
        "missing_field": readable & reduce(or_, _missing().values()),
        "bad_number": reduce(or_, [_not_a_number(name) for name in NUMERIC]),
        "non_positive_price": F.col("price_usd") <= 0,
        "bad_timestamp": reduce(or_, times) | astray | arrived.isNull(),
        "clock_skew": skewed,
        "unknown_coin": _present("coin_id") & F.col("_canonical").isNull(),
        "too_late": late,
    }
    return {name: _true(condition) for name, condition in conditions.items()}


def _true(condition: Column) -> Column:
    """The condition with null as false."""
    from pyspark.sql import functions as F

    return F.coalesce(condition, F.lit(False))


def _present(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.col(f"_{name}").isNotNull() & (F.col(f"_{name}") != "")


def _missing() -> dict[str, Column]:
    """Whether each field (or header) is absent; a text field with anything but text counts as absent."""
    from pyspark.sql import functions as F

    missing = {name: ~_present(name) for name in REQUIRED if name not in MAY_BE_NULL}
    for name in MAY_BE_NULL:
        missing[name] = F.col(f"_{name}").isNull() & ~F.array_contains("_keys", f"s{name}")  # no keys: a plain record
    missing["header source"] = F.col(HEADER_SOURCE).isNull() | (F.col(HEADER_SOURCE) == "")
    return missing


def _not_a_number(name: str) -> Column:
    """Whether a field's text is not a number or, for the price, not one that the column can hold."""
    from pyspark.sql import functions as F

    text, unread = F.col(f"_{name}"), F.col(f"_{name}").isNotNull() & F.col(name).isNull()
    if name == "price_usd":  # an empty text is a missing field
        return (unread & _present(name)) | _true(F.col(name) >= F.lit(PRICE_LIMIT))
    return unread & ~text.rlike(_NUMBER)


def _out_of_range(name: str) -> Column:
    """Whether a field other than the price is a number that its column cannot hold; the price stays."""
    from pyspark.sql import functions as F

    return F.col(f"_{name}").isNotNull() & F.col(name).isNull() & F.col(f"_{name}").rlike(_NUMBER)


def _found(reason: str) -> Column:
    """Detail of one reason, for people."""
    from pyspark.sql import functions as F

    def shown(*names: str) -> Column:
        return F.concat_ws(", ", *[F.concat(F.lit(f"{n}="), F.substring(F.col(f"_{n}"), 1, _SHOWN)) for n in names])

    def listed(flags: Mapping[str, Column], values: bool) -> Column:
        return F.concat_ws(", ", *[F.when(flag, shown(n) if values else F.lit(n)) for n, flag in flags.items()])

    arrival = F.concat(
        F.lit(", arrived "), F.coalesce(F.col("kafka_timestamp").cast("string"), F.lit("at an unknown time"))
    )
    hour = F.concat(
        F.lit(", event hour of Bronze "), F.coalesce(F.col("_bronze_hour").cast("string"), F.lit("unknown"))
    )
    what = {
        "not_utf8": F.concat(F.length("raw_bytes").cast("string"), F.lit(" bytes")),
        "not_json": F.when(F.col("raw_json").isNull(), F.lit("no value"))
        .when(F.col("_keys").isNotNull(), F.lit("a name occurs more than once"))
        .when(
            F.length("raw_json") > MOST_CHARACTERS, F.concat(F.length("raw_json").cast("string"), F.lit(" characters"))
        )
        .otherwise(F.substring("raw_json", 1, _SHOWN)),
        "unknown_schema_version": F.coalesce(F.substring(F.col("_version"), 1, _SHOWN), F.lit("absent")),
        "missing_field": listed(_missing(), values=False),
        "bad_number": listed({n: _not_a_number(n) for n in NUMERIC}, values=True),
        "non_positive_price": shown("price_usd"),
        "bad_timestamp": F.concat(shown("last_updated_at", "ingestion_timestamp"), arrival, hour),
        "clock_skew": F.concat(shown("last_updated_at"), arrival),
        "unknown_coin": F.concat(shown("coin_id"), F.lit(" was not active in the registry then")),
        "too_late": F.concat(shown("last_updated_at"), arrival),
    }[reason]
    return F.concat(F.lit(f"{reason}: "), what)
