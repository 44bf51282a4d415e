"""Plans of day backfills, and what is submitted to an instance."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from crypto_assets.contracts.slices import day_key
from crypto_assets.definitions import build_definitions
from crypto_assets.orchestration import backfill
from crypto_assets.settings import Settings

NOW = datetime(2024, 6, 10, 12, 30, tzinfo=UTC)


def plan(first: str, last: str | None = None, origin: backfill.Origin = "log", **changed) -> backfill.Plan:
    given = {"now": NOW, "start": date(2024, 1, 1), "coins": 3, "history": True, **changed}
    return backfill.plan(date.fromisoformat(first), date.fromisoformat(last or first), origin, **given)


@pytest.fixture(scope="module")
def graph():
    settings = Settings(_env_file=None, source="replay", partitions_start=date(2024, 1, 1))  # type: ignore[call-arg]
    return build_definitions(settings).resolve_asset_graph()


def test_a_day_from_the_log_costs_no_credits():
    found = plan("2024-06-01")
    assert (found.days, found.hours, found.calls, found.credits) == (("2024-06-01",), 24, 0, 0)
    assert found.hourly[0] == "bronze/raw_prices"
    assert "bronze/market_history" not in found.daily
    assert found.partitions == 24 * len(found.hourly) + len(found.daily)


def test_forecasts_and_models_are_never_rewritten():
    for origin in ("log", "history"):
        assets = {*plan("2024-06-01", origin=origin).hourly, *plan("2024-06-01", origin=origin).daily}
        assert not assets & {"gold/price_predictions", "ml/anomaly_model", "ml/price_model"}


@pytest.mark.parametrize(
    ("first", "last", "coins", "calls"),
    [
        ("2024-06-01", "2024-06-01", 3, 3),
        ("2024-03-01", "2024-05-29", 3, 3),  # 90 days are one call a coin
        ("2024-03-01", "2024-05-30", 3, 6),
        ("2024-06-01", "2024-06-01", 10, 10),
    ],
)
def test_history_costs_a_call_a_coin_for_up_to_90_days(first, last, coins, calls):
    found = plan(first, last, "history", coins=coins)
    assert (found.calls, found.credits) == (calls, calls)
    assert found.daily[0] == "bronze/market_history"
    assert "bronze/raw_prices" not in found.hourly


@pytest.mark.parametrize("first", ["2024-06-09", "2024-03-11"])
def test_the_plan_says_which_tables_history_can_fill(first):
    assert any("every hour: fills bars_1h and bars_1d" in note for note in plan(first, origin="history").notes)


@pytest.mark.parametrize(
    ("first", "last", "origin", "changed", "told"),
    [
        ("2024-06-02", "2024-06-01", "log", {}, ["is empty"]),
        ("2023-12-31", "2024-01-02", "log", {}, ["2023-12-31 lies before the first partition"]),
        ("2024-06-10", "2024-06-10", "log", {}, ["2024-06-10 has not ended"]),
        ("2024-06-01", "2024-06-01", "history", {"history": False}, ["use --from log"]),
        ("2023-12-31", "2024-06-11", "history", {"history": False}, ["before the first", "not ended", "--from log"]),
    ],
)
def test_every_reason_against_a_plan_is_named(first, last, origin, changed, told):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - every part is looked for below
        plan(first, last, origin, **changed)
    assert [part for part in told if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2024-05-01", (date(2024, 5, 1), date(2024, 5, 1))),
        ("2024-05-01..2024-05-07", (date(2024, 5, 1), date(2024, 5, 7))),
    ],
)
def test_parse_days(text, days):
    assert backfill.parse_days(text) == days


@pytest.mark.parametrize("text", ["", "yesterday", "2024-02-30", "2024-05-01..", "2024-05-01..x", "2024-05-01-10:00"])
def test_what_is_no_day_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"2024-05-01\.\.2024-05-07"):
        backfill.parse_days(text)


def test_the_target_is_every_hour_and_day_of_the_plan(graph):
    chosen = plan("2024-05-31", "2024-06-01")
    found: dict[str, list[str]] = {}
    for key, partition in backfill.subset(graph, chosen).iterate_asset_partitions():
        found.setdefault(key.to_user_string(), []).append(str(partition))
    assert set(found) == {*chosen.hourly, *chosen.daily}
    assert {asset: len(keys) for asset, keys in found.items()} == {
        **dict.fromkeys(chosen.hourly, 48),
        **dict.fromkeys(chosen.daily, 2),
    }
    hours = sorted(found["silver/prices"])
    assert (hours[0], hours[-1]) == ("2024-05-31-00:00", "2024-06-01-23:00")


def test_submitting_leaves_one_backfill_for_the_daemon(graph, tmp_path):
    now = datetime.now(UTC)
    yesterday = day_key(now - timedelta(days=1))
    chosen = plan(yesterday, now=now)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        name = backfill.submit(instance, graph, chosen, now=now, tags={"crypto_assets/why": "backfill"})
        (found,) = instance.get_backfills()
        assert found.backfill_id == name
        assert found.is_asset_backfill
        assert found.title == f"backfill {yesterday} from log"
        assert found.tags["crypto_assets/why"] == "backfill"
        assert {k.to_user_string() for k in found.asset_selection or ()} == {*chosen.hourly, *chosen.daily}
