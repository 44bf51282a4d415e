"""Laws on Silver and the quarantine against Bronze. They query `audit_records` (`laws.records`)."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Law, differing, unequal
from crypto_assets.verify.laws.records import EVIDENT, NUMBERS

_LIVE = """(SELECT * FROM "silver.prices" WHERE granularity = 'tick')"""
_SILVER_VALUES = ("symbol", "name", *NUMBERS, "ingestion_timestamp", "source", "cadence_s", "poll_id")
_COPIED = ("topic", "kafka_timestamp", "message_key", "raw_json", "raw_bytes", "headers")
RESTATABLE_DAYS = 89
"""Maximum delay of an event behind its arrival, in hours: Bronze's 90 days less one."""


def silver_laws() -> list[Law]:
    """Laws on Bronze, Silver and the quarantine against each other; they use `audit_records`."""
    return [*_accounting_laws(), _accusations_law(), _copies_law(), _quotes_law(), _history_law()]


def _accounting_laws() -> list[Law]:
    return [
        Law(
            "bronze_is_valid_plus_quarantined",
            "every record of an arrival hour is either a quote that Silver has, or in quarantine, never both",
            ("bronze.raw_prices",),
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
            WHERE CASE WHEN r.quarantined THEN o."offset" IS NOT NULL ELSE NOT r.well_formed OR k.coin_id IS NULL END
            """,
            checked="SELECT count(*) FROM audit_records",
            covers={
                "bronze.raw_prices": ("event_hour",),
                "silver.prices": ("coin_id", "last_updated_at"),
                "silver.quarantine": ("topic_id", "partition", "offset"),
            },
            recomputed="Bronze parsed again",
        ),
        Law(
            "quarantine_is_deserved",
            "every quarantined record is in Bronze once, in its arrival hour, and shows the fault it is accused of",
            ("silver.quarantine", "bronze.raw_prices"),
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
            covers={"silver.quarantine": ("topic_id", "partition", "offset", "hour", "reasons")},
            recomputed="Bronze parsed again",
        ),
    ]  # fmt: skip


def _accusations_law() -> Law:
    """Law on reasons not visible in the record itself, judged by the registry and the hour of arrival."""
    active = (
        "(c.active_from IS NULL OR coalesce(r.last_updated_at, r.kafka_timestamp) >= c.active_from) AND "
        "(c.active_to IS NULL OR coalesce(r.last_updated_at, r.kafka_timestamp) < c.active_to)"
    )
    return Law(
        "quarantine_accuses_rightly",
        "a record is called unknown_coin only where the registry had no such coin, too_late only where it was late",
        ("silver.quarantine", "bronze.raw_prices"),
        f"""
        WITH accused AS (
            SELECT q.reasons, r.* FROM "silver.quarantine" q JOIN audit_records r
              ON q.topic_id = r.topic_id AND q."partition" = r."partition" AND q."offset" = r."offset"
        )
        SELECT 'the coin was active' AS problem, topic_id, "partition", "offset", arrival_hour, r.coin_id
        FROM accused r JOIN audit_coins c ON c.coin_id = r.coin_id AND {active}
        WHERE list_contains(reasons, 'unknown_coin')
        UNION ALL
        SELECT 'it was not late', topic_id, "partition", "offset", arrival_hour, coin_id FROM accused
        WHERE list_contains(reasons, 'too_late')
          AND date_trunc('hour', last_updated_at) >= arrival_hour - INTERVAL {RESTATABLE_DAYS * 24} HOURS
          AND last_updated_at >= coalesce((SELECT partitions_start FROM audit_clock)::TIMESTAMPTZ, last_updated_at)
          AND (SELECT partitions_start FROM audit_clock) IS NOT NULL
        """,
        covers={"silver.quarantine": ("reasons",)},
        recomputed="the coin registry",
    )


def _copies_law() -> Law:
    pairs = unequal(_COPIED, "q", "b") | {
        "day": "q.day <> q.hour::DATE",
        "coin_id": "q.coin_id IS DISTINCT FROM r.coin_id AND r.coin_id <> ''",
    }
    differs = differing(pairs)
    return Law(
        "quarantine_keeps_the_record",
        "a quarantined record is kept as Bronze holds it, under the coin that it names",
        ("silver.quarantine", "bronze.raw_prices"),
        f"""
        SELECT 'differs' AS problem, q.topic_id, q."partition", q."offset", trim({differs}) AS columns
        FROM "silver.quarantine" q JOIN "bronze.raw_prices" b
          ON q.topic_id = b.topic_id AND q."partition" = b."partition" AND q."offset" = b."offset"
        LEFT JOIN audit_records r
          ON q.topic_id = r.topic_id AND q."partition" = r."partition" AND q."offset" = r."offset"
        WHERE {differs} <> ''
        """,
        covers={"silver.quarantine": tuple(pairs)},
        recomputed="bronze.raw_prices",
    )


def _quotes_law() -> Law:
    pairs = unequal((*_SILVER_VALUES, "coin_id"), "s") | {
        "last_updated_at": "s.last_updated_at <> r.last_updated_at",
        "available_at": "s.available_at IS DISTINCT FROM f.first_at",
        "source_record": "s.available_at <> r.kafka_timestamp",
        "hour": "s.hour <> date_trunc('hour', s.last_updated_at)",
        "day": "s.day <> s.hour::DATE",
    }
    return Law(
        "silver_is_the_distinct_quotes",
        "Silver's live rows are the first record of every distinct (coin_id, last_updated_at), value by value",
        ("bronze.raw_prices", "silver.prices"),
        f"""
        WITH valid AS (SELECT * FROM audit_records WHERE well_formed AND NOT quarantined),
        firsts AS (SELECT coin_id, last_updated_at, min(kafka_timestamp) AS first_at FROM valid GROUP BY ALL),
        live AS {_LIVE},
        matched AS (
            SELECT s.coin_id, s.last_updated_at, s."partition", s."offset", trim({differing(pairs)}) AS differs
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
        WHERE {_retained("s")}
        UNION ALL
        SELECT 'doubled', coin_id, last_updated_at, min("partition"), min("offset"), ''
        FROM "silver.prices" GROUP BY coin_id, last_updated_at HAVING count(*) > 1
        UNION ALL
        SELECT 'differs', coin_id, last_updated_at, "partition", "offset", differs FROM matched WHERE differs <> ''
        """,
        checked=f"SELECT count(*) FROM {_LIVE}",
        covers={
            "silver.prices": (
                *(n for n in pairs if n != "source_record"),
                "granularity",
                "topic_id",
                "partition",
                "offset",
            )
        },
        recomputed="Bronze parsed again",
    )


def _history_law() -> Law:
    return Law(
        "silver_history_is_grounded",
        "Silver's history rows are points of stored replies, in 5-minute slots without a live sample",
        ("silver.prices",),
        """
        WITH points AS (
            SELECT coin_id, granularity, fetched_at,
                   make_timestamptz(((p ->> 0)::DOUBLE)::BIGINT * 1000) AS made_at, (p ->> 1)::DOUBLE AS price
            FROM (SELECT coin_id, granularity, fetched_at,
                         unnest(from_json(raw_json::JSON -> '$.prices', '["JSON"]')) AS p
                  FROM "bronze.market_history")
        ), history AS (
            SELECT * FROM "silver.prices" WHERE granularity <> 'tick'
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
        checked="SELECT count(*) FROM \"silver.prices\" WHERE granularity <> 'tick'",
        covers={
            "silver.prices": ("coin_id", "last_updated_at", "price_usd", "granularity", "available_at"),
            "bronze.market_history": ("fetched_at",),
        },
        recomputed="SQL from bronze.market_history",
    )


def _retained(alias: str) -> str:
    """Condition that Bronze still holds the range in which a row's record was read (or should have been)."""
    return (
        f'{alias}."offset" >= coalesce((SELECT min(range_start) FROM "bronze.raw_prices" b '
        f'WHERE b.topic_id = {alias}.topic_id AND b."partition" = {alias}."partition"), 0)'
    )
