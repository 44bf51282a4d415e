"""When rules fire: uninterrupted time, cooldown, holes; and that it does not matter how rows are spread over calls."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.alerts import conditions, judgement
from crypto_assets.alerts.alerts import Alert, State
from crypto_assets.alerts.rules import Rule
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import BARS_5M
from crypto_assets_tests.alerts.market_home import DAY, MOVE, SLOT, STALE, TABLE, row, rule, table

HIT = 0.05


def judged(one: Rule, *calls: list[dict[str, Any]]) -> list[Alert]:
    tracks: dict[judgement.Key, judgement.Track] = {}
    state = State()
    return [alert for rows in calls for alert in judgement.judge([one], {TABLE: table(rows)}, tracks, state)]


def seen(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(a.state, (a.at - DAY) // SLOT) for a in alerts]


def line(text: str, begin: int = 1) -> list[dict[str, Any]]:
    """Slots of one coin: `x` satisfies both rules, `.` neither, blanks are missing."""
    values = {"x": {"r5": HIT, "price": None}, ".": {"r5": 0.0, "price": 1.0}}
    return [row("bitcoin", begin + i, **values[c]) for i, c in enumerate(text) if c != " "]


def test_an_event_fires_once_until_it_is_over():
    assert seen(judged(rule(MOVE), line("..xxx..x"))) == [("firing", 3), ("resolved", 6), ("firing", 8)]


def test_a_state_fires_when_it_has_lasted():
    assert seen(judged(rule(STALE), line(".xxx.xxxxxx."))) == [("firing", 9), ("resolved", 12)]


def test_nothing_is_counted_across_a_hole():
    assert seen(judged(rule(STALE), line("xxx   xxx."))) == []
    assert seen(judged(rule(STALE), line("xxx   xxxx"))) == [("firing", 10)]


def test_an_open_alert_survives_a_hole_without_firing_again():
    assert seen(judged(rule(STALE), line("xxxx      xxxxxxx."))) == [("firing", 4), ("resolved", 18)]


def test_the_cooldown_counts_from_the_alert_before():
    one = rule(MOVE, cooldown="30m")
    assert seen(judged(one, line("x.x.x.x.x"))) == [("firing", 1), ("resolved", 2), ("firing", 7), ("resolved", 8)]
    assert seen(judged(one, line("x.xxxxxxxx"))) == [("firing", 1), ("resolved", 2), ("firing", 7)]


def test_what_comes_later_for_a_judged_slot_changes_nothing():
    assert seen(judged(rule(MOVE), line("..."), line("xx."), line("..x", 2))) == [("firing", 4)]


def test_an_alert_says_what_the_row_shows():
    (alert,) = judged(rule(MOVE, severity="error"), line(".x"))
    assert (alert.cause, alert.coin_id, alert.rule) == ("move bitcoin", "bitcoin", "move")
    assert (alert.value, alert.severity, alert.asset) == (HIT, "error", "features/price_features")
    assert alert.summary == "it moved (r5 = 0.05)"


def test_values_are_shown_as_people_write_them():
    one = rule(
        MOVE, table="gold.bars_5m", when="close > 0", value="close", show=["close", "range", "is_closed", "price_vol"]
    )
    row_ = {
        "coin_id": "bitcoin", "window_end": DAY, "close": Decimal("0.000000019"), "range": 0.0301234567,
        "is_closed": True, "price_vol": None,
    }  # fmt: skip
    schema = arrow_schema(BARS_5M, conditions.columns(one))
    (seen_,) = conditions.evaluate(one, pa.Table.from_pylist([row_], schema=schema))
    assert seen_.shown == {"close": "0.000000019", "range": "0.03012", "is_closed": "true", "price_vol": "null"}


def test_values_that_cannot_be_computed_are_no_hit():
    one = rule(MOVE, when="1 / (r5 - r5) > 0 OR CAST(null_reason AS INTEGER) > 0", value="1e308 * 1e308 * r5")
    assert judged(one, line("x.x")) == []
    (alert,) = judged(rule(MOVE, value="1e308 * 1e308 * r5"), line("x"))
    assert alert.value is None


def test_alerts_of_a_rule_that_is_gone_and_of_a_coin_without_rows_end():
    tracks: dict[judgement.Key, judgement.Track] = {}
    state, one = State(), rule(MOVE)
    rows = [row("bitcoin", 1, r5=HIT), row("ethereum", 1, r5=HIT), row("ethereum", 290, r5=HIT)]
    assert len(judgement.judge([one], {TABLE: table(rows)}, tracks, state)) == 2
    (gone,) = judgement.ended([one], tracks, state, DAY)
    assert (gone.cause, gone.state) == ("move bitcoin", "resolved")
    before = State.from_json(state.to_json())
    (rest,) = judgement.ended([], tracks, state, DAY + 300 * SLOT)
    assert (rest.cause, rest.state, rest.at) == ("move ethereum", "resolved", DAY + 300 * SLOT)
    assert not state.reds
    (ahead,) = judgement.ended([], tracks, before, DAY)  # a replay that runs ahead of the clock
    assert ahead.at > DAY + SLOT


@settings(max_examples=25, deadline=None)
@given(
    text=st.text(alphabet="x. ", min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    overlap=st.integers(0, 5),
    values=st.sampled_from([{"for": "0s"}, {"for": "10m"}, {"cooldown": "20m"}, {"for": "5m", "cooldown": "30m"}]),
)
def test_the_alerts_do_not_depend_on_how_rows_are_spread_over_calls(text, cuts, overlap, values):
    one, rows = rule(MOVE, **values), line(text)
    bounds = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    calls = [rows[max(0, a - overlap) : b] for a, b in pairwise(bounds)]
    whole = [(a.alert_id, a.state, a.at, a.summary, a.value) for a in judged(one, rows)]
    assert [(a.alert_id, a.state, a.at, a.summary, a.value) for a in judged(one, *calls)] == whole
    assert len({key for key, *_ in whole}) == len(whole)
