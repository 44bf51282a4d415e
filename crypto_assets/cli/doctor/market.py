"""Checks of `doctor` on market alerts: the rules file, what is enabled, the channels."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from crypto_assets.alerts.channels import INSTALL, channels
from crypto_assets.alerts.market import MarketState, all_rules, state_file
from crypto_assets.alerts.rules import RulesError
from crypto_assets.cli.doctor.finding import Finding
from crypto_assets.files import UnreadableFile
from crypto_assets.settings import Settings

AREA = "market rules"


def rules(settings: Settings) -> Iterator[Finding]:
    """Rules that are enabled and cannot fire, and channels that cannot send."""
    if settings.alert_channels is not None and find_spec("apprise") is None:
        yield Finding(AREA, "error", "CRYPTO_ASSETS_ALERT_CHANNELS is set, and Apprise is not installed", INSTALL)
    try:
        known = {rule.name: rule for rule in all_rules(settings)}
        enabled = MarketState.read(state_file(settings)).enabled
    except (RulesError, UnreadableFile) as error:
        yield Finding(AREA, "error", str(error), "correct it; crypto-assets alerts rules")
        return
    wrong = 0
    for name, on in enabled.items():
        rule = known.get(name)
        again = f"crypto-assets alerts backtest {name} && crypto-assets alerts enable {name}"
        problem = None
        if rule is None:
            problem = f"rule {name} is enabled, and in no rules file", f"crypto-assets alerts disable {name}"
        elif rule.content_hash != on.content_hash:
            problem = f"rule {name} is off: it has changed since it was enabled", again
        elif missing := ", ".join(sorted(set(rule.channels) - set(channels(settings)))):
            problem = f"rule {name} is sent to channels that are not configured: {missing}", "docs/alerts.md, Channels"
        if problem is not None:
            wrong += 1
            yield Finding(AREA, "warn", *problem)
    if not wrong:
        yield Finding(AREA, "ok", f"{len(known)} rules, {len(enabled)} enabled")
