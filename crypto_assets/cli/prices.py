"""`prices`: the board of a home as a table: price, changes, volume, market cap and age, and why a value is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from crypto_assets.cli import output
from crypto_assets.cli.signals import stop_requested
from crypto_assets.errors import UsageError
from crypto_assets.serving.lake import Lake, open_lake
from crypto_assets.serving.queries import BOARD
from crypto_assets.settings import Settings

UP, DOWN, UNKNOWN = "▲", "▼", "-"
NULLS = {
    "change_1h_null": "1 h",
    "change_24h_null": "24 h",
    "volume_24h_null": "volume",
    "market_cap_null": "market cap",
}
"""Columns of the board that give the reason of a null, with the column shown."""
RIGHT = ("price USD", "1 h", "24 h", "volume", "market cap", "age")
LARGE = ((10**12, "T"), (10**9, "B"), (10**6, "M"))
"""Units of large amounts for people, with their signs."""


@dataclass(frozen=True)
class Board:
    """The board at one moment.

    Args:
        source: Data mode.
        banner: The sentence that names the data mode.
        now: Time that ages are counted to (UTC): the clock, or the newest event of a virtual source.
        live: Whether `now` is the clock.
        coins: Rows of the query `board`.
    """

    source: str
    banner: str
    now: datetime
    live: bool
    coins: Sequence[Mapping[str, Any]]

    @property
    def newest(self) -> datetime | None:
        """Event time of the newest quote (UTC)."""
        return max((row["last_updated_at"] for row in self.coins), default=None)


def board(lake: Lake, clock: datetime) -> Board:
    """Read the board of a lake."""
    now = lake.now(clock)
    coins = lake.answer(BOARD, now=now).records()
    return Board(lake.source.name, lake.source.banner, now, lake.source.live, coins)


def run(settings: Settings, *, as_json: bool, watch: bool, every_s: float) -> int:
    """Print the board; 0, or 1 without a quote. With `watch` again at every change, until a signal.

    Raises:
        HomeError: There is no home.
        UsageError: `watch` and `as_json` exclude each other.
    """
    if watch and as_json:
        raise UsageError("--watch and --json exclude each other: repeat the command for JSON")
    with open_lake(settings) as lake:
        seen = lake.versions
        found = _print(lake, settings, as_json)
    with stop_requested() as stop:
        while watch and not stop.wait(every_s):
            with open_lake(settings) as lake:
                if output.console.is_terminal:
                    output.console.clear()
                elif lake.versions == seen:
                    continue
                seen = lake.versions
                found = _print(lake, settings, as_json)
    return 0 if found.coins else 1


def _print(lake: Lake, settings: Settings, as_json: bool) -> Board:
    found = board(lake, datetime.now(UTC))
    if as_json:
        output.exact_json(_record(found, settings))
    else:
        output.say(found.banner)
        show(found)
    return found


def show(found: Board, title: str = "Prices") -> None:
    """Print the age of the data, the table, and the reasons of what it does not show."""
    if not found.coins:
        output.say("no quote yet: gold.latest_prices is empty; begin with: crypto-assets demo, or crypto-assets up")
        return
    output.say(_age(found))
    output.table(title, [_cells(row) for row in found.coins], right=RIGHT, style=_style)
    for line in notes(found.coins):
        output.say(line)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "coin": row["name"] or row["coin_id"],
        "price USD": money(row["price_usd"]),
        "1 h": _change(row["change_1h_pct"]),
        "24 h": _change(row["change_24h_pct"]) + ("*" if row["change_24h_since"] else ""),
        "volume": _large(row["volume_24h_usd"]),
        "market cap": _large(row["market_cap_usd"]),
        "age": output.duration(row["age_s"]),
    }


def notes(coins: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each price of 24 h ago that is from bars, and for each reason of unknown values."""
    lines = []
    since: dict[datetime, list[str]] = {}
    why: dict[str, dict[str, list[str]]] = {}
    for row in coins:
        if row["change_24h_since"]:
            since.setdefault(row["change_24h_since"].replace(second=0), []).append(row["symbol"])
        for column, shown in NULLS.items():
            if row[column]:
                why.setdefault(row[column], {}).setdefault(shown, []).append(row["symbol"])
    for moment, symbols in sorted(since.items()):
        lines.append(f"* since {moment:%Y-%m-%d %H:%M}, from the bar nearest to 24 h ago: {_whose(symbols, coins)}")
    for reason, shown in sorted(why.items()):
        by_coins: dict[str, list[str]] = {}
        for name, symbols in shown.items():
            by_coins.setdefault(_whose(symbols, coins), []).append(name)
        parts = "; ".join(f"{', '.join(names)} of {who}" for who, names in by_coins.items())
        lines.append(f"{UNKNOWN} {reason}: {parts}")
    return lines


def _whose(symbols: list[str], coins: Sequence[Mapping[str, Any]]) -> str:
    return "every coin" if len(symbols) == len(coins) else ", ".join(symbols)


def _age(found: Board) -> str:
    assert found.newest is not None
    at = f"newest quote {found.newest:%Y-%m-%d %H:%M:%S} UTC"
    if found.live:
        return f"{at}, {output.duration((found.now - found.newest).total_seconds())} old"
    return f"{at}; in a {found.source} home that is the present, from which changes and ages count"


def _record(found: Board, settings: Settings) -> dict[str, Any]:
    return {
        "source": found.source,
        "banner": found.banner,
        "home": str(settings.home),
        "now": found.now,
        "newest_quote": found.newest,
        "coins": found.coins,
    }


def money(amount: Decimal) -> str:
    """A price with grouped digits: two decimals or more, as many as it has below 1 USD (six significant ones)."""
    if amount >= 1:
        return f"{amount:,.2f}" if amount >= 100 else f"{amount:,.4f}"
    return output.plain(Decimal(f"{amount:.6g}"))


def _large(amount: Decimal | None) -> str:
    """An amount in USD with three or four digits: `1.32 T`."""
    if amount is None:
        return UNKNOWN
    for unit, sign in LARGE:
        if amount >= unit:
            return f"{amount / unit:,.2f} {sign}"
    return f"{amount:,.0f}" if amount >= 1 else output.plain(Decimal(f"{amount:.3g}"))


def _change(percent: float | None) -> str:
    if percent is None:
        return UNKNOWN
    mark = UP if percent > 0 else DOWN if percent < 0 else " "
    return f"{mark} {percent:+.2f} %"


def _style(cell: str) -> str:
    return {UP: "green", DOWN: "red"}.get(cell[:1], "")
