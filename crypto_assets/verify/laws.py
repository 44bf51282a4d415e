"""The laws on tables, as SQL of the audit's own over the views that `delta` makes.

Belongs here: what must hold between tables, written a second time and differently from the code that makes them.
Does not belong here: reading Delta or Kafka (`delta`, `topic`), or any import from transforms and steps.

Every law is a query of the rows that break it; each row says by its columns what is wrong. `{t}` stands for a log
table. Times are TIMESTAMPTZ in UTC.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

LOG_TABLES = {"bronze.raw_prices": "bronze", "ops.polls": "polls"}
"""Append-once tables that mirror a topic, with the short name that their laws carry."""

PRICE_LIMIT = 10**15
CLOCK_SKEW_S = 60
EVIDENT = (
    "not_utf8", "not_json", "unknown_schema_version", "missing_field", "bad_number", "non_positive_price",
    "bad_timestamp", "clock_skew",
)  # fmt: skip
"""Reasons for quarantine that a record shows by itself; the others need the registry or the clock of its time."""


@dataclass(frozen=True)
class Law:
    """One law.

    Args:
        name: Name of the check.
        says: What holds, for people.
        tables: Tables that must exist for the law to say anything.
        checked: Query of one number: how many things were looked at.
        broken: Query of the rows that break the law.
        optional: Tables that the queries name and that may be missing; they then count as empty.
    """

    name: str
    says: str
    tables: tuple[str, ...]
    checked: str
    broken: str
    optional: tuple[str, ...] = field(default=())


def log_laws(table: str) -> list[Law]:
    """Laws of one append-once table: offsets, ranges, transactions."""
    short = LOG_TABLES[table]

    def law(name: str, says: str, checked: str, broken: str) -> Law:
        return Law(
            f"{short}_{name}", says, (table,), checked.replace("{t}", f'"{table}"'),
            broken.replace("{t}", f'"{table}"').replace("{name}", table),
        )  # fmt: skip

    return [
        law(
            "offsets_once",
            "every (topic_id, partition, offset) occurs once and lies in its own range",
            "SELECT count(*) FROM {t}",
            """
            SELECT 'doubled' AS problem, topic_id, "partition", "offset", count(*) AS times FROM {t}
            GROUP BY ALL HAVING count(*) > 1
            UNION ALL
            SELECT 'outside of its range', topic_id, "partition", "offset", 1 FROM {t}
            WHERE ("offset" >= range_start AND "offset" < range_end) IS NOT TRUE
            """,
        ),
        law(
            "ranges_contiguous",
            "the ranges of a partition follow one another without hole or overlap, hours in order, one batch per seq",
            "SELECT count(*) FROM (SELECT DISTINCT topic_id, \"partition\", range_start, range_end FROM {t})",
            """
            WITH ranges AS (
                SELECT DISTINCT topic_id, "partition", range_start, range_end, arrival_hour, seq FROM {t}
            ), chained AS (
                SELECT *, lag(range_end) OVER w AS previous_end, lag(arrival_hour) OVER w AS previous_hour,
                       lag(seq) OVER w AS previous_seq
                FROM ranges WINDOW w AS (PARTITION BY topic_id, "partition" ORDER BY range_start, range_end, seq)
            )
            SELECT CASE WHEN range_start > previous_end THEN 'hole' ELSE 'overlap' END AS problem, topic_id,
                   "partition", previous_end, range_start, arrival_hour
            FROM chained WHERE range_start <> previous_end
            UNION ALL
            SELECT 'hours out of order', topic_id, "partition", previous_end, range_start, arrival_hour
            FROM chained WHERE previous_hour > arrival_hour OR (previous_hour = arrival_hour AND previous_seq >= seq)
            UNION ALL
            SELECT 'seq of several batches', topic_id, NULL, seq, count(DISTINCT batch_id), arrival_hour
            FROM {t} GROUP BY topic_id, arrival_hour, seq HAVING count(DISTINCT batch_id) > 1
            UNION ALL
            SELECT 'batch of several seqs', topic_id, NULL, min(seq), max(seq), min(arrival_hour)
            FROM {t} GROUP BY topic_id, batch_id HAVING min(seq) <> max(seq) OR min(arrival_hour) <> max(arrival_hour)
            """,
        ),
        law(
            "transactions_agree",
            "the app transaction recorded for a topic and hour is the highest seq of its rows",
            "SELECT count(*) FROM (SELECT DISTINCT topic_id, arrival_hour FROM {t})",
            """
            WITH stored AS (SELECT topic_id, arrival_hour, max(seq) AS seq FROM {t} GROUP BY ALL),
            recorded AS (SELECT topic_id, arrival_hour, app_id, version FROM audit_transactions
                         WHERE table_name = '{name}')
            SELECT CASE WHEN app_id IS NULL THEN 'rows without transaction'
                        WHEN stored.seq IS NULL THEN 'transaction without rows' ELSE 'they differ' END AS problem,
                   coalesce(app_id, topic_id || ' ' || arrival_hour::VARCHAR) AS app_id,
                   recorded.version AS recorded_version, stored.seq AS highest_seq
            FROM stored FULL JOIN recorded USING (topic_id, arrival_hour)
            WHERE recorded.version IS DISTINCT FROM stored.seq
              AND NOT (stored.seq IS NULL AND arrival_hour < (SELECT bronze_from FROM audit_clock))
            """,
        ),
    ]  # fmt: skip


def topic_law(table: str) -> Law:
    """Every retained record of the topic is stored once and unchanged, and nothing else is stored.

    A record at or after a partition's stored end is pending rather than missing, unless its time lies before the
    newest stored hour: that hour's commit covered all partitions.
    """
    short = LOG_TABLES[table]
    return Law(
        f"{short}_holds_the_topic",
        "every retained record of the topic is stored once, with its value and time; nothing else is stored",
        (table,),
        f"SELECT count(*) FROM topic_{short}",
        f"""
        WITH stored AS (
            SELECT "partition", "offset", any_value(kafka_timestamp) AS stamped,
                   any_value(coalesce(md5(raw_json), md5(raw_bytes))) AS digest
            FROM "{table}" WHERE kind = 'record' AND topic_id = (SELECT topic_id FROM topic_{short}_id)
            GROUP BY "partition", "offset"
        ), ends AS (
            SELECT "partition", max(range_end) AS stored_end FROM "{table}"
            WHERE topic_id = (SELECT topic_id FROM topic_{short}_id) GROUP BY "partition"
        ), newest AS (
            SELECT max(arrival_hour) AS hour FROM "{table}" WHERE topic_id = (SELECT topic_id FROM topic_{short}_id)
        )
        SELECT 'not stored' AS problem, t."partition", t."offset", t.stamped
        FROM topic_{short} t ANTI JOIN stored USING ("partition", "offset")
        LEFT JOIN ends e ON t."partition" = e."partition"
        WHERE t."offset" < coalesce(e.stored_end, 0) OR t.stamped < (SELECT hour FROM newest)
        UNION ALL
        SELECT 'not in the topic', s."partition", s."offset", s.stamped
        FROM stored s JOIN topic_{short}_bounds b ON s."partition" = b."partition" AND s."offset" >= b.low
        WHERE s."offset" >= b.high
           OR NOT EXISTS (FROM topic_{short} t WHERE t."partition" = s."partition" AND t."offset" = s."offset")
        UNION ALL
        SELECT 'stored otherwise', "partition", "offset", t.stamped
        FROM topic_{short} t JOIN stored s USING ("partition", "offset")
        WHERE t.digest IS DISTINCT FROM s.digest OR t.stamped IS DISTINCT FROM s.stamped
        """,
    )


_PLAIN = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_TIME = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$"
_MONEY = "DECIMAL(38,18)"
_NUMBERS = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")
_NEEDED = ("coin_id", "symbol", "price_usd", "last_updated_at", "ingestion_timestamp")
_PRESENT = ("market_cap_usd", "volume_24h_usd", "change_24h_pct", "change_7d_pct")


def _number(name: str) -> str:
    return f"CASE WHEN regexp_matches({name}_text, '{_PLAIN}') THEN try_cast({name}_text AS {_MONEY}) END AS {name}"


def _time(name: str) -> str:
    text = f"{name}_text"
    return f"CASE WHEN regexp_matches({text}, '{_TIME}') THEN try_cast(upper({text}) AS TIMESTAMPTZ) END AS {name}"


def _texts() -> str:
    names = dict.fromkeys((*_NEEDED, *_NUMBERS))
    return ", ".join(f"json ->> '$.{n}' AS {n}_text" for n in names)


def _well_formed() -> str:
    """Condition that a parsed record is what the message contract asks for, as far as it shows by itself."""
    conditions = [
        "json IS NOT NULL",
        "version = '1'",
        "coalesce(source, '') <> ''",
        *(f"coalesce({n}_text, '') <> ''" for n in _NEEDED),
        "json_type(json, '$.symbol') NOT IN ('OBJECT', 'ARRAY')",
        *(f"list_contains(json_keys(json), '{n}')" for n in _PRESENT),
        *(f"({n}_text IS NULL OR {n} IS NOT NULL)" for n in _NUMBERS),
        f"price_usd > 0 AND price_usd < {PRICE_LIMIT}",
        "last_updated_at IS NOT NULL AND ingestion_timestamp IS NOT NULL AND kafka_timestamp IS NOT NULL",
        f"last_updated_at <= kafka_timestamp + INTERVAL {CLOCK_SKEW_S} SECONDS",
        "event_hour IS NOT DISTINCT FROM date_trunc('hour', last_updated_at)",
    ]
    return " AND ".join(f"({c})" for c in conditions)


PARSED_RECORDS = f"""
CREATE OR REPLACE TABLE audit_records AS
WITH raw AS (
    SELECT topic_id, "partition", "offset", kafka_timestamp, arrival_hour, event_hour, headers,
           CASE WHEN json_valid(raw_json) AND json_type(raw_json) = 'OBJECT'
                 AND len(json_keys(raw_json)) = len(list_distinct(json_keys(raw_json))) THEN raw_json::JSON END AS json
    FROM "bronze.raw_prices" WHERE kind = 'record'
), texts AS (
    SELECT *, {_texts()},
           headers ->> '$.schema_version' AS version, headers ->> '$.source' AS source,
           headers ->> '$.poll_id' AS poll_id, headers ->> '$.cadence_s' AS cadence_text,
           CASE WHEN json_type(json, '$.name') NOT IN ('OBJECT', 'ARRAY') THEN json ->> '$.name' END AS name
    FROM raw
), typed AS (
    SELECT * EXCLUDE (headers), {", ".join(_number(n) for n in _NUMBERS)},
           {_time("last_updated_at")}, {_time("ingestion_timestamp")},
           CASE WHEN try_cast(cadence_text AS DOUBLE) > 0 THEN try_cast(cadence_text AS DOUBLE) END AS cadence_s
    FROM texts
)
SELECT t.topic_id, t."partition", t."offset", t.kafka_timestamp, t.arrival_hour,
       coalesce(a.coin_id, t.coin_id_text) AS coin_id, upper(t.symbol_text) AS symbol, t.name, t.last_updated_at,
       {", ".join(f"t.{n}" for n in _NUMBERS)}, t.ingestion_timestamp, t.source, t.cadence_s, t.poll_id,
       coalesce({_well_formed()}, false) AS well_formed,
       q."offset" IS NOT NULL AS quarantined,
       date_trunc('hour', t.last_updated_at) IN (FROM audit_excluded) AS excluded
FROM typed t
LEFT JOIN audit_aliases a ON a.old_id = t.coin_id_text AND t.last_updated_at < a.until
LEFT JOIN (SELECT DISTINCT topic_id, "partition", "offset" FROM "silver.quarantine") q
       ON q.topic_id = t.topic_id AND q."partition" = t."partition" AND q."offset" = t."offset"
"""
"""Bronze parsed again, by other means than Silver: one row a record, with whether it can be a quote."""

_LIVE = """(SELECT * FROM "silver.prices" WHERE granularity = 'tick')"""
_SILVER_VALUES = ("symbol", "name", *_NUMBERS, "ingestion_timestamp", "source", "cadence_s", "poll_id")


def silver_laws() -> list[Law]:
    """Bronze, Silver and the quarantine against each other. They query `audit_records`."""
    return [*_accounting_laws(), *_silver_row_laws()]


def _accounting_laws() -> list[Law]:
    return [
        Law(
            "bronze_is_valid_plus_quarantined",
            "every record of an arrival hour is either a quote that Silver has, or in quarantine, never both",
            ("bronze.raw_prices",),
            "SELECT count(*) FROM audit_records",
            f"""
            SELECT CASE WHEN r.quarantined THEN 'in quarantine and in Silver'
                        WHEN NOT r.well_formed THEN 'no quote, and not in quarantine'
                        ELSE 'its quote is not in Silver, and it is not in quarantine' END AS problem,
                   r.arrival_hour, r.topic_id, r."partition", r."offset", r.coin_id, r.last_updated_at
            FROM audit_records r
            LEFT JOIN (SELECT DISTINCT coin_id, last_updated_at FROM {_LIVE}) k
                   ON k.coin_id = r.coin_id AND k.last_updated_at = r.last_updated_at
            LEFT JOIN (SELECT DISTINCT topic_id, "partition", "offset" FROM {_LIVE}) o
                   ON o.topic_id = r.topic_id AND o."partition" = r."partition" AND o."offset" = r."offset"
            WHERE NOT coalesce(r.excluded, false)
              AND CASE WHEN r.quarantined THEN o."offset" IS NOT NULL
                       ELSE NOT r.well_formed OR k.coin_id IS NULL END
            """,
            ("silver.prices", "silver.quarantine"),
        ),
        Law(
            "quarantine_is_deserved",
            "every quarantined record is in Bronze once, in its arrival hour, and shows the fault it is accused of",
            ("silver.quarantine", "bronze.raw_prices"),
            'SELECT count(*) FROM "silver.quarantine"',
            f"""
            SELECT CASE WHEN r."offset" IS NULL THEN 'not in Bronze' WHEN q.hour <> r.arrival_hour THEN 'another hour'
                        ELSE 'shows none of its faults' END AS problem,
                   q.topic_id, q."partition", q."offset", q.hour, q.reasons
            FROM "silver.quarantine" q
            LEFT JOIN audit_records r
                   ON q.topic_id = r.topic_id AND q."partition" = r."partition" AND q."offset" = r."offset"
            WHERE CASE WHEN r."offset" IS NULL THEN {_retained('q')} ELSE q.hour <> r.arrival_hour
                       OR (r.well_formed AND list_has_all({list(EVIDENT)}, q.reasons)) END
            UNION ALL
            SELECT 'quarantined twice', topic_id, "partition", "offset", min(hour), any_value(reasons)
            FROM "silver.quarantine" GROUP BY topic_id, "partition", "offset" HAVING count(*) > 1
            """,
        ),
    ]  # fmt: skip


def _silver_row_laws() -> list[Law]:
    same = " || ".join(f"CASE WHEN s.{n} IS DISTINCT FROM r.{n} THEN ' {n}' ELSE '' END" for n in _SILVER_VALUES)
    return [
        Law(
            "silver_is_the_distinct_quotes",
            "Silver's live rows are the first record of every distinct (coin_id, last_updated_at), value by value",
            ("bronze.raw_prices", "silver.prices"),
            f"SELECT count(*) FROM {_LIVE}",
            f"""
            WITH valid AS (
                SELECT * FROM audit_records WHERE well_formed AND NOT quarantined AND NOT coalesce(excluded, false)
            ),
            firsts AS (SELECT coin_id, last_updated_at, min(kafka_timestamp) AS first_at FROM valid GROUP BY ALL),
            live AS (SELECT * FROM {_LIVE} WHERE hour NOT IN (FROM audit_excluded)),
            matched AS (
                SELECT s.coin_id, s.last_updated_at, s."partition", s."offset",
                       trim({same}
                         || CASE WHEN s.coin_id IS DISTINCT FROM r.coin_id THEN ' coin_id' ELSE '' END
                         || CASE WHEN s.last_updated_at <> r.last_updated_at THEN ' last_updated_at' ELSE '' END
                         || CASE WHEN s.available_at IS DISTINCT FROM f.first_at THEN ' available_at' ELSE '' END
                         || CASE WHEN s.available_at <> r.kafka_timestamp THEN ' source_record' ELSE '' END
                         || CASE WHEN s.hour <> date_trunc('hour', s.last_updated_at) THEN ' hour' ELSE '' END
                         || CASE WHEN s.day <> s.hour::DATE THEN ' day' ELSE '' END) AS differs
                FROM live s JOIN valid r
                  ON s.topic_id = r.topic_id AND s."partition" = r."partition" AND s."offset" = r."offset"
                LEFT JOIN firsts f ON f.coin_id = r.coin_id AND f.last_updated_at = r.last_updated_at
            )
            SELECT 'missing' AS problem, f.coin_id, f.last_updated_at, NULL::INTEGER AS "partition",
                   NULL::BIGINT AS "offset", '' AS columns
            FROM firsts f ANTI JOIN live s ON s.coin_id = f.coin_id AND s.last_updated_at = f.last_updated_at
            WHERE f.last_updated_at >= (SELECT silver_from FROM audit_clock)
            UNION ALL
            SELECT 'from no valid record', s.coin_id, s.last_updated_at, s."partition", s."offset", ''
            FROM live s ANTI JOIN valid r
              ON s.topic_id = r.topic_id AND s."partition" = r."partition" AND s."offset" = r."offset"
            WHERE {_retained('s')}
            UNION ALL
            SELECT 'doubled', coin_id, last_updated_at, min("partition"), min("offset"), ''
            FROM "silver.prices" GROUP BY coin_id, last_updated_at HAVING count(*) > 1
            UNION ALL
            SELECT 'differs', coin_id, last_updated_at, "partition", "offset", differs FROM matched WHERE differs <> ''
            """,
        ),
        Law(
            "silver_history_is_grounded",
            "Silver's history rows are points of stored replies, in 5-minute slots without a live sample",
            ("silver.prices",),
            "SELECT count(*) FROM \"silver.prices\" WHERE granularity <> 'tick'",
            """
            WITH points AS (
                SELECT coin_id, granularity, fetched_at,
                       make_timestamptz(((p ->> 0)::DOUBLE)::BIGINT * 1000) AS made_at, (p ->> 1)::DOUBLE AS price
                FROM (SELECT coin_id, granularity, fetched_at,
                             unnest(from_json(raw_json::JSON -> '$.prices', '["JSON"]')) AS p
                      FROM "bronze.market_history")
            ), history AS (
                SELECT * FROM "silver.prices" WHERE granularity <> 'tick' AND hour NOT IN (FROM audit_excluded)
            )
            SELECT 'no such point' AS problem, h.coin_id, h.last_updated_at, h.price_usd
            FROM history h ANTI JOIN points p
              ON p.coin_id = h.coin_id AND p.made_at = h.last_updated_at AND p.granularity = h.granularity
                 AND p.fetched_at = h.available_at AND abs(p.price - h.price_usd::DOUBLE) <= 1e-12 * p.price
            UNION ALL
            SELECT 'slot has a live sample', h.coin_id, h.last_updated_at, h.price_usd
            FROM history h SEMI JOIN (SELECT coin_id, time_bucket(INTERVAL 5 MINUTES, last_updated_at) AS slot
                                      FROM "silver.prices" WHERE granularity = 'tick') l
              ON l.coin_id = h.coin_id AND l.slot = time_bucket(INTERVAL 5 MINUTES, h.last_updated_at)
            """,
            ("bronze.market_history",),
        ),
    ]  # fmt: skip


def _retained(alias: str) -> str:
    """Condition that Bronze still holds the range in which a row's record was read (or should have been)."""
    return (
        f'{alias}."offset" >= coalesce((SELECT min(range_start) FROM "bronze.raw_prices" b '
        f'WHERE b.topic_id = {alias}.topic_id AND b."partition" = {alias}."partition"), 0)'
    )


BAR_SECONDS = {"1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}
BAR_WIDTHS = {"1m": "1 MINUTE", "5m": "5 MINUTES", "1h": "1 HOUR", "1d": "1 DAY"}
FEEDS = {"1m": ("tick", "5m"), "5m": ("tick", "5m"), "1h": ("tick", "5m", "1h"), "1d": ("tick", "5m", "1h", "1d")}
"""Granularities of Silver rows that enter each bar table: coarser points say nothing about finer windows."""

_UNCOVERED = "b.window_end + INTERVAL 60 SECONDS > (SELECT covered_until FROM audit_clock)"


def bars_law(width: str) -> Law:
    """Stored bars equal bars recomputed from Silver: exact for decimals and counts, 1e-9 relative for doubles.

    Windows older than Silver's retention cannot be recomputed and are left out. An hour of Silver without any bar is
    missing its bars; a day is judged only once it has bars, since the running day has none. What a bar says of its
    completeness is judged by its own `is_closed`; that may lag behind what Bronze covers, but never run ahead of it.
    """
    table = f'"gold.bars_{width}"'
    exact = ("open", "high", "low", "close", "volume_24h_usd", "market_cap_usd", "sample_count", "first_event_at",
             "last_event_at", "available_at", "granularity")  # fmt: skip
    seconds = BAR_SECONDS[width]
    expected = f"CASE WHEN r.granularity = 'tick' THEN greatest(round({seconds} / r.cadence_s), 1)::BIGINT END"
    enough = f"r.granularity <> 'tick' OR coalesce(r.sample_count >= 0.8 * {expected}, false)"
    differs = " || ".join(
        [
            *(f"CASE WHEN b.{_q(n)} IS DISTINCT FROM r.{_q(n)} THEN ' {n}' ELSE '' END" for n in exact),
            *(f"CASE WHEN {_far(n)} THEN ' {n}' ELSE '' END" for n in ("price_avg", "price_vol", "range")),
            "CASE WHEN NOT list_contains(r.symbols, b.symbol) THEN ' symbol' ELSE '' END",
            f"CASE WHEN b.window_end <> b.window_start + INTERVAL {BAR_WIDTHS[width]} THEN ' window_end' ELSE '' END",
            f"CASE WHEN b.expected_count IS DISTINCT FROM {expected} THEN ' expected_count' ELSE '' END",
            f"CASE WHEN b.is_complete IS DISTINCT FROM (b.is_closed AND ({enough})) THEN ' is_complete' ELSE '' END",
            f"CASE WHEN b.is_closed AND {_UNCOVERED} THEN ' is_closed' ELSE '' END",
        ]
    )
    built = "b.window_start IS NOT NULL" if width == "1d" else "true"
    return Law(
        f"bars_{width}_are_silver_recomputed",
        f"gold.bars_{width} equals the bars that Silver gives",
        (f"gold.bars_{width}", "silver.prices"),
        f"SELECT count(*) FROM {table}",
        f"""
        WITH samples AS (
            SELECT *, time_bucket(INTERVAL {BAR_WIDTHS[width]}, last_updated_at) AS window_start,
                   price_usd::DOUBLE AS price
            FROM "silver.prices" WHERE granularity IN {FEEDS[width]} AND hour NOT IN (FROM audit_excluded)
        ), recomputed AS (
            SELECT coin_id, window_start, arg_min(price_usd, last_updated_at) AS "open", max(price_usd) AS high,
                   min(price_usd) AS low, arg_max(price_usd, last_updated_at) AS "close", avg(price) AS price_avg,
                   stddev_samp(price) AS price_vol,
                   CASE WHEN count(*) > 1 THEN max(price_usd)::DOUBLE / min(price_usd)::DOUBLE - 1 END AS "range",
                   arg_max_null(volume_24h_usd, last_updated_at) AS volume_24h_usd,
                   arg_max_null(market_cap_usd, last_updated_at) AS market_cap_usd, count(*) AS sample_count,
                   arg_max_null(cadence_s, last_updated_at) AS cadence_s,
                   min(last_updated_at) AS first_event_at, max(last_updated_at) AS last_event_at,
                   max(available_at) AS available_at, list(DISTINCT symbol) AS symbols,
                   arg_max(granularity, list_position(['tick', '5m', '1h', '1d'], granularity)) AS granularity
            FROM samples GROUP BY coin_id, window_start
        ), stored AS (
            SELECT * FROM {table}
            WHERE window_start >= (SELECT silver_from FROM audit_clock)
              AND window_start NOT IN (SELECT time_bucket(INTERVAL {BAR_WIDTHS[width]}, hour) FROM audit_excluded)
              AND date_trunc('hour', window_start) NOT IN (FROM audit_excluded)
        ), days AS (SELECT DISTINCT window_start FROM stored)
        SELECT CASE WHEN b.coin_id IS NULL THEN 'missing' WHEN r.coin_id IS NULL THEN 'Silver has no sample'
                    ELSE 'differs' END AS problem,
               coalesce(b.coin_id, r.coin_id) AS coin_id, coalesce(b.window_start, r.window_start) AS window_start,
               CASE WHEN b.coin_id IS NULL OR r.coin_id IS NULL THEN '' ELSE trim({differs}) END AS columns
        FROM stored b FULL JOIN recomputed r ON b.coin_id = r.coin_id AND b.window_start = r.window_start
        WHERE (b.coin_id IS NULL AND {"r.window_start IN (FROM days)" if width == "1d" else built}
               AND r.window_start NOT IN (SELECT time_bucket(INTERVAL {BAR_WIDTHS[width]}, hour) FROM audit_excluded)
               AND r.window_start >= (SELECT silver_from FROM audit_clock))
           OR (b.coin_id IS NOT NULL AND (r.coin_id IS NULL OR {differs} <> ''))
        UNION ALL
        SELECT 'doubled', coin_id, window_start, '' FROM {table} GROUP BY coin_id, window_start HAVING count(*) > 1
        """,
    )


def model_laws() -> list[Law]:
    """Anomalies and predictions refer to features that exist and to versions that could not have seen the slot."""
    return [
        Law(
            "anomalies_refer_rightly",
            "every anomaly has its features, and a promoted version with cut-off and start of service before its slot",
            ("gold.anomalies",),
            'SELECT count(*) FROM "gold.anomalies"',
            _references('"gold.anomalies"', "a.window_start", "'anomaly'"),
            ("features.price_features", "ml.promotions"),
        ),
        Law(
            "predictions_refer_rightly",
            "every forecast has its features, and a promoted version with cut-off and start of service before its slot",
            ("gold.price_predictions",),
            'SELECT count(*) FROM "gold.price_predictions"',
            _references(
                '"gold.price_predictions"', "a.window_end - INTERVAL 5 MINUTES", "'price_' || a.horizon", ["a.horizon"]
            ),
            ("features.price_features", "ml.promotions"),
        ),
    ]


def _references(table: str, slot: str, model: str, also: Sequence[str] = ()) -> str:
    shown = ", ".join(["a.coin_id", "a.window_end", *also, "a.model_version"])
    return f"""
    SELECT CASE WHEN f.coin_id IS NULL THEN 'no features'
                WHEN p.version IS NULL THEN 'unknown version'
                WHEN p.decision <> 'promoted' THEN 'version was not promoted'
                WHEN p.cutoff > {slot} THEN 'cut-off after the slot'
                ELSE 'version not yet in service' END AS problem, {shown}, p.cutoff, p.effective_from
    FROM {table} a
    LEFT JOIN (SELECT DISTINCT coin_id, window_end FROM "features.price_features") f
           ON f.coin_id = a.coin_id AND f.window_end = a.window_end
    LEFT JOIN "ml.promotions" p ON p.version = a.model_version AND p.model = {model}
    WHERE f.coin_id IS NULL
       OR (p.version IS NULL AND a.model_version <> 'v0')
       OR p.decision <> 'promoted' OR p.cutoff > {slot} OR p.effective_from > {slot}
    """


def _q(name: str) -> str:
    return '"' + name + '"'


def _far(name: str) -> str:
    """Condition that two doubles differ by more than rounding.

    The sample deviation of nearly equal prices loses digits to cancellation, hence the second term.
    """
    left, right = f"b.{_q(name)}", f"r.{_q(name)}"
    floor = "1e-15" if name == "range" else "1e-12 * r.price_avg"
    return f"({left} IS NULL) <> ({right} IS NULL) OR abs({left} - {right}) > 1e-9 * abs({right}) + {floor}"
