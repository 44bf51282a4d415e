"""What every route uses: the tables, older versions, the pipeline's state, the hub, and how an answer is made of them.

Belongs here: from a table and a cut to an answer. Does not belong here: parameters (`routes`), HTTP (`answers`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from crypto_assets.home import Home
from crypto_assets.ml.promotions import effective
from crypto_assets.serving.answers import Problem, Provenance, answer, envelope, iso, tag, unchanged
from crypto_assets.serving.as_of import Chosen, Versions
from crypto_assets.serving.catalogue import Catalogue
from crypto_assets.serving.disk import Disk
from crypto_assets.serving.events import events_of
from crypto_assets.serving.follow import Change, Follower
from crypto_assets.serving.held import FileGone, Row, Snapshot
from crypto_assets.serving.hub import Event, Hub
from crypto_assets.serving.kept import KEPT, LATEST, PROMOTIONS, Kept
from crypto_assets.serving.meters import Meters
from crypto_assets.serving.remembered import remember
from crypto_assets.serving.state import StateFile
from crypto_assets.settings import Settings

T = TypeVar("T")
ATTEMPTS = 3
"""Times that a cut is tried on the newest snapshot when files of older days are replaced meanwhile."""


class Service:
    """One home as it is served.

    Args:
        settings: Settings of the home.
        home: The home.
    """

    def __init__(self, settings: Settings, home: Home) -> None:
        self.settings, self.home = settings, home
        self.hub, self.versions = Hub(), Versions()
        self.state, self.catalogue = StateFile(home.state), Catalogue(settings)
        self.follower = Follower(settings.lake, KEPT.values(), self._on_change)
        self.meters = Meters()
        self.disk = Disk(home.path, Path(settings.lake))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._promotions: tuple[str, list[dict[str, Any]]] = ("", [])

    # --- following ------------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the tables; events go to this loop."""
        self._loop = loop
        self.follower.start()

    def stop(self) -> None:
        """Stop following."""
        self.follower.stop()

    def _on_change(self, change: Change | None) -> None:
        """Publish a change; between two rounds see to the pipeline's state."""
        if change is not None:
            events = events_of(change) if self.follower.loaded.is_set() else []
        else:
            events = [Event("status", None, self._state_event())] if self.state.look() else []
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.hub.publish, events)

    def _state_event(self) -> bytes:
        report = self.state.state.report or {}
        shown = {name: report.get(name) for name in ("verdict", "lag_s", "written_at", "problems")}
        return json.dumps(shown, separators=(",", ":")).encode()

    # --- reading --------------------------------------------------------------------------------------------------

    @staticmethod
    def now() -> datetime:
        """The present time (UTC)."""
        return datetime.now(UTC)

    def choose(self, kept: Kept, as_of: datetime | None = None) -> Chosen:
        """The snapshot to answer from.

        Raises:
            Problem: From `Versions.choose`; 503 when the table is there and cannot be read.
        """
        table = self.follower.tables[kept.name]
        if table.snapshot is None and table.trouble:
            raise Problem(503, f"{kept.name} cannot be read: {table.trouble}", {"Retry-After": "10"})
        if table.snapshot is None and not self.follower.loaded.is_set():
            raise Problem(503, "the tables are being loaded", {"Retry-After": "1"})
        return self.versions.choose(table, as_of)

    def require_coin(self, snapshot: Snapshot, coin: str) -> None:
        """Refuse a coin that nothing is known of, before files of older days are searched for it.

        Raises:
            Problem: 404; names the coins that there are.
        """
        prices = self.follower.snapshot(LATEST)
        known = {*snapshot.groups(), *(prices.groups() if prices else ())}
        if coin not in known:
            there = ", ".join(sorted(known)) or "none"
            raise Problem(404, f"{snapshot.kept.name} has no rows of {coin!r}; it has {there}")

    def ready(self) -> str | None:
        """None when prices can be served, else why not."""
        if not self.follower.loaded.is_set():
            return "the tables are being loaded"
        if trouble := self.follower.troubles().get(LATEST.name):
            return f"{LATEST.name} cannot be read: {trouble}"
        if self.follower.snapshot(LATEST) is None:
            return f"the home {self.home.path} holds no prices yet: crypto-assets up or crypto-assets demo fills it"
        return None

    async def cut(
        self,
        kept: Kept,
        as_of: datetime | None,
        cut: Callable[[Chosen], T],
        cold: Callable[[Snapshot], bool] = lambda _: False,
    ) -> T:
        """Apply a cut to the chosen snapshot; in a thread when files may have to be read.

        Args:
            kept: The table.
            as_of: Time that was asked for.
            cut: From the snapshot to what is wanted of it.
            cold: Whether the cut of the newest snapshot may reach days that are not in memory.

        Raises:
            Problem: From `choose`, and 410 when a file is gone, while even the newest snapshot lists it.
        """
        if as_of is None and not cold((chosen := self.choose(kept)).snapshot):
            return cut(chosen)

        def attempt() -> T:
            for _ in range(ATTEMPTS):
                try:
                    return cut(self.choose(kept, as_of))
                except FileGone:
                    self.follower.tables[kept.name].look()
            raise Problem(410, f"files of {kept.name} are gone; the next request reads the newest version")

        return await run_in_threadpool(attempt)

    # --- answering ------------------------------------------------------------------------------------------------

    def provenance(self, chosen: Chosen, as_of: datetime | None = None, **more: Any) -> Provenance:
        """Where the rows of a snapshot come from; `more` sets further fields."""
        snapshot, now = chosen.snapshot, self.now()
        newest = snapshot.newest_event() if snapshot.kept.event else None
        age = max(0.0, (now - newest).total_seconds()) if newest else None
        facts = self.settings.source_facts
        return replace(
            Provenance(
                source=self.settings.source,
                banner=facts.banner,
                table=snapshot.kept.name,
                table_version=snapshot.version,
                committed_at=snapshot.committed_at,
                as_of=as_of,
                as_of_kind=chosen.kind,
                newest_event_at=newest,
                age_s=None if age is None else int(age),
                freshness=self.state.state.freshness(now, age),
                run_url=self.run_url(snapshot.run_id),
            ),
            **more,
        )

    def run_url(self, run_id: str | None) -> str | None:
        """Page of a run in the Dagster UI, while one runs."""
        if run_id is None:
            return None
        try:
            return f"{self.home.ui_address.read_text(encoding='utf-8').strip()}/runs/{run_id}"
        except OSError:
            return None

    def respond(
        self, request: Request, chosen: Chosen, rows: Sequence[Row], as_of: datetime | None = None, **more: Any
    ) -> Response:
        """Rows of one snapshot with their provenance, or 304; remembered."""
        etag = tag(chosen.snapshot.tag, chosen.kind)
        if (same := unchanged(request, etag)) is not None:
            return same
        body = envelope([row.text for row in rows], self.provenance(chosen, as_of, **more))
        return remember(request, etag, answer(request, etag, body))

    def answers_from(self) -> object:
        """What remembered answers are made from, and the second to which their ages belong."""
        tables = self.follower.tables.values()
        found = [None if table.snapshot is None else table.snapshot.tag for table in tables]
        return int(self.now().timestamp()), self.state.state.written_at, found

    def promotions(self) -> list[dict[str, Any]]:
        """Rows of `ml.promotions`, as `ml` takes them; empty without the table."""
        snapshot = self.follower.snapshot(PROMOTIONS)
        if snapshot is None:
            return []
        if self._promotions[0] != snapshot.tag:
            rows = [json.loads(row.text) for group in snapshot.groups() for row in snapshot.all_rows(group)]
            times = [c.name for c in PROMOTIONS.columns if c.type == "timestamp"]
            read = [row | {name: datetime.fromisoformat(row[name]) for name in times} for row in rows]
            self._promotions = snapshot.tag, [row | {"metrics": json.dumps(row["metrics"])} for row in read]
        return self._promotions[1]

    def serving_version(self, model: str) -> str | None:
        """Version of a model that is in force now; None without promotions."""
        try:
            return str(effective(self.promotions(), model, self.now())["version"])
        except LookupError:
            return None

    def scored(self, model: str, rows: int, seconds: float) -> None:
        """Count a scoring request."""
        self.meters.scored(model, rows, seconds)


def text_of(value: Mapping[str, Any] | Sequence[Any] | str | float | None) -> bytes:
    """JSON text; times as in rows."""
    return json.dumps(
        value, default=lambda v: iso(v) if isinstance(v, datetime) else str(v), separators=(",", ":")
    ).encode()
