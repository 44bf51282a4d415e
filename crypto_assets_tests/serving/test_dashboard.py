"""The page in a browser: layout, accessibility, keyboard, weight, age, empty homes, restarts, live bars."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import crypto_assets
from crypto_assets.files import write_atomic
from crypto_assets.home import open_home
from crypto_assets.serving.access import PAGE
from crypto_assets.serving.service import Service
from crypto_assets.settings import Settings
from crypto_assets_tests.serving import home
from crypto_assets_tests.serving.browser import Server, View, chromium, serving, set_clock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWS = ("#/", "#/coin/bitcoin", "#/leaderboard", "#/anomalies", "#/forecasts", "#/pipeline")
WIDTHS = (390, 768, 900, 1100, 1440)
OLD = timedelta(hours=18)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A filled home whose newest data are 18 hours old. Tests only add bars after its newest one."""
    with pytest.MonkeyPatch.context() as patch:
        set_clock(patch, home.END + OLD)
        with serving(home.served_home(tmp_path_factory.mktemp("page") / "home")) as found:
            yield found


@contextmanager
def view(browser: Browser, server: Server, width: int = 1440, theme: Any = "light") -> Iterator[View]:
    """A page that must not make the browser complain."""
    opened = View(browser, server, viewport={"width": width, "height": 900}, color_scheme=theme)
    try:
        yield opened
    finally:
        opened.close()
    assert opened.complaints == []


def bar(n: int, close: str = "123.5") -> dict[str, Any]:
    """The n-th 5-minute bar of bitcoin after the newest of the home."""
    start = home.END + (n - 1) * home.SLOT
    price = Decimal(close)
    return home.row(
        "gold.bars_5m", coin_id="bitcoin", symbol="BTC", window_start=start, window_end=start + home.SLOT, open=price,
        high=price, low=price, close=price, price_avg=float(price), granularity="tick", first_event_at=start,
        last_event_at=start, available_at=start, is_closed=False, day=start.date(), hour=home.floor_hour(start),
    )  # fmt: skip


def commit(server: Server, *rows: dict[str, Any]) -> None:
    """Commit bars to the served home."""
    home.write(Path(server.settings.lake), "gold.bars_5m", rows)


def text(page: Page, selector: str) -> str:
    """Visible text, with ordinary blanks."""
    return page.locator(selector).first.inner_text().replace("\u00a0", " ")


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_fits_and_is_accessible(browser: Browser, server: Server, theme: str) -> None:
    with view(browser, server, theme=theme) as opened:
        opened.open()
        for width in WIDTHS:
            opened.page.set_viewport_size({"width": width, "height": 900})
            for place in VIEWS:
                opened.go(place)
                assert opened.too_wide() == [], (place, width)
                if width in (390, 1440):
                    assert opened.violations() == [], (place, width, theme)


def test_banner_and_age_are_on_every_view(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        opened.open()
        for place in VIEWS:
            page = opened.go(place)
            assert page.locator("#banner.old").count() == 1
            assert text(page, "#banner .age").startswith("Old data: 18 h")
            assert text(page, "#banner .mode").startswith("REPLAY Coinbase")
            assert "UTC" in text(page, "#banner")


def test_age_is_right_when_nothing_was_committed_since_the_last_visit(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened, pytest.MonkeyPatch.context() as patch:
        assert text(opened.open(), "#banner .age").startswith("Old data: 18 h")
        set_clock(patch, home.END + OLD + timedelta(hours=3))
        opened.page.reload()
        assert text(opened.shown(), "#banner .age").startswith("Old data: 21 h")


def test_every_missing_value_says_why(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open()
        litecoin = page.locator("tr", has_text="Litecoin").first
        for column in ("h1", "volume", "cap"):
            assert litecoin.locator(f".c-{column} .missing").get_attribute("title") == "not reported by replay"
        assert "not reported by replay" in text(page, ".notes")
        for place in VIEWS:
            page = opened.go(place)
            silent = page.locator(".missing:not([title])").filter(has_not=page.locator("small")).count()
            assert silent == 0, place


def test_views_show_the_figures_of_the_home(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open("#/leaderboard")
        assert text(page, ".tablebox:has-text('Gainers') tbody tr").split()[-1] == "+10.00"
        assert text(page, ".tablebox:has-text('Change unknown') tbody tr").startswith("Litecoin")
        page = opened.go("#/anomalies")
        assert text(page, "main [role=status]").startswith("4 of 4 flags in the 7 days")
        assert "the budget is 1 a coin and day" in text(page, "main")
        newest = text(page, ".tablebox:has-text('Flagged') tbody tr >> nth=0")
        assert "its return against the market" in newest
        assert "9.3" in newest
        assert "like 04-12 08:35 UTC" in newest
        assert "scored before there were several scores" in text(page, ".tablebox:has-text('Flagged') .notes")
        frozen = text(page, ".tablebox:has-text('The same price') tbody").split()
        assert frozen[:4] == ["2024-05-02", "04:05", "2024-05-02", "04:20"]
        assert (frozen[4], frozen[-1]) == ("Bitcoin", "3")
        page = opened.go("#/forecasts")
        assert "0.010" in text(page, "tr:has-text('2024-04-30'):has-text('Bitcoin')")
        assert "no outcome is known yet" in text(page, "tr:has-text('live') .c-coverage")
        assert "no outcome is known yet" in text(page, ".tablebox:has-text('Over all coins') .notes")
        ahead = text(page, ".tablebox:has-text('The newest forecast of each coin') tr:has-text('Bitcoin')").split()
        assert ahead[1:4] == ["1.25", "1.50", "1.00"]
        assert "a price of the horizon before is unknown" in text(
            page, ".tablebox:has-text('The newest forecast') .notes"
        )
        scored = page.locator(".tablebox:has-text('by day, coin and version') tbody tr")
        scored.wait_for()
        assert scored.inner_text().split() == ["1", "h", "log", "har", "live", "9", "0.300", "0.400", "0.600", "0.75"]
        page = opened.go("#/pipeline")
        produced = text(page, "tr:has-text('messages_produced')")
        assert "179" in produced
        assert "23 of 24" in produced
        assert "nothing to measure in these hours" in text(page, ".tablebox:has-text('messages_produced') .notes")


def test_weight_and_requests_of_the_first_paint(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        network = opened.page.context.new_cdp_session(opened.page)
        network.send("Network.enable")
        weights: list[float] = []
        network.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
        asked: list[str] = []
        opened.page.on("request", lambda request: asked.append(request.url.removeprefix(server.url)))
        opened.open()
        data = [path for path in asked if path.startswith("/v1/") and path != "/v1/stream"]
        assert data == ["/v1/board"]
        assert not any("vendor" in path for path in asked)
        assert 10_000 < sum(weights) <= 150_000


def test_everything_is_reached_by_keyboard(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open()
        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("() => document.activeElement.textContent.trim()"))
        assert reached[0] == "Skip to the content"
        wanted = ["crypto_assets", "Board", "Leaderboard", "Anomalies", "Forecasts", "Pipeline", "Theme: Auto", "Coin"]
        assert reached[1 : 1 + len(wanted)] == wanted
        page.locator("#theme").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        page.get_by_role("button", name="Price, USD").focus()
        page.keyboard.press("Enter")
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("Price, USD")
        page.locator("a.coin", has_text="Ethereum").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('Ethereum')")
        opened.shown()
        page.locator(".holder").focus()
        newest = text(page, ".legend b")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert text(page, ".legend b") < newest
        whole = page.locator(".span").text_content()
        page.keyboard.press("+")
        page.wait_for_function("was => document.querySelector('.span').textContent !== was", arg=whole)
        page.locator("#interval-1h").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#interval-1h[aria-current]")
        opened.shown()
        assert page.evaluate("() => document.activeElement.id") == "interval-1h"


def test_places_can_be_linked_to(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open("#/coin/ethereum?interval=1h&horizon=none")
        assert text(page, "h1") == "Ethereum ETH"
        assert "1-hour bars" in text(page, "figcaption")
        opened.go("#/anomalies?coin=bitcoin&days=1")
        assert page.locator("#filter-coin").input_value() == "bitcoin"
        page.go_back()
        page.wait_for_selector("h1:has-text('Ethereum')")
    with view(browser, server) as opened:
        assert "no row of “dogecoin”" in text(opened.open("#/coin/dogecoin"), "main")


def test_zoom_is_kept_when_a_bar_arrives(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open("#/coin/bitcoin")
        for name in ("Show fewer bars", "Earlier"):
            page.get_by_role("button", name=name).click()
        # The chart says what is in view with the frame that it draws next.
        page.wait_for_function(
            """() => {
              const [now, before] = [document.querySelector(".span").textContent, globalThis.before];
              globalThis.before = now;
              return now === before;
            }""",
            polling=200,
        )
        shown = text(page, ".span")
        commit(server, bar(1))
        page.wait_for_function("() => document.querySelector('.legend').textContent.includes('123.50')")
        assert text(page, ".span") == shown
        # A later bar leaves a hole, and a bar that changes stays the same bar.
        commit(server, bar(4, "124.5"))
        page.wait_for_function("() => document.querySelector('.legend').textContent.includes('124.50')")
        assert text(page, ".span") == shown
        assert "1 hole (shaded), the longest from 2024-05-02 06:05 to 2024-05-02 06:15" in text(page, "figcaption")


def report(now: datetime) -> dict[str, Any]:
    """What the alert sensor writes about a pipeline whose promise is broken."""
    asset = {
        "asset": "ml/anomaly_model", "rows": None, "newest_event": None, "last_run": None, "checks_green": 2,
        "checks_red": ["enough_data (warn)"], "findings": ["needs 6 more days: 1 of the 7 days with scores"],
    }  # fmt: skip
    return {
        "written_at": now.isoformat(), "verdict": "promise broken", "problems": ["nothing serves this home"],
        "unknown": [], "promised_s": 330.0, "lag_s": 7200.0, "lag_records": 12, "cadence_s": 60.0,
        "service": "nothing serves this home", "producer": {"running": False, "newest_tick_age_s": None},
        "assets": [asset],
    }  # fmt: skip


def test_pipeline_shows_state_checks_and_alerts_with_their_runbook(browser: Browser, server: Server) -> None:
    with view(browser, server) as opened:
        page = opened.open("#/pipeline")
        assert "State unknown" in text(page, ".state")
        file = server.settings.home / "state" / "status.json"
        write_atomic(file, json.dumps(report(Service.now())))
        page.wait_for_selector(".state.bad")
        assert "nothing serves this home" in text(page, ".state")
        assert "2 h, 12 records" in text(page, ".facts")
        assert "needs 6 more days" in text(page, "tr:has-text('enough_data')")
        opened.go("#/forecasts")
        opened.go("#/pipeline")
        alert = page.locator("tr", has_text="open is wrong")
        assert alert.locator("a", has_text="An alert arrived").get_attribute("href") == "runbook.html#an-alert-arrived"
        file.unlink()
        page.goto(f"{server.url}/runbook.html#quotes_move")
        assert "quotes that do not change" in text(page, "tr.named")
        assert opened.too_wide() == []
        assert opened.violations() == []


def test_it_recovers_after_a_restart(browser: Browser, server: Server) -> None:
    opened = View(browser, server)
    page = opened.open()
    page.wait_for_selector("#banner .link.live")
    server.stop()
    page.wait_for_selector("#banner.lost")
    assert "Connection lost since" in text(page, "#banner")
    commit(server, bar(9, "1234.5"))
    server.start()
    page.wait_for_selector("#banner .link.live")
    page.wait_for_function("""() => document.querySelector(".spark").getAttribute("aria-label").includes("1,234.50")""")
    assert page.locator("#banner.lost").count() == 0
    opened.close()


@pytest.mark.slow
def test_an_empty_home_says_what_to_run_and_fills_by_itself(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, home.END + OLD)
    settings = Settings(source="replay", home_path=tmp_path / "home", partitions_start=home.END.date())
    open_home(settings)
    with serving(settings) as started, view(browser, started) as opened:
        page = opened.open()
        assert page.locator(".card").count() == 1
        assert "crypto-assets demo" in text(page, ".card")
        home.fill(Path(settings.lake))
        page.wait_for_selector("tr:has-text('Bitcoin')")
        assert page.locator(".card").count() == 0


def test_a_server_with_a_token_is_logged_in_to(browser: Browser, server: Server) -> None:
    token = "a token of 24 characters"
    with serving(server.settings.model_copy(update={"api_token": SecretStr(token)})) as guarded:
        opened = View(browser, guarded)  # which the browser complains about: 401
        page = opened.page
        page.goto(guarded.url)
        field = page.get_by_label("Token of the server")
        field.fill("another")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]:has-text('not the token')")
        field.fill(token)
        page.keyboard.press("Enter")
        page.wait_for_selector("tr:has-text('Bitcoin')")
        page.wait_for_selector("#banner .link.live")
        assert field.count() == 0, "the form is gone"
        opened.close()


def test_the_distribution_holds_every_file_of_the_page() -> None:
    package = Path(crypto_assets.__file__).parent
    setup = configparser.ConfigParser()
    setup.read(package.parent / "setup.cfg")
    patterns = setup["options.package_data"]["crypto_assets"].split()
    packed = {file for pattern in patterns for file in package.glob(pattern)}
    files = {file for file in PAGE.rglob("*") if file.is_file()}
    assert files <= packed
    assert {"LICENSE", "NOTICE", "lightweight-charts.js"} <= {file.name for file in files}
