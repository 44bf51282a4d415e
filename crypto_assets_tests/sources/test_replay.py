from __future__ import annotations

import io
import tarfile
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from crypto_assets.market.coins import default_registry
from crypto_assets.sources.feed import Quote
from crypto_assets.sources.replay import DAY, QUOTE_DELAY, RECORDED_DAY, Recording, ReplayFeed
from crypto_assets_tests.market.recordings import shared

ANCHOR = date(2026, 5, 2)
TODAY = datetime(2026, 5, 2, tzinfo=UTC)
"""Start of the day on which the whole recorded day is played."""
MINUTE = timedelta(minutes=1)
COINS = ("bitcoin", "ethereum", "litecoin")


@pytest.fixture(scope="module")
def feed() -> ReplayFeed:
    return ReplayFeed(ANCHOR)


def quote(feed: ReplayFeed, coin_id: str, now: datetime) -> Quote:
    (found,) = [q for q in feed.quotes(now) if q.coin_id == coin_id]
    return found


def cents(usd: Decimal | int) -> Decimal:
    return Decimal(usd).quantize(Decimal("0.01"))


def played(feed: ReplayFeed, start: datetime, end: datetime) -> dict[str, list[Quote]]:
    """What a producer that looks every minute sees as new, by coin."""
    seen: dict[str, dict[datetime, Quote]] = {c: {} for c in COINS}
    now = start
    while now < end:
        for q in feed.quotes(now):
            if q.last_updated_at >= start:
                seen[q.coin_id].setdefault(q.last_updated_at, q)
        now += MINUTE
    return {c: list(by_time.values()) for c, by_time in seen.items()}


@pytest.fixture(scope="module")
def two_days(feed) -> dict[str, list[Quote]]:
    # Looks come one second before the full minute, when the minute's quote is there.
    return played(feed, TODAY - DAY + QUOTE_DELAY, TODAY + DAY + QUOTE_DELAY)


def test_the_two_days_hold_as_many_quotes_as_were_recorded(two_days):
    assert {c: len(q) for c, q in two_days.items()} == {"bitcoin": 2447, "ethereum": 2449, "litecoin": 2447}
    today = {c: sum(q.last_updated_at >= TODAY for q in quotes) for c, quotes in two_days.items()}
    assert today == {"bitcoin": 1440, "ethereum": 1440, "litecoin": 1439}


def test_quotes_are_the_recorded_closes_at_the_recorded_time_of_day(two_days):
    for coin_id, series in Recording.load().series.items():
        shift = ANCHOR - RECORDED_DAY
        assert [q.last_updated_at for q in two_days[coin_id]] == [t + shift for t in series.times]
        assert [q.price for q in two_days[coin_id]] == list(series.closes)


def test_the_gap_of_seven_hours_is_there(feed, two_days):
    gaps = [
        (coin_id, f"{a:%H:%M}", f"{b:%H:%M}")
        for coin_id, series in Recording.load().series.items()
        for a, b in pairwise(series.times)
        if b - a > timedelta(minutes=10)
    ]
    assert gaps == [
        ("bitcoin", "16:47", "00:00"), ("ethereum", "16:52", "00:00"), ("litecoin", "16:50", "00:00"),
    ]  # fmt: skip
    silent = (TODAY - timedelta(hours=7), TODAY)
    for quotes in two_days.values():
        assert [q for q in quotes if silent[0] <= q.last_updated_at < silent[1]] == []
    # In the gap the last quote stands, with its own time: nothing is made up.
    assert quote(feed, "bitcoin", TODAY - timedelta(hours=1)).last_updated_at.hour == 16


def test_no_quote_is_later_than_the_moment_that_asks(feed):
    for second in range(0, 2 * 86_400, 997):
        now = TODAY - DAY + timedelta(seconds=second)
        assert all(q.last_updated_at <= now for q in feed.quotes(now))


def test_before_the_recording_there_is_nothing(feed):
    assert feed.quotes(TODAY - DAY) == []
    assert feed.quotes(TODAY - 40 * DAY) == []
    assert [q.coin_id for q in feed.quotes(TODAY - DAY + QUOTE_DELAY)] == list(COINS)


@pytest.mark.parametrize("coin_id", COINS)
@pytest.mark.parametrize("nights", [1, 2, 30])
def test_a_midnight_has_no_jump(feed, coin_id, nights):
    midnight = TODAY + nights * DAY
    evening = quote(feed, coin_id, midnight - timedelta(seconds=1))
    assert quote(feed, coin_id, midnight) == Quote(
        **{**vars(evening), "volume_24h": quote(feed, coin_id, midnight).volume_24h}
    )
    morning = quote(feed, coin_id, midnight + QUOTE_DELAY)
    assert morning.last_updated_at == midnight + QUOTE_DELAY
    # The first quote of the repeated day is the last one of the day before: the scale is made so.
    assert abs(morning.price / evening.price - 1) < Decimal("1e-9")


def test_a_repeated_day_moves_as_the_recorded_one(feed):
    for hours in (1, 5.5, 13, 23):
        then, later = TODAY + timedelta(hours=hours), TODAY + 3 * DAY + timedelta(hours=hours)
        first = quote(feed, "ethereum", then).price / quote(feed, "ethereum", then - timedelta(minutes=30)).price
        again = quote(feed, "ethereum", later).price / quote(feed, "ethereum", later - timedelta(minutes=30)).price
        assert abs(first - again) < Decimal("1e-8")


def test_the_seam_says_how_it_was_scaled(feed):
    noon = TODAY + timedelta(hours=12)
    assert feed.headers(noon) == {"recorded_at": "2018-04-05T12:00:00Z", "shift_days": "2949"}
    assert feed.headers(noon - DAY) == {"recorded_at": "2018-04-04T12:00:00Z", "shift_days": "2949"}
    again = feed.headers(noon + 2 * DAY)
    assert (again["recorded_at"], again["shift_days"]) == ("2018-04-05T12:00:00Z", "2951")
    repetition, _, factors = again["seam"].partition("; ")
    assert repetition == "repetition 2"
    for told in factors.split(", "):
        coin_id, _, factor = told.partition(" x ")
        ratio = quote(feed, coin_id, noon + 2 * DAY).price / quote(feed, coin_id, noon).price
        assert abs(ratio - Decimal(factor)) < Decimal("1e-7")


def test_volume_is_unknown_until_24_hours_without_a_gap(feed):
    def known(now: datetime) -> set[str]:
        return {q.coin_id for q in feed.quotes(now) if q.volume_24h is not None}

    assert known(TODAY - timedelta(hours=8)) == set()
    assert known(TODAY + timedelta(hours=23, minutes=59)) == set()
    assert known(TODAY + DAY) == set(COINS)


def test_volume_is_the_turnover_of_the_last_24_hours(feed):
    series = Recording.load().series["litecoin"]
    today = [(t, p * v) for t, p, v in zip(series.times, series.closes, series.volumes, strict=True) if t.day == 5]
    assert quote(feed, "litecoin", TODAY + DAY).volume_24h == cents(sum(usd for _, usd in today))
    # At noon of the repeated day: the morning at today's prices, and the afternoon of the day before.
    scale = series.closes[-1] / next(p for t, p in zip(series.times, series.closes, strict=True) if t.day == 5)
    expected = cents(sum(usd * scale if t.hour < 12 else usd for t, usd in today))
    assert quote(feed, "litecoin", TODAY + DAY + timedelta(hours=12)).volume_24h == expected


def test_what_was_not_recorded_is_null_and_changes_never_bridge_the_gap(feed):
    early, late = TODAY + timedelta(minutes=30), TODAY + timedelta(hours=2)
    for now in (early, late, TODAY + 2 * DAY):
        for q in feed.quotes(now):
            assert (q.market_cap, q.change_7d_pct) == (None, None)
    assert {q.change_1h_pct for q in feed.quotes(early)} == {None}
    assert None not in {q.change_1h_pct for q in feed.quotes(late)}
    assert None not in {q.change_24h_pct for q in feed.quotes(TODAY + timedelta(hours=10))}
    assert {q.change_24h_pct for q in feed.quotes(TODAY + timedelta(hours=20))} == {None}


def test_a_change_is_the_one_of_the_recorded_prices(feed):
    series = Recording.load().series["bitcoin"]
    closes = dict(zip(series.times, series.closes, strict=True))
    at = datetime(2018, 4, 5, 13, 40, tzinfo=UTC) + QUOTE_DELAY
    expected = (closes[at] / closes[at - timedelta(hours=1)] - 1) * 100
    found = quote(feed, "bitcoin", at + (ANCHOR - RECORDED_DAY)).change_1h_pct
    assert found is not None
    assert abs(found - expected) <= Decimal("0.000005")


def test_history_gives_what_a_poll_would_have_seen_and_leaves_the_gap_open(feed):
    times = [TODAY - DAY + i * timedelta(minutes=5) for i in range(1, 2 * 288)]
    found = dict(feed.history("bitcoin", times))
    for moment, price in found.items():
        assert quote(feed, "bitcoin", moment).price == price
    absent = sorted(set(times) - set(found))
    assert absent[0] == TODAY - DAY + timedelta(hours=17)
    assert absent[-1] == TODAY
    assert len(absent) == 85


@pytest.mark.parametrize("moment", [TODAY - timedelta(hours=10), TODAY + timedelta(hours=13.7), TODAY + 5.1 * DAY])
def test_quotes_are_a_function_of_time_alone(feed, moment):
    other = ReplayFeed(ANCHOR)
    other.quotes(TODAY + 9 * DAY)
    assert feed.quotes(moment) == feed.quotes(moment) == other.quotes(moment)
    elsewhere = moment.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+09:00").tzinfo)
    assert feed.quotes(elsewhere) == feed.quotes(moment)


def test_the_basket_is_what_the_recording_holds():
    assert set(Recording.load().series) == {c.coin_id for c in default_registry("replay").coins}


def test_the_packaged_recording_is_the_original_archive():
    archive = shared("minute/lean_coinbase_minute_2016-2018_btc_eth_ltc.tar.xz")
    original: dict[str, list[tuple[datetime, Decimal, Decimal]]] = {c: [] for c in COINS}
    pairs = {"btcusd": "bitcoin", "ethusd": "ethereum", "ltcusd": "litecoin"}
    with tarfile.open(archive) as packed:
        for name in sorted(m.name for m in packed.getmembers()):
            if not name.endswith(("20180404_trade.zip", "20180405_trade.zip")):
                continue
            pair, file = name.split("/")[-2:]
            day = datetime.strptime(file[:8], "%Y%m%d").replace(tzinfo=UTC)
            member = packed.extractfile(name)
            assert member is not None
            with zipfile.ZipFile(io.BytesIO(member.read())) as zipped:
                for line in zipped.read(zipped.namelist()[0]).decode().splitlines():
                    since, _open, _high, _low, close, volume = line.split(",")
                    at = day + timedelta(milliseconds=int(since)) + QUOTE_DELAY
                    original[pairs[pair]].append((at, Decimal(close), Decimal(volume)))
    ours = {c: list(zip(s.times, s.closes, s.volumes, strict=True)) for c, s in Recording.load().series.items()}
    assert ours == original
    assert sum(len(rows) for rows in ours.values()) == 7343
