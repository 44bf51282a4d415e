"""Back-test of rules: how often each would have fired per coin and day over the rows that a home holds.

The rows go through the same judgement as live ones. A rule is tested alone: no other changes when it fires.

Does not belong here: judging (`judgement`), enabling (`market`), printing (`cli.alert_rules`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from crypto_assets.alerts import conditions, judgement
from crypto_assets.alerts.alerts import Alert, State
from crypto_assets.alerts.market import Tested

if TYPE_CHECKING:
    import pyarrow as pa

    from crypto_assets.alerts.rules import Rule
    from crypto_assets.storage.store import DeltaStore

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Result:
    """Outcome for one rule.

    Args:
        rule: The rule.
        alerts: Alerts that would have fired, oldest first.
        days: Days with rows, by coin; the coin is empty for a rule about all coins.
    """

    rule: Rule
    alerts: tuple[Alert, ...]
    days: dict[str, frozenset[date]]

    def fires(self) -> dict[str, Counter[date]]:
        """Alerts per day, by coin; every coin that has rows is in it."""
        found: dict[str, Counter[date]] = {coin: Counter() for coin in sorted(self.days)}
        for alert in self.alerts:
            found[alert.coin_id or ""][day_of(alert.at)] += 1
        return found

    def worst(self) -> tuple[str, float]:
        """The coin with the most alerts per day with rows, and how many; without rows no coin and 0."""
        rates = {coin: fires.total() / len(self.days[coin]) for coin, fires in self.fires().items()}
        return max(rates.items(), key=lambda item: item[1], default=("", 0.0))

    def tested(self, now: datetime) -> Tested:
        """What the home keeps of it.

        Args:
            now: Time of the test (UTC).
        """
        coin, per_day = self.worst()
        days = max((len(days) for days in self.days.values()), default=0)
        return Tested(self.rule.content_hash, coin, per_day, days, len(self.alerts), now.isoformat())


def run(rules: Iterable[Rule], store: DeltaStore) -> list[Result]:
    """Test each rule on all rows of its table.

    Args:
        rules: Vetted rules.
        store: Store with their tables; a table that does not exist has no rows.
    """
    return [of_rows(rule, store.read_arrow(rule.table, columns=conditions.columns(rule))) for rule in rules]


def of_rows(rule: Rule, rows: pa.Table) -> Result:
    """Test one rule on rows of its table."""
    transitions = judgement.judge([rule], {rule.table: rows}, {}, State())
    return Result(rule, tuple(a for a in transitions if a.state == "firing"), conditions.days(rule, rows))


def day_of(slot_end: datetime) -> date:
    """UTC day that a slot belongs to, given its end."""
    return (slot_end - _INSTANT).date()
