"""The law on price intervals: recomputed from features and the numbers of the version that made them."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify import model_files
from crypto_assets.verify.laws.base import Evidence, Law

VOLATILITY = {"rv15m": 3, "rv1h": 12, "rv4h": 48, "rv24h": 288}
"""Slots under each column; the regression reads their logarithms per slot."""

HARMONICS, WIDEST = 4, 5
_SCALES = """
CREATE OR REPLACE TABLE audit_scales (
    model VARCHAR, version VARCHAR, coin_id VARCHAR, name VARCHAR, slots BIGINT, quantiles DOUBLE[], own DOUBLE[],
    weights DOUBLE[], level DOUBLE, began DOUBLE[], coverage DOUBLE[], verdict VARCHAR)
"""


def _log(column: str, floor: float) -> str:
    """Logarithm of a volatility in own sigmas; zero where unknown, for such rows are not multiplied with weights."""
    return f"coalesce(ln(greatest({column}, {floor} * f.s) / f.s), 0.0)"


def _unit() -> str:
    angle = "(2 * pi() * (epoch(f.window_end) % 86400) / 86400)"
    inputs = [
        "1.0",
        _log("abs(f.r5)", 0.05),
        *(_log(f"f.{name} / sqrt({slots})", 0.02) for name, slots in VOLATILITY.items()),
        _log("v.level", 0.02),
        *(f"{wave}({k} * {angle})" for k in range(1, HARMONICS + 1) for wave in ("sin", "cos")),
        "(epoch(f.window_end)::BIGINT % 3600 = 0)::INTEGER",
        "(isodow(f.window_end - INTERVAL 1 SECOND) >= 6)::INTEGER",
    ]
    known = " + ".join(("f.r5", *(f"f.{name}" for name in VOLATILITY), "v.level"))
    product = f"list_dot_product(v.weights, [{', '.join(inputs)}]::DOUBLE[])"
    return f"""f.s * sqrt(v.slots) * CASE v.name WHEN 'own_sigma' THEN 1
        WHEN 'last_hour' THEN CASE WHEN f.rv1h IS NOT NULL THEN sqrt(greatest(f.rv1h / sqrt(12) / f.s, 0.05)) END
        WHEN 'har' THEN CASE WHEN {known} IS NOT NULL
                             THEN exp(greatest(-{WIDEST}, least({WIDEST}, {product}))) END END"""


_FAR = "abs({0} - {1}) > 1e-9 * abs({1}) + 1e-12"
_DIFFERENCES = {
    "lower_90": _FAR.format("low", "want_low"),
    "upper_90": _FAR.format("high", "want_high"),
    "median": _FAR.format("middle", "greatest(want_low, least(want_high, want_middle))"),
    # Until a forecast of the day has had its outcome, the version's own state holds; without a scale there is none.
    "tracked_lower": "tracked_lower IS DISTINCT FROM CASE WHEN untracked THEN 0 WHEN young THEN began[1] "
                     "ELSE tracked_lower END",
    "tracked_upper": "tracked_upper IS DISTINCT FROM CASE WHEN untracked THEN 0 WHEN young THEN began[2] "
                     "ELSE tracked_upper END",
    "coverage_7d": "coverage_7d IS DISTINCT FROM coverage[1]",
    "coverage_28d": "coverage_28d IS DISTINCT FROM coverage[2]",
    "skill_verdict": "skill_verdict IS DISTINCT FROM verdict",
}  # fmt: skip
_JUDGED = f"""
SELECT p.coin_id, p.window_end, p.horizon, p.model_version, p.tracked_lower, p.tracked_upper, p.coverage_7d,
       p.coverage_28d, p.skill_verdict, v.began, v.coverage, v.verdict,
       ln(p.lower_90 / p.price) AS low, ln(p.median / p.price) AS middle, ln(p.upper_90 / p.price) AS high,
       v.name = 'own_sigma' OR unit IS NULL AS untracked,
       (epoch(p.window_end)::BIGINT // 300 - 1) % 288 < v.slots AS young,
       coalesce(v.quantiles[1] * unit * exp(p.tracked_lower), v.own[1] * f.s * sqrt(v.slots)) AS want_low,
       coalesce(v.quantiles[2] * unit, v.own[2] * f.s * sqrt(v.slots)) AS want_middle,
       coalesce(v.quantiles[3] * unit * exp(p.tracked_upper), v.own[3] * f.s * sqrt(v.slots)) AS want_high
FROM "gold.price_predictions" p
JOIN audit_scales v ON v.model = p.model_name AND v.version = p.model_version AND v.coin_id = p.coin_id
JOIN "features.price_features" f ON f.coin_id = p.coin_id AND f.window_end = p.window_end
CROSS JOIN LATERAL (SELECT {_unit()} AS unit) u
WHERE p.median IS NOT NULL AND p.predicted_return = 0 AND f.price = p.price AND f.available_at <= p.predicted_at
"""


def intervals_law() -> Law:
    """Law: intervals follow from features and version.

    Judged are forecasts of no change whose features are still those that they were made from. Their tracking is taken
    from the row: what it followed were features of that time, which a late record may have changed since.
    """
    parts = ", ".join(f"CASE WHEN {condition} THEN '{name}' END" for name, condition in _DIFFERENCES.items())
    table = "gold.price_predictions"
    return Law(
        "intervals_follow_from_versions",
        "ends, median, measured coverage and verdict of a forecast follow from its features and its version's files",
        (table, "features.price_features", "ml.promotions"),
        f"""
        SELECT * FROM (SELECT coin_id, window_end, horizon, model_version, concat_ws(' ', {parts}) AS differs
                       FROM ({_JUDGED}) judged) WHERE differs <> ''
        """,
        checked=f"SELECT count(*) FROM ({_JUDGED}) judged",
        covers={table: tuple(_DIFFERENCES)},
        recomputed="SQL from features.price_features and the versions' parameters",
        prepare=_load,
    )


def _load(evidence: Evidence) -> str | None:
    """Create `audit_scales`, what versions know of widths by coin; returns a note on versions without files."""
    connection = evidence.connection
    connection.execute(_SCALES)
    used = connection.execute(
        """SELECT DISTINCT p.model, p.version, p.artifact_uri FROM "ml.promotions" p
           JOIN (SELECT DISTINCT model_name, model_version FROM "gold.price_predictions") a
             ON a.model_name = p.model AND a.model_version = p.version
           WHERE p.artifact_uri <> ? ORDER BY 1, 2""",
        [model_files.BUILT_IN],
    ).fetchall()
    coins = [c for (c,) in connection.execute('SELECT DISTINCT coin_id FROM "gold.price_predictions"').fetchall()]
    unread = []
    for model, version, uri in used:
        folder = model_files.folder_of(evidence.home, model, version, uri)
        if folder is None or not folder.is_dir():
            unread.append(f"{model} {version}")
            continue
        learnt = model_files.parameters(folder)
        if "scale" not in learnt:
            continue
        scale = learnt["scale"]
        for coin in coins:
            row = [
                *(model, version, coin, scale["name"], scale["slots"], scale["quantiles"], scale["own"]),
                *(scale["weights"], scale["level"].get(coin), scale["tracked"].get(coin, [0.0, 0.0])),
                *(scale["coverage"].get(coin, [None, None]), learnt["verdict"]),
            ]
            connection.execute("INSERT INTO audit_scales VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return f"files of {', '.join(unread)} are not there: their intervals were not recomputed" if unread else None
