"""Routing: transitions only, one alert per cause, recoveries."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from crypto_assets.alerts.alerts import (
    EXPLAINS_FOR,
    GRACE,
    Condition,
    Evaluation,
    Routed,
    RunOutcome,
    State,
    route,
)
from crypto_assets.contracts.tables import ALERTS

T0 = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
H12, H13 = "2024-05-01-12:00", "2024-05-01-13:00"
KAFKA, BRONZE, SILVER, BARS, FEATURES = (
    "kafka/crypto_prices_raw",
    "bronze/raw_prices",
    "silver/prices",
    "gold/bars_5m",
    "features/price_features",
)
CHAIN = [KAFKA, BRONZE, SILVER, BARS, FEATURES]


def ancestors(asset: str) -> frozenset[str]:
    return frozenset(CHAIN[: CHAIN.index(asset)]) if asset in CHAIN else frozenset()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def red(asset, check, partition=H12, seconds=0.0, severity="error", text="bad", rules=()):
    return Evaluation(asset, check, partition, False, severity, at(seconds), text, rules)


def green(asset, check, partition=H12, seconds=0.0):
    return Evaluation(asset, check, partition, True, "error", at(seconds), "fine")


class Pipeline:
    """A router with its stored state, which goes through JSON between calls as it does between ticks."""

    def __init__(self) -> None:
        self.stored = json.dumps(State().to_json())

    def __call__(self, *evaluations, runs=(), conditions=(), now=None) -> Routed:
        state = State.from_json(json.loads(self.stored))
        times = [x.at for x in (*evaluations, *runs, *conditions)]
        routed = route(
            state,
            evaluations=evaluations,
            runs=runs,
            conditions=conditions,
            ancestors=ancestors,
            now=now or max(times, default=T0),
        )
        self.stored = json.dumps(state.to_json())
        return routed


def seen(routed: Routed) -> list[tuple[str, str, str | None]]:
    return [(a.state, a.cause, a.partition_key) for a in routed.transitions]


def test_only_transitions_are_alerts():
    p = Pipeline()
    assert seen(p(green(SILVER, "unique_key"))) == []
    assert seen(p(red(SILVER, "unique_key", seconds=60))) == [("firing", "silver/prices unique_key", H12)]
    assert seen(p(red(SILVER, "unique_key", seconds=120))) == []
    over = p(green(SILVER, "unique_key", seconds=180))
    assert seen(over) == [("resolved", "silver/prices unique_key", H12)]
    assert over.transitions[0].summary == "recovered after 2 min: fine"
    assert seen(p(green(SILVER, "unique_key", seconds=240))) == []


def test_an_alert_of_a_rule_ends_with_the_check_that_reports_the_rule_now():
    p = Pipeline()
    p(red(SILVER, "unique_key"), red(SILVER, "all_coins_present", H13))
    found = p(red(SILVER, "contract", seconds=60, text="price_positive: 1 of 60 rows"))
    assert sorted(seen(found)) == [
        ("firing", "silver/prices contract", H12), ("resolved", "silver/prices unique_key", H12)
    ]  # fmt: skip
    assert found.transitions[0].summary == "recovered after 60 s: now part of the check contract"


def test_a_check_that_fails_further_rules_is_raised_again_under_its_cause():
    p = Pipeline()

    def contract(seconds, *rules, partition=H12):
        return red(SILVER, "contract", partition, seconds, text="; ".join(f"{r}: 1 row" for r in rules), rules=rules)

    p(contract(0, "price_positive"), red(BARS, "has_rows", seconds=0))
    again = p(contract(60, "price_positive", "unique_key"))
    assert seen(again) == [("firing", "silver/prices contract", H12)]
    assert again.transitions[0].summary == (
        "fails further rules (unique_key): price_positive: 1 row; unique_key: 1 row "
        "[1 consequence: gold/bars_5m has_rows]"
    )
    assert seen(p(contract(120, "unique_key", "price_positive"))) == []
    assert seen(p(contract(180, "price_positive"))) == [], "one rule less is no news"
    # The last evaluation counts, and a rule that was green meanwhile is news.
    assert seen(p(contract(240), contract(241, "price_positive"))) == []
    assert seen(p(contract(300, "price_positive", "unique_key"))) == [("firing", "silver/prices contract", H12)]
    over = p(green(SILVER, "contract", seconds=360))
    assert seen(over) == [("resolved", "silver/prices contract", H12)]
    assert over.transitions[0].summary == "recovered after 6 min: fine (1 consequence not green yet)"
    assert json.loads(p.stored)["open"] == []


def test_partitions_of_one_alert_that_fail_further_rules_are_raised_again_together():
    p = Pipeline()
    keys = [H12, H13]
    p(*[red(SILVER, "contract", k, rules=("a",)) for k in keys])
    again = p(*[red(SILVER, "contract", k, 60, rules=("a", rule)) for k, rule in zip(keys, "bc", strict=True)])
    assert seen(again) == [("firing", "silver/prices contract", H12)]
    assert again.transitions[0].summary == "fails further rules (b, c): bad (and 1 more partitions up to " + H13 + ")"
    p(green(SILVER, "contract", H12, 120))
    assert seen(p(green(SILVER, "contract", H13, 180))) == [("resolved", "silver/prices contract", H12)]


def test_a_consequence_that_fails_further_rules_stays_one():
    p = Pipeline()
    p(red(KAFKA, "delivered", None), red(SILVER, "contract", rules=("a",)))
    assert seen(p(red(SILVER, "contract", seconds=60, rules=("a", "b")))) == []


def test_state_of_a_version_that_did_not_know_rules_raises_nothing_again():
    p = Pipeline()
    p(red(SILVER, "contract", rules=("a",)))
    state = json.loads(p.stored)
    del state["reds"][0][1]["rules"], state["open"][0][1]["since"]
    p.stored = json.dumps(state)
    assert seen(p(red(SILVER, "contract", seconds=60, rules=("a", "b")))) == []
    assert seen(p(red(SILVER, "contract", seconds=120, rules=("a", "b", "c")))) == [
        ("firing", "silver/prices contract", H12)
    ]


def test_state_is_kept_by_partition():
    p = Pipeline()
    p(red(SILVER, "unique_key", H12))
    assert seen(p(red(SILVER, "unique_key", H13, 60))) == [("firing", "silver/prices unique_key", H13)]
    assert seen(p(green(SILVER, "unique_key", H13, 120))) == [("resolved", "silver/prices unique_key", H13)]
    assert seen(p(green(SILVER, "unique_key", H12, 180))) == [("resolved", "silver/prices unique_key", H12)]


def test_partitions_that_turn_red_together_are_one_alert_until_all_are_green():
    p = Pipeline()
    keys = [f"2024-05-01-{h:02}:00" for h in range(12)]
    first = p(*[red(SILVER, "unique_key", k) for k in keys])
    assert seen(first) == [("firing", "silver/prices unique_key", keys[0])]
    assert "and 11 more partitions up to 2024-05-01-11:00" in first.transitions[0].summary
    assert seen(p(*[green(SILVER, "unique_key", k, 60) for k in keys[:-1]])) == []
    assert seen(p(green(SILVER, "unique_key", keys[-1], 120))) == [("resolved", "silver/prices unique_key", keys[0])]


def test_an_aggregate_is_ignored_where_partitions_speak():
    p = Pipeline()
    assert len(seen(p(red(SILVER, "unique_key", H12), red(SILVER, "unique_key", None)))) == 1
    p(green(SILVER, "unique_key", H12, 60))
    assert seen(p(red(SILVER, "unique_key", None, 120))) == []


def test_an_aggregate_that_fired_before_partitions_spoke_can_still_recover():
    p = Pipeline()
    assert seen(p(red("ml/price_model", "enough_data", None))) == [("firing", "ml/price_model enough_data", None)]
    p(green("ml/price_model", "enough_data", "2024-05-01", 60))
    over = p(green("ml/price_model", "enough_data", None, 61))
    assert seen(over) == [("resolved", "ml/price_model enough_data", None)]


def test_too_little_data_explains_the_checks_that_were_not_evaluated():
    p = Pipeline()
    routed = p(red("ml/price_model", "beats_baseline", None), red("ml/price_model", "enough_data", None, 1))
    assert seen(routed) == [("firing", "ml/price_model enough_data", None)]
    assert "1 consequence: ml/price_model beats_baseline" in routed.transitions[0].summary


def test_red_downstream_of_a_firing_asset_is_a_consequence():
    p = Pipeline()
    routed = p(red(BARS, "ohlc_ordered"), red(SILVER, "unique_key", seconds=1))
    assert seen(routed) == [("firing", "silver/prices unique_key", H12)]
    assert routed.transitions[0].summary == "bad [1 consequence: gold/bars_5m ohlc_ordered]"
    later = p(red(FEATURES, "rsi_range", seconds=60))
    assert seen(later) == []
    assert list(later.recounted.values()) == [
        "bad [2 consequences: features/price_features rsi_range, gold/bars_5m ohlc_ordered]"
    ]
    assert list(later.recounted) == [routed.transitions[0].alert_id]


def test_unrelated_assets_and_upstream_of_a_firing_asset_alert_on_their_own():
    p = Pipeline()
    p(red(SILVER, "unique_key"))
    assert seen(p(red(BRONZE, "known_kind", seconds=60))) == [("firing", "bronze/raw_prices known_kind", H12)]
    assert seen(p(red("ops/polls", "known_kind", seconds=90))) == [("firing", "ops/polls known_kind", H12)]


def test_a_consequence_still_red_after_its_cause_recovered_becomes_an_alert():
    p = Pipeline()
    p(red(SILVER, "unique_key"), red(BARS, "ohlc_ordered"))
    over = p(green(SILVER, "unique_key", seconds=60))
    assert seen(over) == [("resolved", "silver/prices unique_key", H12)]
    assert "1 consequence not green yet" in over.transitions[0].summary
    assert seen(p(now=at(60) + GRACE / 2)) == []
    late = p(now=at(60) + GRACE)
    assert seen(late) == [("firing", "gold/bars_5m ohlc_ordered", H12)]
    assert late.transitions[0].summary == "still red after its cause recovered: bad"


def test_a_consequence_that_is_evaluated_red_again_does_not_wait():
    p = Pipeline()
    p(red(SILVER, "unique_key"), red(BARS, "ohlc_ordered"))
    p(green(SILVER, "unique_key", seconds=60))
    assert seen(p(red(BARS, "ohlc_ordered", seconds=61))) == [("firing", "gold/bars_5m ohlc_ordered", H12)]


def test_a_consequence_that_recovers_with_its_cause_is_silent():
    p = Pipeline()
    p(red(SILVER, "unique_key"), red(BARS, "ohlc_ordered"))
    p(green(SILVER, "unique_key", seconds=60))
    assert seen(p(green(BARS, "ohlc_ordered", seconds=61))) == []
    assert seen(p(now=at(3600))) == []


def test_an_old_cause_a_weaker_cause_and_a_cause_in_another_day_explain_nothing():
    p = Pipeline()
    p(red(SILVER, "unique_key", H12))
    late = (EXPLAINS_FOR + timedelta(minutes=1)).total_seconds()
    assert seen(p(red(BARS, "ohlc_ordered", H13, late))) == [("firing", "gold/bars_5m ohlc_ordered", H13)]

    p = Pipeline()
    p(red(KAFKA, "quotes_move", None, severity="warn"))
    assert seen(p(red(BARS, "ohlc_ordered", H12, 60))) == [("firing", "gold/bars_5m ohlc_ordered", H12)]

    p = Pipeline()
    p(red(SILVER, "unique_key", "2024-04-01-12:00"))
    assert seen(p(red(BARS, "ohlc_ordered", H12, 60))) == [("firing", "gold/bars_5m ohlc_ordered", H12)]
    assert seen(p(red("gold/bars_1d", "ohlc_ordered", "2024-04-01", 60)))  # not in the chain: no ancestry, own alert


def test_warnings_alert_only_for_named_checks():
    p = Pipeline()
    assert seen(p(red(BARS, "complete_windows", severity="warn"))) == []
    routed = p(red("ops/pipeline_metrics", "quarantine_below_1pct", severity="warn"))
    assert [(a.cause, a.severity) for a in routed.transitions] == [
        ("ops/pipeline_metrics quarantine_below_1pct", "warn")
    ]


def test_a_stopped_broker_is_one_alert():
    p = Pipeline()
    failed = RunOutcome("refresh", "0123456789", False, at(2), "step bronze_raw_prices: no broker", (BRONZE,))
    polls = red("kafka/crypto_polls", "polls_recorded", None)
    routed = p(polls, red(KAFKA, "delivered", None, 1), runs=[failed])
    assert seen(routed) == [("firing", f"{KAFKA} delivered", None)]
    assert "2 consequences: kafka/crypto_polls polls_recorded, run of refresh" in routed.transitions[0].summary


def test_a_failed_run_is_an_alert_until_its_job_succeeds():
    p = Pipeline()
    first = p(runs=[RunOutcome("refresh", "0123456789", False, at(0), "Exceeded maximum runtime")])
    assert seen(first) == [("firing", "run of refresh", None)]
    assert first.transitions[0].summary == "run 01234567 failed: Exceeded maximum runtime"
    assert seen(p(runs=[RunOutcome("refresh", "abc", False, at(60), "again")])) == []
    assert seen(p(runs=[RunOutcome("refresh", "def", True, at(120))])) == [("resolved", "run of refresh", None)]


def test_a_run_that_failed_because_of_a_red_check_is_its_consequence():
    p = Pipeline()
    failed = RunOutcome("refresh", "0123456789", False, at(1), "nothing was committed", (SILVER,))
    assert seen(p(red(SILVER, "price_positive"), runs=[failed])) == [("firing", "silver/prices price_positive", H12)]


def test_a_condition_explains_red_checks_and_recovers():
    p = Pipeline()
    missing = Condition("producer_ticks_missing", True, at(60), "no tick since 12:00:00")
    assert seen(p(conditions=[missing])) == [("firing", "producer_ticks_missing", None)]
    assert seen(p(red(KAFKA, "source_answers", None, 70), conditions=[missing])) == []
    back = Condition("producer_ticks_missing", False, at(120), "the producer ticks again")
    over = p(conditions=[back])
    assert seen(over) == [("resolved", "producer_ticks_missing", None)]


def test_the_same_observations_give_the_same_ids_and_rows_fit_the_contract():
    first, again = Pipeline(), Pipeline()
    a = first(red(SILVER, "unique_key")).transitions[0]
    b = again(red(SILVER, "unique_key"), now=at(999)).transitions[0]
    assert a.alert_id == b.alert_id
    assert a.alert_id != first(green(SILVER, "unique_key", seconds=9)).transitions[0].alert_id
    assert set(a.row()) == set(ALERTS.column_names)


def test_the_sensor_does_not_alert_on_its_own_table():
    assert seen(Pipeline()(red("ops/alerts", "known_state", None))) == []
