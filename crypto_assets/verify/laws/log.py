"""Laws on the append-once tables: offsets, ranges, transactions, and the topic that they mirror.

`{t}` stands for the table.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import LOG_TABLES, Law
from crypto_assets.verify.laws.records import CLOCK_SKEW_S

COVERED_UNTIL = (
    'SELECT max(kafka_timestamp) FROM "bronze.raw_prices" '  # stored before it arrived = stamped by a clock ahead
    f"WHERE kafka_timestamp <= bronze_ingested_at + INTERVAL {CLOCK_SKEW_S} SECONDS"
)
"""Query of the highest broker time that Bronze covers."""

_MIRRORED = (
    "topic", "partition", "offset", "kafka_timestamp", "message_key", "raw_json", "raw_bytes", "headers", "kind",
)  # fmt: skip


def log_laws(table: str) -> list[Law]:
    """Laws of one append-once table: offsets, ranges, transactions."""
    short = LOG_TABLES[table]

    def law(name: str, statement: str, checked: str, broken: str, columns: tuple[str, ...], recomputed: str) -> Law:
        return Law(
            f"{short}_{name}", statement, (table,), broken.replace("{t}", f'"{table}"').replace("{name}", table),
            checked=checked.replace("{t}", f'"{table}"'), covers={table: columns}, recomputed=recomputed,
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
            ("topic_id", "partition", "offset"),
            "its own ranges",
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
            FROM chained WHERE previous_hour > arrival_hour OR (previous_hour = arrival_hour AND previous_seq > seq)
            UNION ALL
            SELECT 'seq of several batches', topic_id, NULL, seq, count(DISTINCT batch_id), arrival_hour
            FROM {t} GROUP BY topic_id, arrival_hour, seq HAVING count(DISTINCT batch_id) > 1
            UNION ALL
            SELECT 'batch of several seqs', topic_id, NULL, min(seq), max(seq), min(arrival_hour)
            FROM {t} GROUP BY topic_id, batch_id HAVING min(seq) <> max(seq) OR min(arrival_hour) <> max(arrival_hour)
            """,
            ("topic_id", "arrival_hour", "range_start", "range_end", "seq"),
            "its neighbours' ranges",
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
            ("topic_id", "arrival_hour", "seq"),
            "transactions of the Delta log",
        ),
    ]  # fmt: skip


def _of_topic(table: str) -> str:
    """CTEs of the rows that mirror the topic: `mine` of all its incarnations, `live`, and each partition's `ends`.

    A log that was cut and adopted has incarnations `<topic id>~2`, `~3`. Each begins at the first offset at which the
    log differs; later rows of an earlier one belong to the log before it was cut.
    """
    short = LOG_TABLES[table]
    return f"""
        mine AS (
            SELECT *, coalesce(TRY_CAST(split_part(topic_id, '~', 2) AS INTEGER), 1) AS generation FROM "{table}"
            WHERE split_part(topic_id, '~', 1) = (SELECT topic_id FROM topic_{short}_id)
        ), begun AS (
            SELECT "partition", generation, min(range_start) AS first FROM mine WHERE generation > 1 GROUP BY ALL
            UNION ALL
            SELECT "partition", generation, first FROM audit_adopted
            WHERE topic_id = (SELECT topic_id FROM topic_{short}_id)
        ), live AS (
            SELECT * FROM mine m WHERE NOT EXISTS (
                FROM begun b
                WHERE b."partition" = m."partition" AND b.generation > m.generation AND m."offset" >= b.first
            )
        ), ends AS (
            SELECT "partition", max(range_end) AS stored_end FROM live GROUP BY "partition"
        )
    """


def _lacking(table: str) -> str:
    """CTE `lacking`: retained records that are not stored, and whether they should be.

    A record at or after a partition's stored end is pending: the next refresh stores it. It should be stored if its
    time lies before the newest stored hour, whose commit covered all partitions, or ahead of the clock: then its
    arrival is unknown, and it may hide what follows it.
    """
    short = LOG_TABLES[table]
    return f"""
        stored AS (
            SELECT "partition", "offset", any_value(kafka_timestamp) AS stamped,
                   any_value(coalesce(md5(raw_json), md5(raw_bytes))) AS digest, any_value(message_key) AS message_key,
                   any_value(headers) AS headers, any_value(topic) AS topic
            FROM live WHERE kind = 'record' GROUP BY "partition", "offset"
        ), lacking AS (
            SELECT t."partition", t."offset", t.stamped,
                   t."offset" < coalesce(e.stored_end, 0) OR t.stamped < (SELECT max(arrival_hour) FROM mine) AS passed,
                   t.stamped > now.asked_at + INTERVAL {CLOCK_SKEW_S} SECONDS AS ahead
            FROM topic_{short} t ANTI JOIN stored USING ("partition", "offset")
            LEFT JOIN ends e ON t."partition" = e."partition" CROSS JOIN (SELECT asked_at FROM audit_clock) now
        )
    """


def pending_query(table: str) -> str:
    """Query of the number of retained records that wait for the next refresh, and the oldest one's time."""
    return (
        f"WITH {_of_topic(table)}, {_lacking(table)} "
        "SELECT count(*), min(stamped) FROM lacking WHERE NOT (passed OR ahead)"
    )


def topic_law(table: str) -> Law:
    """Law: every retained record of the topic is stored once and unchanged, and nothing else is; see `_lacking`."""
    short = LOG_TABLES[table]
    return Law(
        f"{short}_holds_the_topic",
        "every retained record of the topic is stored once, with key, value, headers and time; nothing else is stored",
        (table,),
        f"""
        WITH {_of_topic(table)}, {_lacking(table)}
        SELECT CASE WHEN passed THEN 'not stored' ELSE 'not stored, and stamped ahead of the clock' END AS problem,
               "partition", "offset", stamped
        FROM lacking WHERE passed OR ahead
        UNION ALL
        SELECT 'not in the topic', s."partition", s."offset", s.stamped
        FROM stored s JOIN topic_{short}_bounds b ON s."partition" = b."partition" AND s."offset" >= b.low
        WHERE s."offset" >= b.high
           OR NOT EXISTS (FROM topic_{short} t WHERE t."partition" = s."partition" AND t."offset" = s."offset")
        UNION ALL
        SELECT 'stored otherwise', "partition", "offset", t.stamped
        FROM topic_{short} t JOIN stored s USING ("partition", "offset")
        WHERE t.digest IS DISTINCT FROM s.digest OR t.stamped IS DISTINCT FROM s.stamped
           OR t.message_key IS DISTINCT FROM s.message_key OR t.headers IS DISTINCT FROM s.headers
           OR s.topic IS DISTINCT FROM (SELECT topic FROM topic_{short}_id)
        """,
        checked=f"SELECT count(*) FROM topic_{short}",
        covers={table: _MIRRORED},
        recomputed="records read from the topic again",
    )
