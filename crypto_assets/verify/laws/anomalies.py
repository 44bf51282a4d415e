"""Laws on anomalies: scores, thresholds, flags and explanations, recomputed from features.

Robust z, the market score and the common move are arithmetic on features. A forest is walked tree by tree over the
arrays of its model file (`verify.model_files`), without the library that trained it. Rows from before there were
several scores have null in the columns that came with them.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crypto_assets.verify import model_files
from crypto_assets.verify.laws.base import Evidence, Law, compared

EXPLAINED = 3
STALE_S = 300
NEAREST, UNCALIBRATED_FROZEN = 3, 12

_INPUTS = """
    rz AS z, r15 / (s * sqrt(3)) AS z15, r1h / (s * sqrt(12)) AS z1h,
    CASE WHEN rv1h IS NOT NULL THEN ln(greatest(rv1h, 1e-9) / s) END AS volatility, r5_market / s AS zmarket,
    CASE WHEN s IS NOT NULL THEN abs(r5_market) / sqrt(s_market * greatest(s_market, 0.3 * s)) END AS market,
    abs(rz_common) AS common_0, abs(rz_common) / sqrt(least(2, greatest(common_activity, 0.5))) AS common_1
"""
_NAMES = {"rz": "z", "r15": "z15", "r1h": "z1h", "rv1h": "volatility", "r5_market": "zmarket"}
"""Input column by name in explanations, in tie-breaking order."""
_SCORES = ("robust_z", "market", "common", "isolation_forest")


def anomalies_law() -> Law:
    """Law: stored anomalies equal those computed from features and the version's files."""
    listed = ", ".join(
        f"{{'size': -abs({column}), 'place': {place}, 'feature': '{name}', 'sigma': {column}}}"
        for place, (name, column) in enumerate(_NAMES.items())
    )
    table, key = "gold.anomalies", ("coin_id", "window_end")
    return Law(
        "anomalies_are_features_scored",
        "every feature row has one score, and score, threshold, flag, explanation and scope follow from features and "
        "version",
        (table, "features.price_features"),
        f"""
        WITH stored AS (
            SELECT *, from_json(explanation, '[{{"feature": "VARCHAR", "sigma": "DOUBLE"}}]') AS explained,
                   from_json(similar_windows, '[{{"window_end": "VARCHAR", "distance": "DOUBLE"}}]') AS likened,
                   count(detectors) OVER (PARTITION BY hour) = 0 AS first_release,
                   count(common_score) OVER (PARTITION BY hour) = 0 AS second_release
            FROM "gold.anomalies"
        ), recomputed AS (
            SELECT *, list_slice(list_sort(list_filter([{listed}], lambda x: isfinite(x.sigma))), 1, {EXPLAINED}) AS top
            FROM (SELECT *, {_INPUTS} FROM "features.price_features")
        ), near AS (
            SELECT a.coin_id, a.window_end, count(DISTINCT o.coin_id) AS others
            FROM stored a JOIN audit_flags o ON o.version = a.model_version AND o.coin_id <> a.coin_id
             AND o.window_end IN (a.window_end, a.window_end - INTERVAL 5 MINUTES)
            WHERE a.is_anomaly GROUP BY ALL
        ), alike AS (
            SELECT coin_id, window_end,
                   list_slice(list_sort(list({{'distance': distance, 'ended': ended}})), 1, {NEAREST}) AS nearest
            FROM (
                SELECT a.coin_id, a.window_end, strftime(w.ended AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ') AS ended,
                       list_distance(w.inputs, [r.z, r.z15, r.z1h, r.volatility, r.zmarket]) AS distance
                FROM stored a JOIN recomputed r USING (coin_id, window_end)
                JOIN audit_windows w ON w.version = a.model_version AND w.coin_id = a.coin_id
                WHERE a.is_anomaly AND isfinite(r.z + r.z15 + r.z1h + r.volatility + r.zmarket)
            ) GROUP BY ALL
        ), panels AS (
            SELECT window_end, coins,
                   max(coins) OVER (PARTITION BY (window_end - INTERVAL 5 MINUTES)::DATE) AS coins_of_day
            FROM (SELECT window_end, count(*) AS coins FROM recomputed GROUP BY window_end)
        ), symbols AS (
            SELECT coin_id, symbol FROM audit_coins UNION SELECT coin_id, symbol FROM "gold.bars_5m"
            UNION SELECT coin_id, coin_id FROM recomputed
        )
        {compared(table, key, _DIFFERENCES, "no features", stored="stored", joins=_JOINS)}
        """,
        covers={
            table: (*key, "model_version", *(n for n in _DIFFERENCES if n not in ("revision", "previous_is_anomaly")))
        },
        recomputed="SQL from features.price_features, forests walked over the arrays of their model files",
        prepare=_score,
    )


_JOINS = """
LEFT JOIN audit_levels l ON l.version = a.model_version AND l.coin_id = a.coin_id
LEFT JOIN audit_scores c ON c.version = a.model_version AND c.coin_id = a.coin_id AND c.window_end = a.window_end
LEFT JOIN near n ON n.coin_id = a.coin_id AND n.window_end = a.window_end
LEFT JOIN panels p ON p.window_end = a.window_end
LEFT JOIN alike k ON k.coin_id = a.coin_id AND k.window_end = a.window_end
"""


def _common_of(features: str) -> str:
    """A slot's common move as its version `l` scores it."""
    return f"if(l.by_activity, {features}.common_1, {features}.common_0)"


def _score_of(features: str) -> str:
    """A slot's score by its version `l` and the score `c` of its forest, from features with all other scores."""
    several = f"abs({features}.rz) / l.z, {features}.market / l.market, {_common_of(features)} / l.common"
    return (
        f"CASE l.algorithm WHEN 'union' THEN greatest({several}) "
        f"WHEN 'isolation_forest' THEN c.score ELSE abs({features}.rz) END"
    )


_SCORE = _score_of("r")
_FIRED = f"""list_filter([
    CASE WHEN l.algorithm = 'union' AND {_common_of("r")} / l.common > 1 THEN 'common' END,
    CASE WHEN l.algorithm = 'isolation_forest' AND c.score > l.forest THEN 'isolation_forest' END,
    CASE WHEN l.algorithm = 'union' AND r.market / l.market > 1 THEN 'market' END,
    CASE WHEN l.algorithm = 'robust_z' AND abs(r.rz) > l.z OR l.algorithm = 'union' AND abs(r.rz) / l.z > 1
         THEN 'robust_z' END], lambda x: x IS NOT NULL)"""
_BY_DETECTOR = """CASE WHEN a.is_anomaly THEN
    CASE WHEN list_contains(a.detectors, 'market') THEN 'coin_specific' ELSE 'market_wide' END END"""
_SCOPE = """CASE WHEN a.is_anomaly AND {n} >= 2
    THEN CASE WHEN coalesce(n.others, 0) * 2 >= {n} - 1 THEN 'market_wide' ELSE 'coin_specific' END END"""
_DIFFERENCES = {
    "symbol": "NOT EXISTS (FROM symbols s WHERE s.coin_id = a.coin_id AND s.symbol = a.symbol)",
    "window_start": "a.window_start <> a.window_end - INTERVAL 5 MINUTES",
    "anomaly_score": f"l.version IS NOT NULL AND ((a.anomaly_score IS NULL) <> (({_SCORE}) IS NULL) "
                     f"OR abs(a.anomaly_score - ({_SCORE})) > 1e-9 * abs(a.anomaly_score))",
    "threshold": "l.version IS NOT NULL AND a.threshold IS DISTINCT FROM "
                 "CASE l.algorithm WHEN 'union' THEN 1.0 WHEN 'robust_z' THEN l.z ELSE l.forest END",
    "is_anomaly": "a.is_anomaly <> coalesce(a.anomaly_score > a.threshold, false)",
    "explanation": "len(coalesce(a.explained, [])) <> len(r.top) OR (a.explanation IS NULL) <> (len(r.top) = 0) "
                   "OR len(list_filter(list_zip(a.explained, r.top), lambda x: coalesce(x[1].feature <> x[2].feature "
                   "OR abs(x[1].sigma - x[2].sigma) > 0.0005001, true))) > 0",
    "size_sigma": "a.size_sigma IS DISTINCT FROM abs(r.rz)",
    **{name: f"CASE WHEN a.first_release THEN a.{name} IS NOT NULL ELSE {differs} END" for name, differs in {
        "detectors": f"a.detectors IS NULL OR l.version IS NOT NULL AND a.detectors IS DISTINCT FROM {_FIRED}",
        "z_threshold": "l.version IS NOT NULL AND a.z_threshold IS DISTINCT FROM l.z",
        "market_threshold": "l.version IS NOT NULL AND a.market_threshold IS DISTINCT FROM l.market",
        "market_score": "(a.market_score IS NULL) <> (r.market IS NULL) "
                        "OR abs(a.market_score - r.market) > 1e-9 * r.market",
        "size_market_sigma": "(a.size_market_sigma IS NULL) <> (r.r5_market / r.s_market IS NULL) "
                             "OR abs(a.size_market_sigma - abs(r.r5_market) / r.s_market) > 1e-9 * a.size_market_sigma",
        "similar_windows": "l.version IS NOT NULL AND (len(coalesce(a.likened, [])) <> len(coalesce(k.nearest, [])) OR "
                   "len(list_filter(list_zip(a.likened, k.nearest), lambda x: coalesce(x[1].window_end <> x[2].ended "
                   "OR abs(x[1].distance - x[2].distance) > 0.0005001, true))) > 0)",
    }.items()},
    "common_score": "CASE WHEN a.second_release THEN a.common_score IS NOT NULL "
                    f"WHEN l.version IS NULL THEN false ELSE a.common_score IS DISTINCT FROM {_common_of('r')} END",
    "common_threshold": "l.version IS NOT NULL AND CASE WHEN a.second_release THEN a.common_threshold IS NOT NULL "
                        "AND a.common_threshold IS DISTINCT FROM l.common "
                        "ELSE a.common_threshold IS DISTINCT FROM l.common END",
    "scope": "l.version IS NOT NULL AND CASE WHEN l.algorithm = 'union' AND r.market IS NOT NULL "
             f"THEN a.scope IS DISTINCT FROM {_BY_DETECTOR} ELSE a.scope IS DISTINCT FROM {_SCOPE.format(n='p.coins')} "
             f"AND a.scope IS DISTINCT FROM {_SCOPE.format(n='p.coins_of_day')} END",
    "suspicion": f"a.suspicion IS DISTINCT FROM CASE WHEN r.price IS NULL OR r.staleness_s > {STALE_S} THEN 'stale' "
                 "WHEN NOT a.first_release AND CASE WHEN l.version IS NULL THEN a.suspicion = 'frozen' "
                 "ELSE r.unchanged_slots >= l.frozen END THEN 'frozen' "
                 "WHEN r.sample_count = 1 THEN 'single_sample' WHEN NOT r.is_complete THEN 'incomplete' END",
    "price": "a.price IS DISTINCT FROM r.price",
    "model_name": "a.model_name <> 'anomaly'",
    "scored_at": "abs(epoch_us(a.scored_at) / 1e6 - epoch_us(a.window_end) / 1e6 - a.latency_s) > 1e-5",
    "latency_s": "abs(epoch_us(a.scored_at) / 1e6 - epoch_us(a.window_end) / 1e6 - a.latency_s) > 1e-5",
    "inference_ms": "a.inference_ms < 0",
    "previous_is_anomaly": "(a.previous_is_anomaly IS NULL) <> (a.revision = 0)",
    "revision": "a.revision < 0 OR (a.previous_is_anomaly IS NULL) <> (a.revision = 0)",
    "day": "a.day <> a.window_start::DATE",
    "hour": "a.hour <> date_trunc('hour', a.window_start)",
}  # fmt: skip
"""Condition of a difference by column: `a` the anomaly, `r` its features, `l` its version's thresholds, `c` a forest's
score, `n` others flagged near it, `p` coins of the slot and of the day, `k` the version's windows nearest to it."""


def _score(evidence: Evidence) -> str | None:
    """Create `audit_levels` (thresholds by version and coin), `audit_windows`, `audit_scores` and `audit_flags`.

    Returns:
        A note on versions that could not be recomputed, without a home or their files.
    """
    connection = evidence.connection
    connection.execute(
        "CREATE OR REPLACE TABLE audit_levels (version VARCHAR, coin_id VARCHAR, algorithm VARCHAR, z DOUBLE, "
        "market DOUBLE, common DOUBLE, forest DOUBLE, frozen BIGINT, by_activity BOOLEAN)"
    )
    connection.execute(
        "CREATE OR REPLACE TABLE audit_windows (version VARCHAR, coin_id VARCHAR, ended TIMESTAMPTZ, inputs DOUBLE[])"
    )
    connection.execute(
        "CREATE OR REPLACE TABLE audit_scores (version VARCHAR, coin_id VARCHAR, window_end TIMESTAMPTZ, score DOUBLE)"
    )
    used = connection.execute(
        """SELECT DISTINCT a.model_version, p.artifact_uri, p.metrics FROM "gold.anomalies" a
           JOIN "ml.promotions" p ON p.model = 'anomaly' AND p.version = a.model_version
           WHERE p.decision NOT IN ('promoted_by_hand', 'rolled_back') ORDER BY 1"""
    ).fetchall()
    coins = [c for (c,) in connection.execute('SELECT DISTINCT coin_id FROM "gold.anomalies"').fetchall()]
    unread = []
    for version, uri, metrics in used:
        learnt, forest = _version(evidence.home, version, uri, metrics)
        if learnt is None:
            unread.append(version)
            continue
        rows = [[version, c, *_levels(learnt, c, forest is not None)] for c in coins]
        connection.executemany("INSERT INTO audit_levels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        windows = [
            [version, coin, window["window_end"], window["inputs"]]
            for coin, listed in learnt.get("windows", {}).items()
            for window in listed
        ]
        if windows:
            connection.executemany("INSERT INTO audit_windows VALUES (?, ?, to_timestamp(?), ?)", windows)
        if forest is not None:
            _walk(evidence, version, forest)
    connection.execute(_FLAGS)
    return (
        f"files of {', '.join(unread)} are not there: scores and thresholds of their rows were not recomputed"
        if unread
        else None
    )


def _levels(learnt: Mapping[str, Any], coin: str, forest: bool) -> list[Any]:
    """Algorithm, thresholds of |rz|, market, common and forest (null if unused), frozen slots, kind of common score."""
    algorithm = learnt.get("algorithm") or ("isolation_forest" if forest else "robust_z")
    levels = learnt.get("thresholds") or {"*": learnt["threshold"]}
    by_score = levels if algorithm == "union" else {algorithm: levels}
    found = [float(of.get(coin, of["*"])) if (of := by_score.get(n)) else None for n in _SCORES]
    frozen = learnt.get("frozen_slots", {})
    longest = int(frozen.get(coin, frozen.get("*", UNCALIBRATED_FROZEN)))
    return [algorithm, *found, longest, bool(learnt.get("by_activity"))]


def _version(
    home: Path | None, version: str, uri: str, metrics: str
) -> tuple[dict[str, Any] | None, model_files.Forest | None]:
    if uri == model_files.BUILT_IN:
        return json.loads(metrics), None
    folder = model_files.folder_of(home, "anomaly", version, uri)
    if folder is None or not folder.is_dir():
        return None, None
    return model_files.parameters(folder), model_files.forest(folder)


def _walk(evidence: Evidence, version: str, forest: model_files.Forest) -> None:
    """Scores of a forest for the slots of its rows, and for the slots before them, which `scope` needs."""
    import numpy as np
    import pyarrow as pa

    rows = evidence.connection.execute(
        f"""SELECT coin_id, window_end, z, z15, z1h, volatility, zmarket
            FROM (SELECT *, {_INPUTS} FROM "features.price_features")
            WHERE window_end IN (SELECT unnest([window_end, window_end - INTERVAL 5 MINUTES]) FROM "gold.anomalies"
                                 WHERE model_version = ?)
              AND isfinite(z) AND isfinite(z15) AND isfinite(z1h) AND isfinite(volatility) AND isfinite(zmarket)""",
        [version],
    ).to_arrow_table()
    scores = model_files.isolation_scores(forest, np.column_stack([rows[n].to_numpy() for n in _NAMES.values()]))
    scored = rows.select(["coin_id", "window_end"]).append_column("score", pa.array(scores))
    evidence.connection.register("audit_chunk", scored)
    evidence.connection.execute("INSERT INTO audit_scores SELECT ?, * FROM audit_chunk", [version])
    evidence.connection.unregister("audit_chunk")


_FLAGS = f"""
CREATE OR REPLACE TABLE audit_flags AS
SELECT l.version, f.coin_id, f.window_end
FROM (SELECT *, {_INPUTS} FROM "features.price_features") f JOIN audit_levels l ON l.coin_id = f.coin_id
LEFT JOIN audit_scores c ON c.version = l.version AND c.coin_id = f.coin_id AND c.window_end = f.window_end
WHERE {_score_of("f")} > CASE l.algorithm WHEN 'union' THEN 1.0 WHEN 'robust_z' THEN l.z ELSE l.forest END
"""


def references_law() -> Law:
    """Law: anomalies refer to versions that could not have seen the slot."""
    return Law(
        "anomalies_refer_rightly",
        "every anomaly is of a promoted version with cut-off and start of service before its slot",
        ("gold.anomalies",),
        references('"gold.anomalies"', "a.window_start", "'anomaly'"),
        covers={"gold.anomalies": ("model_version",)},
        recomputed="references to ml.promotions",
    )


def references(table: str, slot: str, model: str, also: tuple[str, ...] = ()) -> str:
    """Query of a table's rows whose version is unknown, was not promoted, or had seen the slot.

    Args:
        table: Table with coin_id, window_end and model_version.
        slot: Start of a row's slot, as SQL over `a`.
        model: Its model, as SQL over `a`.
        also: Further columns to show.
    """
    shown = ", ".join(["a.coin_id", "a.window_end", *also, "a.model_version"])
    return f"""
    WITH versions AS (
        SELECT model, version, max(cutoff) AS cutoff,
               min(effective_from) FILTER (decision <> 'rejected') AS effective_from
        FROM "ml.promotions" GROUP BY ALL
    )
    SELECT CASE WHEN p.version IS NULL THEN 'unknown version'
                WHEN p.effective_from IS NULL THEN 'version was not promoted'
                WHEN p.cutoff > {slot} THEN 'cut-off after the slot'
                ELSE 'version not yet in service' END AS problem, {shown}, p.cutoff, p.effective_from
    FROM {table} a
    LEFT JOIN versions p ON p.version = a.model_version AND p.model = {model}
    WHERE p.effective_from IS NULL OR p.cutoff > {slot} OR p.effective_from > {slot}
    """
