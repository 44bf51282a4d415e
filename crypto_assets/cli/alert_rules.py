"""`alerts backtest|enable|disable|rules|test-channel`: rules of market alerts, tested before they are enabled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from crypto_assets.alerts.alerts import Alert
from crypto_assets.alerts.backtest import Result, run
from crypto_assets.alerts.channels import channels
from crypto_assets.alerts.market import Enabled, MarketAlerts, MarketState
from crypto_assets.alerts.rules import Rule, short
from crypto_assets.alerts.webhook import WEBHOOK
from crypto_assets.cli import output
from crypto_assets.engine.engines import make_engine
from crypto_assets.errors import FAILED, SUCCESS, UsageError
from crypto_assets.home import existing_home
from crypto_assets.settings import Settings

SHOWN_DAYS = 5
"""Days with a column of their own in the table of a back-test; --json has all."""
ALL_COINS = "(all coins)"


def _market(settings: Settings) -> MarketAlerts:
    existing_home(settings)
    return MarketAlerts(settings, make_engine(settings).store)


def _named(market: MarketAlerts, names: Sequence[str]) -> list[Rule]:
    """The rules of these names; all without any.

    Raises:
        UsageError: There are no such rules.
    """
    rules = {rule.name: rule for rule in market.rules()}
    if not names:
        return list(rules.values())
    unknown = []
    for name in dict.fromkeys(n for n in names if n not in rules):
        near = get_close_matches(name, rules, 1)
        unknown.append(f"{name} (do you mean {near[0]}?)" if near else name)
    if unknown:
        raise UsageError(f"there are no rules {', '.join(unknown)}; list them: crypto-assets alerts rules")
    return [rules[name] for name in dict.fromkeys(names)]


def backtest(settings: Settings, names: Sequence[str], *, now: datetime, as_json: bool) -> int:
    """Print how often rules would have fired per coin and day, and keep the result for `enable`; always 0.

    Raises:
        HomeError: There is no home.
        RulesError: The rules file cannot be used.
        UsageError: There is no such rule.
    """
    market = _market(settings)
    results = run(_named(market, names), market.store)
    with market.changing() as state:
        state.tested |= {result.rule.name: result.tested(now) for result in results if result.days}
    if as_json:
        output.as_json([_record(result) for result in results])
        return SUCCESS
    output.say(settings.source_facts.banner)
    rows, days = _rows(results)
    if rows:
        output.table("Alerts per coin and day", rows, ["rule", "coin", *days, "days", "alerts", "per day", "budget"])
    for result in results:
        output.say(_verdict(result))
    return SUCCESS


def _rows(results: Sequence[Result]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the table, and its day columns: the newest."""
    newest = sorted({day for result in results for days in result.days.values() for day in days})[-SHOWN_DAYS:]
    rows = []
    for result in results:
        for coin, fires in result.fires().items():
            held = result.days[coin]
            rows.append(
                {
                    "rule": result.rule.name,
                    "coin": coin or ALL_COINS,
                    **{f"{day:%m-%d}": fires[day] if day in held else None for day in newest},
                    "days": len(held),
                    "alerts": fires.total(),
                    "per day": fires.total() / len(held),
                    "budget": result.rule.budget,
                }
            )
    return rows, [f"{day:%m-%d}" for day in newest]


def _verdict(result: Result) -> str:
    rule, (coin, per_day) = result.rule, result.worst()
    if not result.days:
        return f"{rule.name}: {rule.table} has no rows to test it on"
    if per_day > rule.budget:
        return f"{rule.name}: over its budget: {coin or ALL_COINS} {per_day:.2f} a day, and {rule.budget:g} is allowed"
    within = f"within its budget, {per_day:.2f} of {rule.budget:g} a day"
    return f"{rule.name}: {within}; crypto-assets alerts enable {rule.name}"


def _record(result: Result) -> dict[str, Any]:
    coin, per_day = result.worst()
    return {
        "rule": result.rule.name,
        "hash": result.rule.content_hash,
        "budget": result.rule.budget,
        "worst_coin": coin or None,
        "worst_per_day": per_day,
        "coins": [
            {
                "coin_id": coin or None,
                "days": {day.isoformat(): fires[day] for day in sorted(result.days[coin])},
            }
            for coin, fires in result.fires().items()
        ],
        "alerts": [
            {
                "alert_id": a.alert_id,
                "coin_id": a.coin_id,
                "at": a.at.isoformat(),
                "value": a.value,
                "summary": a.summary,
            }
            for a in result.alerts
        ],
    }


def enable(settings: Settings, names: Sequence[str]) -> int:
    """Enable rules from the present slot on; none if one of them is refused.

    Raises:
        UsageError: Lists every reason with its fix.
    """
    market = _market(settings)
    rules = _named(market, names)
    with market.changing() as state:
        refused = [text for rule in rules for text in _refusals(rule, state, market)]
        if refused:
            raise UsageError("; ".join(refused))
        for rule in [rule for rule in rules if rule not in market.in_force(state)]:
            newest = market.newest_slot(rule.table)
            state.enabled[rule.name] = Enabled(rule.content_hash, newest.isoformat() if newest else None)
            state.versions.pop(rule.table, None)  # its newest rows are judged at once
            for key in [key for key in state.tracks if key[0] == rule.name]:
                del state.tracks[key]
    where = ", ".join(sorted({name for rule in rules for name in rule.channels if name in market.channels}))
    output.say(f"enabled: {', '.join(rule.name for rule in rules)}; sent to: {where or 'no channel, only ops.alerts'}")
    return SUCCESS


def _refusals(rule: Rule, state: MarketState, market: MarketAlerts) -> list[str]:
    """Why a rule may not be enabled."""
    tested, again = state.tested.get(rule.name), f"crypto-assets alerts backtest {rule.name}"
    found = []
    if not rule.enabled:
        found.append(f"{rule.name} has enabled: false in its file; remove that line")
    if tested is None:
        found.append(f"{rule.name} was never back-tested: {again}")
    elif tested.content_hash != rule.content_hash:
        found.append(f"{rule.name} has changed since its back-test: {again}")
    elif tested.per_day > rule.budget:
        found.append(
            f"{rule.name} would fire {tested.per_day:.2f} times a day for {tested.coin or 'all coins'}, and its budget "
            f"is {rule.budget:g}: raise its threshold, for or cooldown and back-test it again, or raise its budget"
        )
    if missing := ", ".join(n for n in rule.channels if n != WEBHOOK and n not in market.channels):
        found.append(
            f"{rule.name} names channels that are not configured: add {missing} to CRYPTO_ASSETS_ALERT_CHANNELS"
        )
    return found


def disable(settings: Settings, names: Sequence[str], *, now: datetime) -> int:
    """Disable rules; their open alerts end.

    Raises:
        UsageError: There is no such rule, neither in a file nor enabled.
    """
    market = _market(settings)
    if unknown := [name for name in names if name not in market.state().enabled]:
        _named(market, unknown)
    with market.changing() as state:
        was = [name for name in dict.fromkeys(names) if state.enabled.pop(name, None)]
    market.tick(now)
    output.say(f"disabled: {', '.join(was)}" if was else "none of them was enabled")
    return SUCCESS


def rules(settings: Settings, *, as_json: bool) -> int:
    """Print every rule with its state and newest back-test; always 0."""
    market = _market(settings)
    state = market.state()
    records = [_listed(rule, state) for rule in market.rules()]
    if as_json:
        output.as_json(records)
        return SUCCESS
    columns = ["rule", "state", "table", "when", "for", "cooldown", "channels", "per day", "budget"]
    output.table("Rules", records, columns)
    gone = sorted(set(state.enabled) - {rule.name for rule in market.rules()})
    if gone:
        output.say(
            f"enabled, and in no file any more: {', '.join(gone)}; crypto-assets alerts disable {' '.join(gone)}"
        )
    output.say(
        f"your own rules: {settings.alert_rules_file} ({'read' if settings.alert_rules_file.exists() else 'none'})"
    )
    return SUCCESS


def _listed(rule: Rule, state: MarketState) -> dict[str, Any]:
    on, tested = state.enabled.get(rule.name), state.tested.get(rule.name)
    mode = "off"
    if on is not None:
        mode = "on" if on.content_hash == rule.content_hash and rule.enabled else "off: changed since it was enabled"
    per_day: float | str = "not tested"
    if tested is not None:
        per_day = tested.per_day if tested.content_hash == rule.content_hash else "changed since"
    return {
        "rule": rule.name,
        "state": mode if rule.enabled else "off: enabled is false",
        "table": rule.table,
        "when": " ".join(rule.when.split()),
        "for": short(rule.for_) if rule.for_ else None,
        "cooldown": short(rule.cooldown) if rule.cooldown else None,
        "severity": rule.severity,
        "channels": ", ".join(rule.channels),
        "per day": per_day,
        "budget": rule.budget,
        "tested_at": tested.at if tested else None,
    }


def test_channel(settings: Settings, name: str, *, now: datetime) -> int:
    """Send a test message; 1 if the channel does not accept it.

    Raises:
        UsageError: The channel is not configured.
    """
    import uuid

    configured = channels(settings)
    if name not in configured:
        known = f"; configured: {', '.join(sorted(configured))}" if configured else ""
        setting = "ALERT_WEBHOOK_URL" if name == "webhook" else f"CRYPTO_ASSETS_ALERT_CHANNELS with {name}=URL"
        raise UsageError(f"channel {name} is not configured: set {setting}{known}")
    key = f"test-{uuid.uuid4().hex}"
    text = "a test message of crypto-assets alerts test-channel: nothing has happened"
    alert = Alert(key, "test", "firing", "warn", None, None, None, text, now)
    done = configured[name].send([alert.row()], key=key, source=settings.source)
    if done.accepted:
        output.say(f"{name} accepted the message")
        return SUCCESS
    output.fail(f"{name} did not accept the message: {done.detail}")
    return FAILED
