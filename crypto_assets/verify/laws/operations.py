"""Laws on the pipeline's own tables: metrics against their sources, alerts against each other."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.source_facts import every_source
from crypto_assets.verify.laws.base import Law, written_since

UNITS = {
    "messages_produced": "messages",
    "processing_latency_ms_p50": "ms",
    "processing_latency_ms_p99": "ms",
    "dedup_rate": "ratio",
    "quarantine_rate": "ratio",
    "model_inference_latency_ms": "ms",
    "polls_ok_rate": "ratio",
}
"""Unit by metric: every hour has one row of each."""


def _virtual() -> str:
    """Sources whose records have a virtual arrival, as a list in SQL."""
    return ", ".join(f"'{facts.name}'" for facts in every_source() if not facts.live)


def _recomputed() -> str:
    """Common table expressions: `judged`, the hours to compare, and `compared`, the metrics that they should have."""
    units = ", ".join(f"('{name}', '{unit}')" for name, unit in UNITS.items())
    return f"""
    written AS (SELECT written_at FROM audit_stale WHERE table_name = 'ops.pipeline_metrics'),
    virtual AS (
        SELECT coalesce(bool_or(source IN ({_virtual()})), false) AS is_virtual
        FROM (SELECT source FROM audit_records UNION ALL SELECT source FROM "silver.prices")
    ), records AS (
        SELECT b.arrival_hour AS hour, b.bronze_ingested_at, q."offset" IS NOT NULL AS bad,
               s."offset" IS NOT NULL AS kept,
               date_diff('microsecond', CASE WHEN v.is_virtual
                   THEN TRY_CAST(json_extract_string(b.headers, '$.sent_at') AS TIMESTAMPTZ)
                   ELSE b.kafka_timestamp END, b.bronze_ingested_at) / 1000 AS latency
        FROM "bronze.raw_prices" b CROSS JOIN virtual v
        LEFT JOIN "silver.quarantine" q USING (topic_id, "partition", "offset")
        LEFT JOIN "silver.prices" s USING (topic_id, "partition", "offset")
        WHERE b.kind = 'record'
    ), measured AS (
        SELECT hour, count(*) AS n, count(*) FILTER (NOT bad) AS valid, count(*) FILTER (kept) AS kept,
               count(*) FILTER (bad) AS bad, count(latency) AS timed,
               quantile_cont(latency, 0.5) AS p50, quantile_cont(latency, 0.99) AS p99
        FROM records GROUP BY hour
    ), polled AS (
        SELECT arrival_hour AS hour, count(*) AS n, count(*) FILTER (outcome = 'ok') AS ok
        FROM "ops.polls" WHERE kind = 'record' GROUP BY arrival_hour
    ), scored AS (
        SELECT hour, count(inference_ms) AS n, quantile_cont(inference_ms, 0.5) AS ms
        FROM "gold.anomalies" GROUP BY hour
    ), late AS (
        SELECT arrival_hour AS hour FROM "bronze.raw_prices" WHERE bronze_ingested_at > (FROM written)
        UNION SELECT arrival_hour FROM "ops.polls" WHERE bronze_ingested_at > (FROM written)
    ), hours AS (
        SELECT DISTINCT hour FROM "ops.pipeline_metrics"
        UNION SELECT hour FROM measured
        WHERE hour BETWEEN (SELECT min(hour) FROM "ops.pipeline_metrics")
                       AND greatest((SELECT max(hour) FROM "ops.pipeline_metrics"),
                                    (SELECT max(hour) FROM "gold.anomalies"))
    ), judged AS (
        FROM hours WHERE hour >= (SELECT bronze_from + INTERVAL 1 DAY FROM audit_clock)
          AND hour NOT IN (FROM late)
    ), wide AS (
        SELECT h.hour, m.* EXCLUDE (hour), p.n AS polls, p.ok, a.n AS scores, a.ms
        FROM judged h LEFT JOIN measured m USING (hour) LEFT JOIN polled p USING (hour)
        LEFT JOIN scored a USING (hour)
    ), expected AS (
        SELECT hour, 'messages_produced' AS metric, n::DOUBLE AS value, n AS measured_over FROM wide
        UNION ALL SELECT hour, 'processing_latency_ms_p50', p50, timed FROM wide
        UNION ALL SELECT hour, 'processing_latency_ms_p99', p99, timed FROM wide
        UNION ALL SELECT hour, 'dedup_rate', 1 - kept / nullif(valid, 0), valid FROM wide
        UNION ALL SELECT hour, 'quarantine_rate', bad / n, n FROM wide
        UNION ALL SELECT hour, 'polls_ok_rate', ok / polls, polls FROM wide
        UNION ALL SELECT hour, 'model_inference_latency_ms', ms, scores FROM wide
    ), compared AS (
        SELECT e.hour, e.metric, u.unit, if(coalesce(measured_over, 0) > 0, value, NULL) AS value,
               coalesce(measured_over, 0) AS measured_over
        FROM expected e JOIN (VALUES {units}) u(metric, unit) USING (metric)
    )
    """


def metrics_law() -> Law:
    """Law on hours that Bronze still holds and that got no record after the metrics were written.

    Latencies of replayed and simulated records count from the header sent_at, since their arrival is virtual. Hours
    that were scored before inference was measured are excused from its metric.
    """
    return Law(
        "metrics_are_recomputed",
        "every measured hour has each metric once, equal to what Bronze, Silver, quarantine, polls and anomalies give",
        ("ops.pipeline_metrics", "bronze.raw_prices"),
        f"""
        WITH {_recomputed()}, earlier AS (
            SELECT DISTINCT hour FROM "gold.anomalies" WHERE inference_ms IS NULL
        ), stored AS (
            SELECT * FROM "ops.pipeline_metrics" SEMI JOIN judged USING (hour)
        )
        SELECT CASE WHEN s.metric IS NULL THEN 'missing' WHEN c.metric IS NULL THEN 'unknown metric' ELSE 'differs' END
                   AS problem,
               coalesce(s.hour, c.hour) AS hour, coalesce(s.metric, c.metric) AS metric,
               s.value AS stored, c.value AS recomputed, s.measured_over, s.unit
        FROM stored s FULL JOIN compared c ON s.hour = c.hour AND s.metric = c.metric
        WHERE s.metric IS NULL OR c.metric IS NULL OR s.unit <> c.unit OR s.day <> s.hour::DATE
           OR (NOT (s.metric = 'model_inference_latency_ms' AND s.hour IN (FROM earlier))
               AND (s.measured_over IS DISTINCT FROM c.measured_over OR (s.value IS NULL) <> (c.value IS NULL)
                    OR abs(s.value - c.value) > 1e-8 + 1e-9 * abs(c.value)))
        UNION ALL
        SELECT 'doubled', hour, metric, min(value), max(value), NULL, NULL FROM "ops.pipeline_metrics"
        GROUP BY hour, metric HAVING count(*) > 1
        """,
        covers={"ops.pipeline_metrics": ("metric", "value", "unit", "measured_over", "day", "hour")},
        recomputed="SQL from bronze.raw_prices, silver.prices, silver.quarantine, ops.polls, gold.anomalies",
        prepare=lambda evidence: written_since(evidence, "ops.pipeline_metrics", ("bronze.raw_prices", "ops.polls")),
    )


_IDENTITY = ("alert_id", "cause", "state", "at", "rule", "coin_id")


def _text(column: str) -> str:
    """A column as JSON text, in the format of Python's `json.dumps` for plain names."""
    return f"coalesce(to_json({column})::VARCHAR, 'null')"


def alert_identity_law() -> Law:
    """Law on the ids of `ops.alerts`."""
    moment = (
        "strftime(\"at\", '%Y-%m-%dT%H:%M:%S') || CASE WHEN microsecond(\"at\") % 1000000 = 0 THEN '' "
        "ELSE '.' || lpad((microsecond(\"at\") % 1000000)::VARCHAR, 6, '0') END || '+00:00'"
    )
    return Law(
        "alerts_are_what_their_id_says",
        "alert_id is the hash of cause, partition, state and time, of a market alert that of rule, coin and slot, and "
        "occurs once",
        ("ops.alerts",),
        f"""
        SELECT 'another id' AS problem, alert_id, cause, state, "at" FROM "ops.alerts"
        WHERE alert_id IS DISTINCT FROM left(sha256(CASE WHEN rule IS NULL
              THEN '[' || {_text("cause")} || ', ' || {_text("partition_key")} || ', ' || {_text("state")}
              ELSE '[' || {_text("rule")} || ', ' || {_text("coin_id")} END || ', "' || {moment} || '"]'), 32)
        UNION ALL
        SELECT 'doubled', alert_id, min(cause), min(state), min("at") FROM "ops.alerts"
        GROUP BY alert_id HAVING count(*) > 1
        UNION ALL
        SELECT 'cause and check disagree', alert_id, cause, state, "at" FROM "ops.alerts"
        WHERE check_name IS NOT NULL AND cause IS DISTINCT FROM asset || ' ' || check_name
        UNION ALL
        SELECT 'cause and rule disagree', alert_id, cause, state, "at" FROM "ops.alerts"
        WHERE rule IS NOT NULL AND (cause IS DISTINCT FROM concat_ws(' ', rule, coin_id) OR asset IS NULL
              OR check_name IS NOT NULL OR partition_key IS NOT NULL)
        UNION ALL
        SELECT 'coin or value without a rule', alert_id, cause, state, "at" FROM "ops.alerts"
        WHERE rule IS NULL AND (coin_id IS NOT NULL OR value IS NOT NULL)
        UNION ALL
        SELECT 'value of what is over', alert_id, cause, state, "at" FROM "ops.alerts"
        WHERE state = 'resolved' AND value IS NOT NULL
        """,
        covers={"ops.alerts": (*_IDENTITY, "partition_key", "asset", "check_name")},
        recomputed="a hash of its own columns",
    )


def alert_transitions_law() -> Law:
    """Law on the order of states in `ops.alerts`."""
    return Law(
        "alerts_are_transitions",
        "of every cause, each recovery follows an alert that was raised once or more; deliveries follow the transition",
        ("ops.alerts",),
        f"""
        WITH virtual AS (
            SELECT coalesce(bool_or(source IN ({_virtual()})), false) AS is_virtual
            FROM (SELECT source FROM audit_records UNION ALL SELECT source FROM "silver.prices")
        ), chained AS (
            SELECT *, lag(state) OVER (PARTITION BY cause, partition_key ORDER BY "at", state DESC) AS before
            FROM "ops.alerts"
        )
        SELECT CASE WHEN before IS NULL THEN 'recovery without alert' ELSE 'recovered twice' END AS problem,
               alert_id, cause, partition_key, state, "at"
        FROM chained WHERE (before IS NULL AND state = 'resolved') OR (before = state AND state = 'resolved')
        UNION ALL
        SELECT 'delivered before it was seen', alert_id, cause, partition_key, state, delivered_at
        FROM "ops.alerts" CROSS JOIN virtual
        WHERE delivered_at < "at" AND (rule IS NULL OR NOT is_virtual)
        UNION ALL
        SELECT 'delivered without an attempt', alert_id, cause, partition_key, state, delivered_at FROM "ops.alerts"
        WHERE delivered_at IS NOT NULL AND attempts < 1
        """,
        covers={"ops.alerts": ("state", "at", "delivered_at", "attempts")},
        recomputed="its other rows",
    )
