"""Which version serves when: decisions of trainings, and those of a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crypto_assets.ml.baselines import ANOMALY, v0_rows
from crypto_assets.ml.promotions import Undecidable, beside, by_hand, effective, hold

START = datetime(2026, 5, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def trained(day: int, decision: str = "promoted", name: str = "union") -> dict[str, Any]:
    """A training's decision: its cut-off is the start of a day, and it was made ten minutes later."""
    base = v0_rows(START, START)[0]
    cutoff = START + day * DAY
    return base | {
        "version": f"{day}-{name}",
        "decision": decision,
        "cutoff": cutoff,
        "effective_from": cutoff,
        "decided_at": cutoff + timedelta(minutes=10),
        "why": "by the gate",
        "artifact_sha256": f"sha-{day}",
    }


def history(*days: int) -> list[dict[str, Any]]:
    return [*v0_rows(START, START), *map(trained, days)]


NOON = START + 3 * DAY + timedelta(hours=12, minutes=20)


def test_a_version_put_into_service_by_hand_serves_until_a_training_promotes_a_later_one():
    rows = history(2, 3)
    rows.append(by_hand(rows, ANOMALY, "2-union", "promoted_by_hand", "flags tripled", NOON))
    assert effective(rows, ANOMALY, NOON)["version"] == "3-union"
    assert effective(rows, ANOMALY, NOON.replace(hour=13, minute=0))["version"] == "2-union"
    refused = trained(4, "rejected")
    assert beside([refused], rows, START + 4 * DAY + HOUR) == [refused]
    rows.append(refused)
    assert effective(rows, ANOMALY, START + 4 * DAY)["version"] == "2-union"
    (passed,) = beside([trained(5)], rows, START + 5 * DAY + HOUR)
    assert passed["why"] == "by the gate; replaces 2-union, promoted by hand: flags tripled"
    rows.append(passed)
    assert effective(rows, ANOMALY, START + 5 * DAY)["version"] == "5-union"
    assert beside([trained(6)], rows, START + 6 * DAY + HOUR) == [trained(6)], "said once"


def test_a_version_promoted_by_hand_for_the_same_time_as_a_training_serves_and_the_row_says_so():
    rows = history(2, 3)
    late = START + 4 * DAY - timedelta(minutes=20)
    rows.append(by_hand(rows, ANOMALY, "2-union", "promoted_by_hand", "flags tripled", late))
    (passed,) = beside([trained(4)], rows, START + 4 * DAY + HOUR)
    assert passed["decision"] == "promoted"
    assert passed["why"] == "by the gate; does not serve in place of 2-union, promoted by hand: flags tripled"
    assert effective([*rows, passed], ANOMALY, START + 5 * DAY)["version"] == "2-union"


def test_a_rollback_goes_to_the_version_before_and_holds_until_one_is_promoted_by_hand():
    rows = history(2, 3)
    back = by_hand(rows, ANOMALY, None, "rolled_back", "flags tripled", NOON)
    assert (back["version"], back["artifact_sha256"], back["why"]) == ("2-union", "sha-2", "flags tripled")
    rows.append(back)
    for day in (4, 5):
        later = beside([trained(day), trained(day, "rejected", "forest")], rows, START + day * DAY + HOUR)
        assert [r["decision"] for r in later] == ["rejected", "rejected"]
        assert "held by the rollback to 2-union" in later[0]["why"]
        assert "by the gate" in later[0]["why"]
        rows += later
    assert effective(rows, ANOMALY, START + 6 * DAY)["version"] == "2-union"
    assert hold(rows, ANOMALY, NOON + HOUR) == back
    assert by_hand(rows, ANOMALY, None, "rolled_back", "further", NOON + HOUR)["version"] == "v0"
    rows.append(by_hand(rows, ANOMALY, "5-union", "promoted_by_hand", "mended", START + 5 * DAY + 2 * HOUR))
    assert hold(rows, ANOMALY, START + 6 * DAY) is None
    assert effective(rows, ANOMALY, START + 5 * DAY + 3 * HOUR)["version"] == "5-union"
    (later,) = beside([trained(6)], rows, START + 6 * DAY + HOUR)
    assert (later["decision"], later["why"]) == ("promoted", "by the gate; replaces 5-union, promoted by hand: mended")


def test_a_rollback_can_go_to_the_baseline_and_concerns_one_model():
    rows = history(1)
    rows.append(by_hand(rows, ANOMALY, "v0", "rolled_back", "no trust", NOON))
    assert effective(rows, ANOMALY, NOON + HOUR)["artifact_uri"] == "builtin:v0"
    assert hold(rows, "price_5m", NOON + HOUR) is None


def test_a_decision_by_hand_outranks_a_training_of_the_same_start_and_a_later_one_an_earlier_one():
    rows = history(2, 3)
    night = START + 4 * DAY - timedelta(minutes=5)
    rows.append(by_hand(rows, ANOMALY, "2-union", "rolled_back", "first thought", night))
    rows.append(by_hand(rows, ANOMALY, "3-union", "promoted_by_hand", "second thought", night + timedelta(minutes=1)))
    rows.append(trained(4))
    assert effective(rows, ANOMALY, START + 4 * DAY)["version"] == "3-union"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("9-union", "has no version 9-union; the newest are: 3-union, 2-union, v0"),
        ("3-union", "3-union serves from .* already"),
    ],
)
def test_what_cannot_be_put_into_service_is_refused_by_name(version, said):
    with pytest.raises(Undecidable, match=said):
        by_hand(history(2, 3), ANOMALY, version, "promoted_by_hand", "why", NOON)


def test_a_version_that_has_seen_the_coming_hour_is_refused():
    with pytest.raises(Undecidable, match="trained on data up to 2026-05-05 00:00Z"):
        by_hand([*history(3), trained(4, "rejected")], ANOMALY, "4-union", "promoted_by_hand", "why", NOON)


def test_without_another_version_a_rollback_says_so():
    with pytest.raises(Undecidable, match="no version in service that is older than v0"):
        by_hand(history(), ANOMALY, None, "rolled_back", "why", NOON)
