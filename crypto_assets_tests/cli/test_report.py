"""What the demo says of its checks: which warnings two days must give, and that whatever else is wrong is named."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from crypto_assets.cli.report import Span, check_lines
from crypto_assets.orchestration.event_store import CheckState

HOLE = Span(datetime(2026, 11, 22, 16, 52, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))
GREEN = CheckState("silver/prices", "no_duplicates", "green")
IN_THE_HOLE = CheckState("bronze/raw_prices", "has_rows", "red", "warn", ("2026-11-22-17:00", "2026-11-22-23:00"))
OF_THE_DAY = CheckState("gold/bars_1d", "complete_windows", "red", "warn", ("2026-11-22",))
AFTER_IT = CheckState("gold/anomalies", "score_present", "red", "warn", ("2026-11-23-00:00",))
FIRST = CheckState("features/price_features", "scale_known", "red", "warn", ("2026-11-22-00:00", "2026-11-22-11:00"))
SHORT = CheckState(
    "ml/price_model", "enough_data", "red", "warn", ("2026-11-23",), metadata={"days": 1, "days_needed": 42}
)
GATE = CheckState("ml/price_model", "promotion_gate", "red", "warn", ("2026-11-23",))


def test_what_two_days_must_give_is_counted_with_its_reasons():
    first, second = check_lines([GREEN, IN_THE_HOLE, OF_THE_DAY, AFTER_IT, FIRST, SHORT, GATE], [HOLE])
    assert first == "checks    all data checks passed: 1 green, 6 warnings expected here"
    assert second.removeprefix("expected  ").split("; ") == [
        "a 7-hour hole in the recording (2026-11-22 16:52 to 2026-11-23 00:00)",
        "no scores in the first 12 hours",
        "ml/price_model needs 42 days of data",
    ]


def test_all_green_says_nothing_of_reasons():
    assert check_lines([GREEN], [HOLE]) == ["checks    all data checks passed: 1 green, 0 warnings expected here"]


@pytest.mark.parametrize(
    "wrong",
    [
        CheckState(
            "silver/prices", "price_positive", "red", "error", ("2026-11-22-17:00",), summary="one is below zero"
        ),
        CheckState("bronze/raw_prices", "has_rows", "red", "warn", ("2026-11-23-05:00",), summary="no rows"),
        CheckState("gold/bars_1m", "has_rows", "red", "warn", ("2026-11-22-17:00", "2026-11-23-05:00"), summary="none"),
        CheckState("gold/dim_coin", "has_rows", "red", "warn", summary="no partition to judge by"),
        CheckState("silver/prices", "has_rows", "not evaluated", summary="planned in run 1234, which failed"),
    ],
    ids=lambda state: f"{state.asset} {state.verdict}",
)
def test_what_nothing_explains_is_named(wrong: CheckState):
    lines = check_lines([GREEN, IN_THE_HOLE, wrong], [HOLE])
    assert lines[0] == "checks    1 green, 1 warning expected here; to be looked into:"
    assert lines[1] == f"          {wrong.asset} {wrong.label}: {wrong.summary}"
    assert lines[2].startswith("expected  a 7-hour hole")


def test_without_a_recording_a_hole_is_no_excuse():
    assert check_lines([IN_THE_HOLE], [])[0] == "checks    0 green, 0 warnings expected here; to be looked into:"
