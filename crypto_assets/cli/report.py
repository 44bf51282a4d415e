"""Summary of a home after a run: rows, partitions, checks, models, scores, gaps. Prices: `prices`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import dagster as dg

from crypto_assets.assets.features import SCALE_KNOWN
from crypto_assets.assets.training import ENOUGH_DATA
from crypto_assets.contracts.slices import HOUR, key_slice
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Engine
from crypto_assets.orchestration.event_store import CheckState, check_states

GAP = timedelta(minutes=15)
"""Without a quote for longer than this a recording has a hole."""


class Span(NamedTuple):
    """Times from `start` on and before `end` (UTC)."""

    start: datetime
    end: datetime


def rows_and_partitions(engine: Engine, instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Rows, materialized partitions and Delta version of every table that exists."""
    rows = []
    for name, table in TABLES.items():
        if not engine.store.exists(name):
            continue
        partitions = len(instance.get_materialized_partitions(dg.AssetKey(table.asset_key))) if table.grain else None
        counted = engine.store.read_arrow(name, columns=[table.key[0]]).num_rows
        rows.append(
            {"table": name, "rows": counted, "partitions": partitions, "delta version": engine.store.version(name)}
        )
    return rows


def flag_lines(engine: Engine) -> list[str]:
    """How many scores are flagged as anomalies, and how many alerts there are: sentences."""
    if not engine.store.exists("gold.anomalies"):
        return ["flags     there are no scores"]
    scores = engine.store.read_arrow("gold.anomalies", columns=["is_anomaly"], where="anomaly_score IS NOT NULL")
    flags = sum(map(bool, scores.column("is_anomaly").to_pylist()))
    alerts = engine.store.read_arrow("ops.alerts").num_rows if engine.store.exists("ops.alerts") else 0
    return [
        f"flags     {flags} anomalies among {scores.num_rows:,} scores (a coin and five minutes each)",
        f"alerts    {alerts or 'none'}",
    ]


def checks(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Latest state of every check that is not green, with its text.

    A check of a partitioned asset counts once, by its newest aggregate.
    """
    return [
        {
            "asset": s.asset,
            "check": s.check,
            "verdict": s.severity.upper() if s.verdict == "red" else s.verdict,
            "found": s.summary,
        }
        for s in check_states(instance)
        if not s.passed
    ]


def check_lines(states: Sequence[CheckState], holes: Sequence[Span]) -> list[str]:
    """Summary of the data checks, with reasons for warnings expected with only a few days of data.

    Expected are warnings of models that need more days, of the first hours, which have no scale yet, and of holes.
    Whatever else is not green is named.

    Args:
        states: State of every check.
        holes: Times for which a recording has no quote.
    """
    first = _without_scale(states)
    short = {s.asset: s for s in states if s.check == ENOUGH_DATA and _warns(s)}
    known = [Span(span.start, span.end + HOUR) for span in (*holes, *first)]
    not_green = [s for s in states if not s.passed]
    others = [s for s in not_green if not (_warns(s) and (s.asset in short or _within(s, known)))]
    green, warned = len(states) - len(not_green), len(not_green) - len(others)
    warnings = f"{warned} warning{'' if warned == 1 else 's'} expected here"
    if others:
        lines = [f"checks    {green} green, {warnings}; to be looked into:"]
        lines += [f"          {s.asset} {s.label}: {s.summary}" for s in others]
    else:
        lines = [f"checks    all data checks passed: {green} green, {warnings}"]
    reasons = [
        *(
            f"a {_hours(h):.0f}-hour hole in the recording ({h.start:%Y-%m-%d %H:%M} to {h.end:%Y-%m-%d %H:%M})"
            for h in holes
        ),
        *(f"no scores in the first {_hours(span):.0f} hours" for span in first),
        *(f"{asset} {_missing(state)}" for asset, state in sorted(short.items())),
    ]
    return [*lines, f"expected  {'; '.join(reasons)}"] if warned else lines


def _warns(state: CheckState) -> bool:
    return state.verdict == "red" and state.severity == "warn"


def _within(state: CheckState, spans: Sequence[Span]) -> bool:
    """True if a check fails only in partitions that overlap one of the spans."""
    slices = [key_slice(key, "hour" if ":" in key else "day") for key in state.red]
    return bool(slices) and all(any(s.start < span.end and span.start < s.end for span in spans) for s in slices)


def _without_scale(states: Sequence[CheckState]) -> list[Span]:
    """The hours from the first on whose features have no scale; at most one span."""
    red = [key for s in states if s.check == SCALE_KNOWN and not s.passed for key in s.red]
    hours = [key_slice(key, "hour") for key in sorted(red)]
    return [Span(hours[0].start, hours[-1].end)] if hours else []


def _missing(state: CheckState) -> str:
    """Days that a model needs. How many lack is known of its first partition alone, and the newest may have all."""
    needed = state.metadata.get("days_needed")
    return f"needs {needed} days of data" if needed else state.summary


def _hours(span: Span) -> float:
    return (span.end - span.start) / HOUR


def highest_scores(engine: Engine, limit: int = 5) -> list[dict[str, Any]]:
    """The strangest slots of the lake, by how many times over their threshold: scores of versions differ in unit."""
    import pyarrow.compute as pc

    if not engine.store.exists("gold.anomalies"):
        return []
    rows = engine.store.read_arrow("gold.anomalies", where="anomaly_score IS NOT NULL")
    over = pc.call_function("divide", [rows.column("anomaly_score"), rows.column("threshold")])
    highest = rows.append_column("over", over).sort_by([("over", "descending")]).slice(0, limit)
    return [
        {
            "coin": r["coin_id"],
            "window_end (UTC)": f"{r['window_end']:%Y-%m-%d %H:%M}",
            "score": r["anomaly_score"],
            "threshold": r["threshold"],
            "flag": r["is_anomaly"],
            "scope": r["scope"],
            "model": f"{r['model_name']} {r['model_version']}",
        }
        for r in highest.to_pylist()
    ]


def holes(engine: Engine) -> list[Span]:
    """Times without a quote of any coin."""
    if not engine.store.exists("silver.prices"):
        return []
    times = sorted(engine.store.read_arrow("silver.prices", columns=["last_updated_at"]).column(0).to_pylist())
    return [Span(before, after) for before, after in pairwise(times) if after - before > GAP]
