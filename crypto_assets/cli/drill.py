"""`drill`: injects six faults in a separate home and follows each from the failed check to alert and recovery.

Belongs here: injecting faults, looking at what the product makes of them, the report. Everything between fault and
webhook is the product's own path: producer sensor, refresh job, alert sensor. The home's clock is virtual and is moved
on poll by poll, so that a minute of cadence takes no minute.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import requests
from pydantic import SecretStr

from crypto_assets.alerts import sensor as alert_sensor
from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.processes import owned_children
from crypto_assets.cli.runs import run_job
from crypto_assets.contracts.slices import DAY, HOUR, floor_hour, hour_key
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import open_home
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.log.kafka.client import client_config
from crypto_assets.orchestration import producer_sensor
from crypto_assets.orchestration.event_store import check_state
from crypto_assets.producer.loop import Producer, open_producer
from crypto_assets.settings import Settings
from crypto_assets.wiring import build_definitions

STEP = timedelta(seconds=60)
"""One poll: the source's quotes change once a minute."""
POLLS_AT_MOST = 15
"""Polls within which a fault must have raised its alert, and within which it must be over again."""
WARM_UP_POLLS = 6
BAD_RECORDS = 2
DILUTED_AFTER_POLLS = 25
"""Good polls after which two bad records are under 1 % of the hour."""


@dataclass(frozen=True)
class Fault:
    """One fault: how it begins, how it ends, and which check must notice.

    Args:
        name: What is wrong.
        check: Asset and check that must turn red.
        begin: Puts the fault in force.
        end: Ends it.
        refresh: Whether the check is evaluated by the refresh job, rather than by the producer sensor.
        settle: Good polls before checking for the recovery.
    """

    name: str
    check: tuple[str, str]
    begin: Callable[[], object]
    end: Callable[[], object]
    refresh: bool = False
    settle: int = 0


@dataclass
class Webhook:
    """A receiver of alerts on 127.0.0.1."""

    received: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serve(self) -> Iterator[Webhook]:
        """Receive while the context is open."""
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                received.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                del format, args

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def find(self, check: str, state: str, after: int) -> dict[str, Any] | None:
        """The first alert of a check in a state among those received after a number of others."""
        return next((a for a in self.received[after:] if check in a["cause"] and a["state"] == state), None)


class Drill:
    """A pipeline in a temporary home, moved on poll by poll."""

    def __init__(
        self,
        settings: Settings,
        broker: EmbeddedBroker,
        producer: Producer,
        instance: dg.DagsterInstance,
        hook: Webhook,
    ) -> None:
        self.settings, self.broker, self.producer, self.instance, self.hook = settings, broker, producer, instance, hook
        self.defs = build_definitions(settings)
        self.store = make_engine(settings).store
        self.clock = floor_hour(datetime.now(UTC)) - 2 * HOUR + timedelta(seconds=30)
        self._producer_cursor: str | None = None
        self._alert_cursor: str | None = None

    def poll(self, *, refresh: bool) -> None:
        """Move the clock on by one poll: producer sensor, refresh if asked, alert sensor."""
        self.clock += STEP
        result = producer_sensor.evaluate(
            self.producer, self.instance, self._producer_cursor, self.clock, self.settings.source
        )
        self._producer_cursor = result.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        if refresh:
            self.refresh()
        self.alert()

    def refresh(self) -> None:
        """The refresh job on the running hour.

        Raises:
            RuntimeError: The run failed; the message has the cause.
        """
        failed: list[str] = []
        run_job(self.defs, self.instance, "refresh", [hour_key(self.clock)], failed, {})
        if failed:
            raise RuntimeError(f"the drill's refresh failed: {'; '.join(failed)}")

    def alert(self) -> None:
        """One tick of the alert sensor."""
        ancestors = alert_sensor.ancestors_in(self.defs.resolve_asset_graph())
        result = alert_sensor.tick(
            self.instance, self.store, self.settings, ancestors, self._alert_cursor, datetime.now(UTC)
        )
        self._alert_cursor = result.cursor

    def set_fault(self, kind: str | None, **options: Any) -> None:
        """Tell the stand-in, over HTTP as anyone may."""
        root = self.producer.source.url.removesuffix("/api/v3")  # type: ignore[attr-defined]
        requests.post(f"{root}/_faults", json={"kind": kind, **options}, timeout=5).raise_for_status()

    def write_bad_records(self) -> None:
        """Records that no producer of ours would write, put into the topic directly."""
        from confluent_kafka import Producer as Client

        client = Client(client_config(self.settings))
        stamp = int((self.clock + timedelta(seconds=20)).timestamp() * 1000)
        for _ in range(BAD_RECORDS):
            client.produce(self.settings.prices_topic, b"{not json", key=b"bitcoin", timestamp=stamp)
        if client.flush(10):
            raise RuntimeError("the drill's bad records were not delivered")

    def run(self, fault: Fault) -> dict[str, Any]:
        """Follow one fault.

        Returns:
            A row of the report; `ok` is False if check, alert or recovery did not come.
        """
        known, began = len(self.hook.received), time.time()
        fault.begin()
        red_after: int | None = None
        alert = None
        for polls in range(1, POLLS_AT_MOST + 1):
            self.poll(refresh=fault.refresh)
            state = check_state(self.instance, *fault.check) if red_after is None else None
            if state and state.verdict == "red" and state.at and state.at.timestamp() >= began - 1:
                red_after = polls
            alert = self.hook.find(fault.check[1], "firing", known)
            if alert is not None:
                break
        noticed = time.time() - began
        fault.end()
        for _ in range(fault.settle):
            self.poll(refresh=False)
        recovered, recovery_polls = None, fault.settle
        for _ in range(POLLS_AT_MOST):
            recovery_polls += 1
            self.poll(refresh=fault.refresh)
            recovered = self.hook.find(fault.check[1], "resolved", known)
            if recovered is not None:
                break
        return {
            "fault": fault.name,
            "red check": f"{fault.check[0]} {fault.check[1]}",
            "red after (s)": None if red_after is None else red_after * STEP.total_seconds(),
            "alert received": "yes" if alert else "NO",
            "run time (s)": round(noticed, 1),
            "recovery received": f"after {recovery_polls * STEP.total_seconds():.0f} s" if recovered else "NO",
            "ok": red_after is not None and alert is not None and recovered is not None,
            "alert": alert["summary"] if alert else "",
        }


def faults(drill: Drill) -> list[Fault]:
    """The six faults, in the order in which they are injected."""
    prices = "kafka/crypto_prices_raw"

    def at_source(kind: str | None, **options: Any) -> Callable[[], None]:
        return lambda: drill.set_fault(kind, **options)

    over = at_source(None)
    return [
        Fault(
            "malformed record in the topic", ("ops/pipeline_metrics", "quarantine_below_1pct"), drill.write_bad_records,
            lambda: None, refresh=True, settle=DILUTED_AFTER_POLLS,
        ),
        Fault("null price", (prices, "no_coin_missing"), at_source("null_price", coin="ethereum"), over),
        Fault("missing coin", (prices, "no_coin_missing"), at_source("missing_coin", coin="solana"), over),
        Fault("frozen quotes", (prices, "quotes_move"), at_source("frozen_quote"), over),
        Fault("429 storm", (prices, "source_answers"), at_source("rate_limited_json", retry_after="45"), over),
        Fault("broker stopped", (prices, "delivered"), drill.broker.stop, drill.broker.start),
    ]  # fmt: skip


@contextmanager
def pipeline(base: Settings, folder: Path) -> Iterator[Drill]:
    """A simulator home in a folder: broker, producer, instance and webhook, all real.

    Args:
        base: Settings of which the home takes what it does not share with others.
        folder: An empty folder.
    """
    start = (datetime.now(UTC) - 2 * DAY).date()
    with ExitStack() as stack:
        stack.enter_context(owned_children())
        hook = stack.enter_context(Webhook().serve())
        settings = base.apart(
            source="simulator",
            target="local",
            transport="kafka",
            home_path=folder,
            partitions_start=start,
            alert_webhook_url=SecretStr(hook.url),
        )
        home = open_home(settings)
        broker = EmbeddedBroker(settings.home, settings.kafka_port)
        stack.callback(broker.stop)
        broker.start()
        producer = stack.enter_context(open_producer(settings))
        instance = stack.enter_context(open_instance(home))
        yield Drill(settings, broker, producer, instance, hook)


def run(base: Settings) -> int:
    """Run all faults and print the report.

    Returns:
        0 if every fault turned its check red, was alerted on and recovered, else 1.
    """
    began = time.time()
    output.say("drill: a separate simulator home, a local webhook, six faults; the home's clock moves 60 s a poll")
    if unused := base.outside():
        output.say(f"set and not used, since the drill keeps everything in its own home: {', '.join(unused)}")
    with tempfile.TemporaryDirectory(prefix="crypto-assets-drill-") as folder, pipeline(base, Path(folder)) as drill:
        for _ in range(WARM_UP_POLLS):
            drill.poll(refresh=False)
        drill.refresh()
        rows = []
        todo = faults(drill)
        with output.progress("injecting faults", len(todo)) as advance:
            for fault in todo:
                rows.append(drill.run(fault))
                output.say(f"  {fault.name}: {'ok' if rows[-1]['ok'] else 'SILENT'}")
                advance()
    output.table(
        "Drill (seconds of the home's clock, but for run time)",
        [{k: v for k, v in r.items() if k != "alert"} for r in rows],
    )
    for row in rows:
        output.say(f"{row['fault']}: {row['alert'] or 'no alert'}")
    silent = [r["fault"] for r in rows if not r["ok"]]
    output.say(
        f"{len(rows) - len(silent)} of {len(rows)} faults were noticed, alerted and over again "
        f"in {time.time() - began:.0f} s"
    )
    if silent:
        output.fail(f"silent: {', '.join(silent)}")
    return 1 if silent else 0
