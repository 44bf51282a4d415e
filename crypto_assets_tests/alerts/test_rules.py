"""Rules files: what is read, and every problem with its line and fix."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crypto_assets.alerts import conditions
from crypto_assets.alerts.rules import DEFAULTS, KEYS, Rule, RulesError, load
from crypto_assets_tests.alerts.market_home import MOVE, rule


def rules(text: str) -> list[Rule]:
    return load(text, "alerts.yaml", conditions.vet)


def problems(text: str) -> list[str]:
    with pytest.raises(RulesError) as raised:
        rules(text)
    return str(raised.value).split("; alerts.yaml:")


def with_condition(when: str) -> str:
    quoted = when.replace("'", "''")
    return f"rules:\n- name: a\n  description: b\n  table: features.price_features\n  when: '{quoted}'\n"


def test_the_rules_of_the_product_are_read():
    found = {r.name: r for r in rules(DEFAULTS.read_text(encoding="utf-8"))}
    assert set(found) == {"anomaly", "move", "spread", "stale", "coin_absent"}
    assert found["stale"].for_ == timedelta(minutes=15)
    assert found["move"].cooldown == timedelta(hours=1)
    assert found["anomaly"].channels == ("webhook",)


def test_the_example_of_the_documentation_is_read():
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    (example,) = rules(text.partition("```yaml\n")[2].partition("```")[0])
    assert set(KEYS) == {
        *re.findall(r"^ +-? ?(\w+):", text.partition("```yaml\n")[2].partition("```")[0], re.MULTILINE)
    }
    assert example.quiet_hours is not None
    assert example.quiet_hours.zone.key == "Europe/Berlin"


def test_every_problem_is_named_with_its_line_and_fix():
    text = """rules:
- name: one
  description: d
  on: gold.bars_5m
  when: range > 0.1
- name: two
  description: d
  table: gold.bar_5m
  when: range > 0.1
  cooldwn: 5m
- name: two
  description: d
  table: gold.bars_5m
  when: ranje > 0.1
  value: symbol
  for: 1:30
  severity: loud
  quiet_hours: 22-7
  budget: 0
- name: Three
  table: gold.bars_5m
  table: gold.bars_1m
  when: range
- name: four
  description: d
  table: gold.latest_prices
  when: price_usd > 1
more: 1
"""
    found = problems(text)
    for line, *parts in (
        (4, "rule one: unknown key on: write table (YAML reads on as true)"),
        (2, "rule one: table: is missing"),
        (8, "rule two: table: gold.bar_5m cannot be read by rules: write gold.bars_5m"),
        (10, "rule two: unknown key cooldwn: write cooldown"),
        (14, "rule two: when: gold.bars_5m has no column ranje"),
        (16, "rule two: for: write a whole number with its unit: 30s, 15m, 2h or 1d"),
        (17, "rule two: severity: Input should be 'error' or 'warn'"),
        (18, 'rule two: quiet_hours: write "22:00-07:00 Europe/Berlin"'),
        (19, "rule two: budget: Input should be greater than 0"),
        (20, "rule Three: description: is missing", "rule Three: name: use lower-case letters"),
        (22, "rule Three: table occurs twice: remove one"),
        (26, "rule four: table: gold.latest_prices cannot be read by rules, because its rows have no slot"),
        (28, "unknown key more"),
    ):
        at_line = [text.partition(":")[2] for text in found if text.removeprefix("alerts.yaml:").startswith(f"{line}:")]
        for part in parts:
            assert any(part in text for text in at_line), (line, part, found)


def test_what_a_valid_form_still_gets_wrong_is_found():
    text = """rules:
- {name: a, description: d, table: gold.bar_5m, when: range > 0.1}
- {name: b, description: d, table: gold.bars_5m, when: ranje > 0.1, value: symbol}
- {name: c, description: d, table: gold.bars_5m, when: range > 0.1, value: symbol, show: [colour]}
- {name: d, description: d, table: gold.bars_5m, when: range, value: symbol}
- {name: e, description: d, table: gold.bars_5m, when: range > 0.1}
- {name: e, description: d, table: gold.bars_5m, when: range > 0.1}
"""
    assert [p.removeprefix("alerts.yaml:") for p in problems(text)] == [
        "2: rule a: table: gold.bar_5m cannot be read by rules: write gold.bars_5m",
        "3: rule b: when: gold.bars_5m has no column ranje: write range",
        "4: rule c: show: " + problems(text)[2].partition("show: ")[2],
        "5: rule d: when: is DOUBLE, and a condition is expected",
        "5: rule d: value: is VARCHAR, and a number is expected",
        "7: rule e: there is one of this name in line 6; rename one",
    ]
    assert "has no column colour" in problems(text)[2]


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("true) FROM read_csv('x') WHERE (true", "not an SQL expression"),
        ("price > 1; SELECT 1", "not an SQL expression"),
        ("(SELECT true)", "a subquery reads other rows"),
        ("EXISTS (SELECT 1 FROM read_csv('/etc/passwd'))", "a subquery reads other rows"),
        ("price IN (SELECT 1)", "a subquery reads other rows"),
        ("lag(r5) OVER (ORDER BY window_end) > 1", "also across a hole: use the columns r5"),
        ("read_text('/etc/passwd') = 'x'", "function read_text is not possible"),
        ("getenv('HOME') = 'x'", "function getenv is not possible"),
        ("random() > 0.5", "function random is not possible"),
        ("now() > window_end", "function now is not possible"),
        ("current_timestamp > window_end", "is the clock"),
        ("count(*) > 1", "is not possible in a rule"),
        ("* > 1", "name the columns"),
        ("COLUMNS('r.*') > 1", "name the columns"),
        ("r5 > $1", "write the value"),
        ("other.r5 > 1", "has no column other.r5"),
        ("r5", "is DOUBLE, and a condition is expected"),
        ("r5 > 'a'::DATE", "when: "),
    ],
)
def test_an_expression_that_sees_more_than_its_row_is_refused(when, why):
    (found,) = problems(with_condition(when))
    assert "rule a: when: " in found
    assert why in found


@pytest.mark.parametrize(
    "when",
    [
        "abs(r5) > 0.02 AND null_reason IS NULL",
        "NOT is_complete OR price IN (1, 2) OR r5 BETWEEN -1 AND 1",
        "CASE WHEN r5 > 1 THEN true ELSE hour(window_end) < 6 END",
        "window_end - price_at > INTERVAL 10 MINUTES",
        "r5 > 1 -- a comment",
        "null_reason LIKE '%stale%'",
    ],
)
def test_an_expression_over_its_row_is_accepted(when):
    assert rules(with_condition(when))[0].when == when


@pytest.mark.parametrize("text", ["", "rules:\n", "rules: []\n", "# nothing\n"])
def test_a_file_without_rules_is_no_problem(text):
    assert rules(text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rules: [\n", "alerts.yaml:2: not YAML: "),
        ("rules: 3\n", "alerts.yaml:1: rules is no list"),
        ("- name: a\n", "alerts.yaml:1: the file is a list: begin it with a line `rules:`"),
        ("name\n", "alerts.yaml:1: the file is no mapping"),
        ("rules:\n- move\n", "alerts.yaml:2: a rule: the rule is no mapping"),
        ("rules: \x00", "alerts.yaml: not YAML: "),
    ],
)
def test_a_file_of_another_form_is_named(text, why):
    with pytest.raises(RulesError, match="^" + why.replace("[", r"\[")):
        rules(text)


@pytest.mark.parametrize(
    ("span", "now", "until"),
    [
        ("22:00-07:00", "21:59", None),
        ("22:00-07:00", "22:00", "2026-11-29T07:00"),
        ("22:00-07:00", "06:59", "2026-11-28T07:00"),
        ("22:00-07:00", "07:00", None),
        ("09:00-17:00", "12:00", "2026-11-28T17:00"),
        ("22:00-07:00 Europe/Berlin", "21:00", "2026-11-29T06:00"),
    ],
)
def test_quiet_hours_end_at_the_next_end(span, now, until):
    held = rule(MOVE, quiet_hours=span).quiet_hours
    assert held is not None
    end = held.until(datetime.fromisoformat(f"2026-11-28T{now}+00:00"))
    assert end == (datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None)


def test_the_hash_is_of_what_decides_when_a_rule_fires():
    one = rule(MOVE)
    assert one.content_hash == rule(MOVE, channels=["phone"], budget=3, description="x", severity="error").content_hash
    others = [rule(MOVE, **changed) for changed in ({"when": "abs(r5) >= 0.03"}, {"for": "5m"}, {"cooldown": "1h"})]
    assert len({one.content_hash, *(r.content_hash for r in others)}) == 4
