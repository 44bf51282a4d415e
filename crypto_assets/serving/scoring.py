"""Scoring on request by MLflow's protocol: inputs in one of four formats, outputs of the version in force.

The rows of a request are scored as one panel of one slot, by the functions that score the tables: a forest takes 39 ms
of CPU for one row and 46 for a thousand, so rows belong into one request.

Belongs here: parsing a request, shaping outputs. Does not belong here: the scores (`ml.scoring`, `ml.forecasts`), HTTP
(`routes`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import forecasts, registry, scoring
from crypto_assets.ml.artifacts import ArtifactRefused
from crypto_assets.ml.baselines import ANOMALY, HORIZONS, PRICE_1H, PRICE_5M, REGISTERED
from crypto_assets.ml.detectors import COMMON, FOREST, ROBUST_Z, UNION
from crypto_assets.ml.panel import ANOMALY_INPUTS, FIELDS, Panel
from crypto_assets.ml.promotions import effective
from crypto_assets.serving.answers import Problem

if TYPE_CHECKING:
    from crypto_assets.ml.scoring import Version

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MOST_ROWS = 10_000
MODELS = (ANOMALY, PRICE_5M, PRICE_1H)
"""Models that score a single row; a volatility forecast reads a week of them."""
SHOWN = (
    *("predicted_return", "predicted_price", "lower_90", "median", "upper_90", "coverage_7d", "coverage_28d"),
    "skill_verdict",
)
"""Columns of `gold.price_predictions` in the answer of a price model."""
ANOMALY_OUTPUTS = (
    *("anomaly_score", "threshold", "is_anomaly", "detectors", "z_threshold", "market_score", "market_threshold"),
    *("common_score", "common_threshold", "size_sigma", "size_market_sigma"),
)
"""Columns of `gold.anomalies` that a request answers; `scope` is not among them, since it may depend on other coins."""
ANOMALY_TEXTS = ("explanation", "similar_windows")
"""More of them, which tables hold as JSON."""
_ANOMALY_NEEDS = {
    ROBUST_Z: ("rz",),
    FOREST: (*ANOMALY_INPUTS, "s"),
    UNION: (*ANOMALY_INPUTS, "s", "s_market"),
}


def model_of(name: str) -> str:
    """A model by its name, or by the name it is registered under.

    Raises:
        Problem: 404; names the models.
    """
    known = {**{m: m for m in MODELS}, **{REGISTERED[m]: m for m in MODELS}}
    if name not in known:
        raise Problem(404, f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return known[name]


def version_in_force(promotions: Sequence[dict[str, Any]], model: str, now: datetime, home: str) -> Version:
    """The loaded version of a model that serves now; its files are checked against their recorded hash.

    Raises:
        Problem: 503 when there is none, or its files are not what was registered.
    """
    try:
        return registry.load(effective(promotions, model, now), home)
    except (LookupError, ArtifactRefused) as error:
        raise Problem(503, str(error)) from error


def parse(body: bytes) -> list[dict[str, Any]]:
    """Rows of a request, in order.

    Raises:
        Problem: 400; says what is wrong with the request.
    """
    try:
        given = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Problem(400, f"the body must be a JSON object with one of {', '.join(FORMATS)}")
    named = [name for name in FORMATS if name in given]
    if len(named) != 1:
        what = f"has {' and '.join(named)}" if named else "has none"
        raise Problem(400, f"exactly one of {', '.join(FORMATS)} is needed; the request {what}")
    if unknown := sorted(set(given) - {*FORMATS, "params"}):
        raise Problem(400, f"unknown members: {', '.join(unknown)}")
    rows = _split(given[named[0]]) if named[0] == "dataframe_split" else _records(named[0], given[named[0]])
    if len(rows) > MOST_ROWS:
        raise Problem(400, f"{len(rows):,} rows; at most {MOST_ROWS:,} are scored at once")
    return rows


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number; use null for an unknown value")


def _split(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, dict) or not {"columns", "data"} <= given.keys() <= {"columns", "data", "index"}:
        raise Problem(400, "dataframe_split must be an object with columns, data and perhaps index")
    columns, data = given["columns"], given["data"]
    if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
        raise Problem(400, "dataframe_split: columns must be a list of names")
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise Problem(400, "dataframe_split: data must be a list of rows, which are lists")
    if wrong := [n for n, row in enumerate(data) if len(row) != len(columns)]:
        raise Problem(400, f"dataframe_split: rows {_some(wrong)} do not have {len(columns)} values")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _records(name: str, given: Any) -> list[dict[str, Any]]:
    if isinstance(given, dict) and name in ("inputs", "instances"):  # columns, as lists of values
        if not all(isinstance(values, list) for values in given.values()):
            raise Problem(400, f"{name}: every column must be a list of values")
        lengths = {len(values) for values in given.values()}
        if len(lengths) > 1:
            raise Problem(400, f"{name}: columns have different lengths ({', '.join(map(str, sorted(lengths)))})")
        return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise Problem(400, f"{name} must be a list of rows, which are objects with feature names")
    return given


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


def predictions(model: str, version: Version, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """One output per row.

    Args:
        model: anomaly, price_5m or price_1h.
        version: Its loaded version.
        rows: Feature rows; of `features.price_features` any, others with at least the features that the version uses.
        now: Present time (UTC).

    Raises:
        Problem: 400; names every missing feature, or every value that is no number.
    """
    _require(rows, needed(model, version))
    return _ANSWER[model == ANOMALY](model, version, rows, now) if rows else []


def needed(model: str, version: Version) -> tuple[str, ...]:
    """Features that a version uses."""
    if model == ANOMALY:
        detector = version.detector
        common = ("rz_common", *(["common_activity"] if detector.by_activity else []))
        return (*_ANOMALY_NEEDS[detector.algorithm], *(common if COMMON in detector.thresholds else ()))
    return forecasts.needed(version, _horizon(model))


def _require(rows: Sequence[Mapping[str, Any]], needed: Sequence[str]) -> None:
    missing = sorted({name for row in rows for name in needed if name not in row})
    if missing:
        raise Problem(400, f"features are missing: {', '.join(missing)} (null is allowed, and gives no score)")
    wrong = sorted(
        {
            f"{name} of row {number}"
            for number, row in enumerate(rows)
            for name in (*FIELDS, *forecasts.TRACKED)
            if not _is_number(row.get(name))
        }
    )
    wrong += [
        f"coin_id of row {n}" for n, row in enumerate(rows) if not isinstance(row.get("coin_id"), str | type(None))
    ]
    clock = forecasts.CLOCK
    if clock in needed and (untimed := [n for n, row in enumerate(rows) if _moment(row[clock]) is None]):
        raise Problem(400, f"window_end of row {_some(untimed)} is no ISO 8601 time with its zone")
    if wrong:
        raise Problem(400, f"not a number, or too large for one: {', '.join(wrong[:10])}; coin_id is text")


def _is_number(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _panel(rows: Sequence[Mapping[str, Any]]) -> Panel:
    """Rows as one slot of as many coins, named by their numbers: a coin may occur more than once."""
    import numpy as np

    values = {
        field: np.array([[float("nan") if row.get(field) is None else float(row[field])] for row in rows])
        for field in FIELDS
    }
    return Panel(tuple(str(number) for number in range(len(rows))), 0, values)


def _anomalies(model: str, version: Version, rows: Sequence[Mapping[str, Any]], _now: datetime) -> list[dict[str, Any]]:
    scored = scoring.Scored(_panel(rows), version, tuple(row.get("coin_id") for row in rows))
    found = []
    for number, row in enumerate(rows):
        columns = scored.row(number, 0)
        found.append(
            {
                "coin_id": row.get("coin_id"),
                **{name: columns[name] for name in ANOMALY_OUTPUTS},
                **{name: json.loads(columns[name]) if columns[name] else None for name in ANOMALY_TEXTS},
                "model_name": model,
                "model_version": version.name,
            }
        )
    return found


def _forecasts(model: str, version: Version, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    horizon = _horizon(model)
    timed = [{**row, "window_end": _moment(row.get("window_end"))} for row in rows]
    return [
        {
            "coin_id": row.get("coin_id"),
            "horizon": horizon,
            **{name: made[name] if made else None for name in SHOWN},
            "model_name": model,
            "model_version": version.name,
        }
        for row, made in zip(rows, forecasts.on_request(timed, version, horizon, now), strict=True)
    ]


def _horizon(model: str) -> str:
    return next(h for h in HORIZONS if f"price_{h}" == model)


def _moment(value: object) -> datetime | None:
    """The time of a text or a time; None for anything else, which `_require` has refused where it matters."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


_ANSWER: dict[bool, Callable[..., list[dict[str, Any]]]] = {True: _anomalies, False: _forecasts}
