"""Tables of the operation: polls, metrics, alerts."""

from __future__ import annotations

from crypto_assets.contracts.columns import LOG_RANGE, LOG_RECORD, LOG_RULES, OPS, day, of
from crypto_assets.contracts.model import Column as C
from crypto_assets.contracts.model import Rule, Table

_raw = of("bronze.raw_prices")

POLLS = Table(
    "ops", "polls",
    "One row per poll of the source: outcome, missing coins, cadence, credits.",
    (
        *LOG_RECORD,
        *LOG_RANGE,
        C("poll_id", "string", "Poll; null if the record is unreadable."),
        C("started_at", "timestamp", "Start of the request."),
        C("finished_at", "timestamp", "End of the request."),
        C("source", "string", "Data mode."),
        C("outcome", "string", "ok, or the named failure."),
        C("http_status", "int", "HTTP status; null without a reply."),
        C("detail", "string", "Cause of a failure."),
        C("coins_asked", "int", "Coins requested."),
        C("coins_returned", "int", "Coins in the reply."),
        C("coins_unchanged", "int", "Coins whose quote had already been sent."),
        C("coins_missing", "array<string>", "Coins requested but not returned."),
        C("age_s", "double", "Age of the reply in a cache.", unit="seconds"),
        C("latency_ms", "double", "Time to the complete reply.", unit="milliseconds"),
        C("cadence_s", "double", "Effective poll interval.", unit="seconds"),
        C("credits_used", "int", "Credits used by the poll."),
        C("credits_left", "int", "Credits left this month."),
        C("delivered", "int", "Messages confirmed by Kafka."),
        C("coins_absent", "array<string>", "Coins missing from at least three consecutive replies; null before version 2."),
        C("problems", "array<string>", "Coins with unusable quotes, with reasons; null before version 2."),
        C("nulled", "array<string>", "Quote fields set to null because their number is out of range; null before "
          "version 2."),
        C("quote_age_s", "double", "Age of the newest quote at the end of the poll; null without one.", unit="seconds"),
    ),
    key=("topic_id", "partition", "offset"), grain="hour", write="append_once", time_column="arrival_hour",
    partition_by=("arrival_hour",), owner=OPS, group="ops", kinds=("kafka", "deltalake"), retention_days=90,
    rules=(*LOG_RULES,
           Rule("readable", "kind = 'gap' OR (poll_id IS NOT NULL AND started_at IS NOT NULL AND finished_at IS NOT NULL "
                "AND source IS NOT NULL AND outcome IS NOT NULL AND coins_asked IS NOT NULL AND coins_returned IS NOT NULL "
                "AND coins_unchanged IS NOT NULL AND coins_missing IS NOT NULL AND latency_ms IS NOT NULL AND "
                "cadence_s IS NOT NULL AND delivered IS NOT NULL)", "Every poll record is readable.", severity="warn"),
           Rule("poll_ok", "kind = 'gap' OR outcome = 'ok'", "The poll succeeded.", severity="warn")),
)

_MEASURED = (
    *_raw("offset", "kafka_timestamp", "headers", "bronze_ingested_at"), "silver.prices.offset", "silver.quarantine.offset",
    "ops.polls.outcome", "gold.anomalies.inference_ms",
)
PIPELINE_METRICS = Table(
    "ops", "pipeline_metrics", "Pipeline metrics by arrival hour.",
    (
        C("metric", "string", "messages_produced, processing_latency_ms_p50, processing_latency_ms_p99, dedup_rate, "
          "quarantine_rate, model_inference_latency_ms, polls_ok_rate.", nullable=False),
        C("value", "double", "Value; null = no data in the hour. Latencies run from the arrival at the broker (where that "
          "is virtual, from the header sent_at) to the write to Bronze; inference is one call of the model.",
          lineage=_MEASURED),
        C("unit", "string", "Unit.", nullable=False),
        C("measured_over", "bigint", "Records that the value was computed from.", nullable=False,
          lineage=(*_raw("offset"), "silver.quarantine.offset", "ops.polls.offset", "gold.anomalies.window_end")),
        day(),
        C("hour", "timestamp", "Arrival hour.", nullable=False),
    ),
    key=("metric", "hour"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",), owner=OPS,
    group="ops", kinds=("python", "deltalake"), code_version="2",
    rules=(Rule("null_means_nothing", "value IS NOT NULL OR measured_over = 0", "A metric over records has a value.",
                blocking=True),
           Rule("quarantine_below_1pct", "metric <> 'quarantine_rate' OR value IS NULL OR value < 1e-2",
                "Under 1 % of records are quarantined.", severity="warn")),
)

ALERTS = Table(
    "ops", "alerts",
    "All alerts and recoveries, of the pipeline and of the market: transitions only, one per cause. An alert that fires is "
    "raised again, as another row, when its check fails further rules.",
    (
        C("alert_id", "string", "Idempotency key: hash of cause, partition, state and time of the transition; of a market "
          "alert the hash of rule, coin and slot.", nullable=False),
        C("cause", "string", "Subject of the alert (asset and check, a named condition, or rule and coin).", nullable=False),
        C("state", "string", "firing or resolved.", nullable=False),
        C("severity", "string", "error or warn.", nullable=False),
        C("asset", "string", "Asset key; null for a condition of the whole pipeline."),
        C("check_name", "string", "Check; null for a condition, a run and a rule."),
        C("partition_key", "string", "Partition; null if not partitioned."),
        C("summary", "string", "Finding and remedy.", nullable=False),
        C("at", "timestamp", "When the transition was detected; of a market alert the end of its slot.", nullable=False),
        C("delivered_at", "timestamp", "When the last of its channels accepted it; null = no channel, or not yet delivered."),
        C("attempts", "int", "Delivery attempts.", nullable=False),
        C("rule", "string", "Rule of a market alert; null for the pipeline."),
        C("coin_id", "string", "Coin of a market alert; null if its rule is about no single coin, and for the pipeline."),
        C("value", "double", "What the rule's `value` came to in the slot; null without one, and once resolved."),
    ),
    key=("alert_id",), grain=None, write="merge", owner=OPS, group="ops", kinds=("python", "deltalake"),
    rules=(Rule("known_state", "state IN ('firing', 'resolved')", "Alerts are firing or resolved.", blocking=True),),
)
