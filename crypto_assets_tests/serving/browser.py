"""A headless Chromium and the page of a served home, for tests of the dashboard.

The server runs in this process with a clock of the test's choosing, since the data are of a fixed day.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crypto_assets.home import open_home
from crypto_assets.serving.server import ApiServer, address, listen
from crypto_assets.serving.service import Service
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).with_name("axe") / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Chromium runs as root in containers, and looks nothing up on the network."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; the test is skipped where there is none, since Playwright's own is a download."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no {NAMES[0]} here: apt-get install {NAMES[0]}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Server:
    """The API and the page of a home, at an address that stays the same over restarts.

    Args:
        settings: Settings of the home.
    """

    settings: Settings
    port: int = 0
    url: str = ""
    _running: tuple[ApiServer, threading.Thread] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Serve; returns when the address listens."""
        listening = listen("127.0.0.1", self.port)
        self.port, self.url = listening.getsockname()[1], address(listening)
        server = ApiServer(self.settings, open_home(self.settings), listening)
        thread = threading.Thread(target=server.run, name="page")
        thread.start()
        self._running = server, thread

    def stop(self) -> None:
        """Stop serving and wait for the end."""
        if self._running is not None:
            server, thread = self._running
            server.stop()
            thread.join()
            self._running = None


@contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """A running server of a home."""
    server = Server(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def set_clock(patch: pytest.MonkeyPatch, now: datetime) -> None:
    """Let the server's clock go on from a time."""
    began = datetime.now(UTC)
    patch.setattr(Service, "now", staticmethod(lambda: now + (datetime.now(UTC) - began)))


class View:
    """A page of the dashboard in its own browser context, which collects what the browser complains about.

    Args:
        browser: The browser.
        server: Whose page.
        options: Of the context, such as `viewport`.
    """

    def __init__(self, browser: Browser, server: Server, **options: Any) -> None:
        self._context = browser.new_context(**options)
        self.server = server
        self.complaints: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def close(self) -> None:
        """Close the context."""
        self._context.close()

    def open(self, place: str = "#/") -> Page:
        """Open a place, as from a link, and wait until the view is there."""
        self.page.goto(f"{self.server.url}/{place}")
        return self.shown()

    def go(self, place: str) -> Page:
        """Change to a place of the page that is open."""
        self.page.evaluate(
            """place => location.hash === place || new Promise((arrived) => {
              addEventListener("hashchange", arrived, { once: true });
              location.hash = place;
            })""",
            place,
        )
        return self.shown()

    def shown(self) -> Page:
        """Wait until the view is complete."""
        self.page.wait_for_selector("main[aria-busy=false]")
        return self.page

    def too_wide(self) -> list[str]:
        """Tables wider than what they are in, and the page, where it is wider than the window."""
        return self.page.evaluate(
            """() => [
              ...[...document.querySelectorAll(".tablebox table, figure, dl")]
                .filter((one) => one.getBoundingClientRect().width > one.parentElement.clientWidth + 1
                  || one.scrollWidth > one.clientWidth + 1)
                .map((one) => one.caption?.textContent ?? one.className),
              ...(document.documentElement.scrollWidth > innerWidth ? ["the page"] : []),
            ]"""
        )

    def violations(self) -> list[str]:
        """Findings of axe, whatever their impact."""
        # Evaluated, not added as a script: the content security policy forbids inline scripts.
        if not self.page.evaluate("() => 'axe' in globalThis"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        return self.page.evaluate(
            """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
              .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`)"""
        )
