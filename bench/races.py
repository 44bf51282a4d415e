"""The race: several processes write one lake over one topic, are killed at random and start again.

Three cases: all writers on delta-rs, all on JVM Spark, and mixed. They append Bronze of three neighbouring hours while
a producer fills them, replace Silver's hours of one day, and insert forecasts. Afterwards the embedded engine completes
the hours once, undisturbed; then `bench.race_judge` and `crypto-assets verify` must find nothing doubled, lost, stale
or broken.

Belongs here: writers, kills, figures. Does not belong here: what a writer does (`bench.race_writer`), judging.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import race_judge, race_writer
from bench.homes import temporary_home
from bench.race_writer import Request
from bench.report import Measure, Part
from crypto_assets.cli import output
from crypto_assets.contracts.slices import DAY, HOUR, floor_day, hour_key
from crypto_assets.settings import child_environment

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

NAME = "races"
CASES: Mapping[str, tuple[str, ...]] = {
    "delta-rs": ("local", "local", "local"),
    "spark": ("spark", "spark"),
    "mixed": ("local", "local", "spark"),
}
"""Engines of the writers, by case."""
CODE = "import sys; from crypto_assets.cli.main import app; sys.argv[0] = 'crypto-assets'; app()"
HOURS = 3
COMPLETE = "complete"
"""Run that completes the hours at the end."""
LONGEST_PAUSE_S = {"local": 12.0, "spark": 0.0}
"""Between two requests of a writer in the mixed case: delta-rs commits in a twentieth of the time that Spark takes, and
would always be first."""
WAIT_S = {"local": 10.0, "spark": 60.0}
"""How long a kill waits for its line; then it comes wherever the writer is."""
PATIENCE_S = 300
LONGEST_WRITE_S = {"local": 0.04, "spark": 2.0}
"""A kill comes up to so long after the line that was waited for: within what the line says has begun."""
WAIT_FOR = ("begun", "reading", "writing", "writing", "writing")
"""Where in a write kills are aimed at: mostly where it commits."""


class Feed(threading.Thread):
    """Publishes records with unique keys; the drill says at which time of the three hours."""

    def __init__(self, settings: Settings, start: datetime, seed: int) -> None:
        super().__init__(daemon=True)
        self.settings, self.start_at, self.chance = settings, start, random.Random(seed)
        self.progress, self.enough = 0.0, threading.Event()
        self.produced: set[str] = set()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Four batches a second; a key counts when the broker has confirmed its record."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - raised by the drill
            self.error = error

    def _run(self) -> None:
        from confluent_kafka import Producer

        from crypto_assets.log.kafka.client import client_config

        client = Producer({**client_config(self.settings), "acks": "all", "linger.ms": 5})
        number = 0
        while not self.enough.wait(0.25):
            at = self.start_at + self.progress * HOURS * HOUR
            for _ in range(60):
                self._produce(client, str(number), at)
                number += 1
            client.poll(0)
        left = client.flush(60)
        assert len(self.produced) == number, f"{number - len(self.produced)} records failed, {left} unconfirmed"

    def _confirmed(self, error: object, message: Any) -> None:
        if error is None:
            self.produced.add(message.key().decode())

    def _produce(self, client: Any, key: str, at: datetime) -> None:
        # Some quotes are late by more than an hour: they belong to an hour of Silver that was written before.
        event = at - timedelta(milliseconds=int(key) % 997, minutes=self.chance.choice((0, 0, 0, 20, 90)))
        stamp = f"{event:%Y-%m-%dT%H:%M:%S}.{event.microsecond // 1000:03d}Z"
        value = {
            "coin_id": "bitcoin", "symbol": "BTC", "price_usd": f"{100 + int(key) % 100}.5", "market_cap_usd": None,
            "volume_24h_usd": None, "change_24h_pct": None, "change_7d_pct": None, "last_updated_at": stamp,
            "ingestion_timestamp": stamp,
        }  # fmt: skip
        headers: list[tuple[str, str | bytes | None]] = [
            ("schema_version", b"1"), ("source", b"simulator"), ("cadence_s", b"60.0"), ("poll_id", b"race"),
        ]  # fmt: skip
        client.produce(
            self.settings.prices_topic, json.dumps(value).encode(), key.encode(), partition=int(key) % 3,
            headers=headers, timestamp=int(at.timestamp() * 1000), on_delivery=self._confirmed,
        )  # fmt: skip


@dataclass
class Tally:
    """What the writers said, all together."""

    rounds: int = 0
    commits: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    killed: dict[str, int] = field(default_factory=dict)
    """Commits that a run had announced before it was killed within a write, by run id."""
    starts: int = 0
    slots: int = 0


class Writer(threading.Thread):
    """Keeps one writer at work: gives requests, follows what it says, starts it again after a kill.

    Args:
        name: Of the writer, unique in its case.
        settings: Settings of the home, with the writer's target.
        hours: Hours in order.
        feed: Says how far the hours are filled.
        tally: Where to count.
        pause_s: Longest pause between two requests.
    """

    def __init__(
        self, name: str, settings: Settings, hours: Sequence[datetime], feed: Feed, tally: Tally, pause_s: float
    ) -> None:
        super().__init__(daemon=True, name=name)
        self.settings, self.hours, self.feed, self.tally, self.pause_s = settings, hours, feed, tally, pause_s
        self.chance, self.enough = random.Random(name), threading.Event()
        self.said, self.last, self.run_id, self.announced = threading.Condition(), "starting", "", 0
        self.log = settings.home / f"writer-{name}.log"
        self.error: BaseException | None = None
        self._killed = self._within = False
        self._process: subprocess.Popen[str] | None = None
        self._requests = self.committed = 0

    def run(self) -> None:
        """Until `enough` is set."""
        try:
            while not self.enough.is_set():
                self._live()
        except BaseException as error:  # noqa: BLE001 - raised by the drill
            self.error = error
            self._say("failed")

    def kill(self, after: str, within_s: float, wait_s: float) -> str | None:
        """SIGKILL a little after it has said a line; what it said last. None before this life has committed."""
        deadline = time.monotonic() + wait_s
        with self.said:
            self.said.wait_for(lambda: self.last.endswith((after, "failed")), max(0.0, deadline - time.monotonic()))
        time.sleep(self.chance.uniform(0, within_s))
        with self.said:
            if self.last in ("starting", "ready", "failed") or not self.committed:
                return None
            self._killed, at = True, self.last
            self.tally.hits[at] += 1
            self._within = at.endswith("writing")
            # With its JVM, or alone: a JVM then finds out by itself, in the middle of whatever it does.
            if self.chance.random() < 0.5:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            self.last = "starting"
        return at

    def end(self) -> None:
        """Kill what is left."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _live(self) -> None:
        """One life of the process."""
        given = self.settings.model_dump(
            mode="json",
            include={"source", "home_path", "kafka_bootstrap_servers", "partitions_start", "target", "spark_master"},
        )
        command = [sys.executable, "-m", race_writer.__name__, json.dumps(given)]
        pipe = subprocess.PIPE
        with self.log.open("ab") as log, suppress(BrokenPipeError), subprocess.Popen(
            command, env=child_environment(), stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True
        ) as process:  # fmt: skip
            self._process, self.committed = process, 0
            self.tally.starts += 1
            assert process.stdin
            assert process.stdout
            for line in process.stdout:
                self._hear(json.loads(line))
                if self.last in ("ready", "idle"):
                    if self.enough.wait(self.chance.uniform(0, self.pause_s)):
                        process.stdin.close()
                    else:
                        process.stdin.write(json.dumps(asdict(self._request())) + "\n")
                        process.stdin.flush()
        code = process.wait()
        if code and not self._killed:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise AssertionError(f"writer {self.name} ended by itself with code {code}: {said}")
        if self._killed and self._within:
            self.tally.killed[self.run_id] = self.announced
        self._killed = self._within = False

    def _hear(self, said: dict[str, Any]) -> None:
        if "lost" in said:
            self.tally.lost[said["lost"]] += 1
            return
        if said.get("committed"):
            self.announced += 1
            self.committed += 1
            self.tally.commits[said["at"].partition(":")[0]] += 1
        if said["at"] == "idle":
            self.tally.rounds += 1
            self.tally.slots = max(self.tally.slots, self._asked.upto)
        self._say(said["at"])

    def _say(self, text: str) -> None:
        with self.said:
            if not self._killed:
                self.last = text
            self.said.notify_all()

    def _request(self) -> Request:
        what = self.chance.choices(("bronze", "silver", "forecasts"), (5, 3, 2))[0]
        reached = min(HOURS - 1, int(self.feed.progress * HOURS))
        first = max(0, reached - self.chance.randrange(2))
        if what == "silver":
            first -= self.chance.randrange(2)  # late quotes lie in the hour before the first, too
        picked = [self.hours[0] + (first + i) * HOUR for i in range(self.chance.choice((1, 2)))]
        self._requests += 1
        self.run_id, self.announced = f"{self.name}-{self._requests}", 0
        upto = 5 + int(self.feed.progress * 200) + self.chance.randrange(5) if what == "forecasts" else 0
        keys = [hour_key(self.hours[0])] if what == "forecasts" else [hour_key(h) for h in picked]
        self._asked = Request(what, keys, self.run_id, upto)
        return self._asked


def run(*, kills: int, cases: Sequence[str] = tuple(CASES)) -> Part:
    """Race all cases.

    Args:
        kills: SIGKILLs in each case.
        cases: Which.

    Raises:
        AssertionError: Something is doubled, lost, stale or broken, `verify` failed, or a writer ended by itself.
    """
    part = Part(f"Racing writers, {kills} SIGKILLs in each case")
    problems: list[str] = []
    for case in cases:
        row, found = race(CASES[case], kills)
        part.tables[f"Race of {case}"] = [{"figure": k, "value": v} for k, v in row.items()]
        part.measures.append(Measure(f"{case}: doubled, lost, stale or broken", len(found), "findings", 1))
        problems += [f"{case}: {problem}" for problem in found]
        output.table(f"Race of {case}", part.tables[f"Race of {case}"])
    part.notes = [
        "why an attempt was overtaken and repeated from the start, reading everything again:",
        "skipped: its application transaction was used by another; condition: the table was no longer as it was read",
        "conflict: another committed while this one wrote",
        "half of the kills take a writer's JVM along, half leave it to find out by itself",
    ]
    assert not problems, "; ".join(problems)
    return part


def race(targets: Sequence[str], kills: int) -> tuple[dict[str, Any], list[str]]:
    """One case: its figures, and what is wrong afterwards (nothing, if all is well)."""
    day = floor_day(datetime.now(UTC)) - DAY
    hours = [day + (10 + i) * HOUR for i in range(HOURS)]
    with temporary_home(day.date(), source="replay", spark_master="local[2]") as (settings, _):
        from crypto_assets.home import open_home
        from crypto_assets.log.kafka.topic import require_topics

        open_home(settings)
        require_topics(settings, datetime.now(UTC))
        began, tally, feed = time.monotonic(), Tally(), Feed(settings, hours[0], kills)
        pauses = LONGEST_PAUSE_S if len(set(targets)) > 1 else dict.fromkeys(targets, 0.0)
        writers = [
            Writer(f"{i}-{t}", settings.model_copy(update={"target": t}), hours, feed, tally, pauses[t])
            for i, t in enumerate(targets)
        ]
        try:
            _race(writers, feed, kills)
        finally:
            for writer in writers:
                writer.end()
        seconds = time.monotonic() - began
        _complete(settings, hours)
        lake = Path(settings.lake)
        verdict = race_judge.judge(
            lake, settings.home / race_writer.FORECASTS_LAKE, race_writer.FORECASTS, feed.produced, tally.slots
        )
        problems = [f"{n} {what}, e.g. {verdict.examples[what]}" for what, n in verdict.wrong.items() if n]
        audit = _verify(settings)
        problems += [f"crypto-assets verify: {audit}"] if audit else []
        return _figures(targets, tally, feed, verdict, lake, seconds, audit), problems


def _race(writers: Sequence[Writer], feed: Feed, kills: int) -> None:
    """Fill three hours while writers are killed."""
    chance = random.Random(kills)
    feed.start()
    for writer in writers:
        writer.start()

    def check() -> None:
        failed = [w.error for w in (feed, *writers) if w.error is not None]
        if failed:
            raise AssertionError(f"the race broke off: {failed[0]}") from failed[0]

    targets = sorted({w.settings.target for w in writers})
    done, deadline = 0, time.monotonic() + PATIENCE_S
    while done < kills:
        check()
        assert time.monotonic() < deadline, f"no kill for {PATIENCE_S} s"
        target = targets[done % len(targets)]  # engines in turn, however many writers
        writer = chance.choice([w for w in writers if w.settings.target == target])
        if writer.kill(chance.choice(WAIT_FOR), LONGEST_WRITE_S[target], WAIT_S[target]) is None:
            time.sleep(0.2)
            continue
        done, deadline = done + 1, time.monotonic() + PATIENCE_S
        feed.progress = done / kills * 0.999
    _await_work(writers, check)
    feed.enough.set()
    feed.join(90)
    for writer in writers:
        writer.enough.set()
    for writer in writers:
        writer.join(PATIENCE_S)
        assert not writer.is_alive(), f"writer {writer.name} did not come to an end: it said {writer.last!r} last"
    check()


def _await_work(writers: Sequence[Writer], check: Any) -> None:
    """All writers work again, and each has committed something in its present life."""
    deadline = time.monotonic() + PATIENCE_S
    for writer in writers:
        with writer.said:
            writer.said.wait_for(
                lambda w=writer: (w.last == "idle" and w.committed) or w.last == "failed", deadline - time.monotonic()
            )
        check()


def _complete(settings: Settings, hours: Sequence[datetime]) -> None:
    """What any later refresh does: the rest of the hours, by one writer alone."""
    from crypto_assets.assets import bronze, silver
    from crypto_assets.engine.engines import make_engine
    from crypto_assets.engine.inputs import StepInputBuilder

    engine, builder = make_engine(settings), StepInputBuilder(settings)
    keys = [hour_key(h) for h in hours]
    inputs = builder.build(now=datetime.now(UTC), run_id=COMPLETE, keys=keys, reads_log="prices")
    bronze.work(engine, keys, inputs)
    silver.work(engine, [hour_key(hours[0] - (2 - i) * HOUR) for i in range(HOURS + 2)], inputs)
    silver.work_quarantine(engine, keys, inputs)


def _figures(
    targets: Sequence[str],
    tally: Tally,
    feed: Feed,
    verdict: race_judge.Verdict,
    lake: Path,
    seconds: float,
    audit: str,
) -> dict[str, Any]:
    """The case in figures."""
    by_run: Counter[str] = Counter()
    by_engine: Counter[str] = Counter()
    for place, table in (
        (lake, race_judge.BRONZE),
        (lake, race_judge.SILVER),
        (lake.parent / race_writer.FORECASTS_LAKE, race_writer.FORECASTS),
    ):
        found = [c for c in race_judge.commits(place, table) if "run_id" in c]
        by_run.update(str(c["run_id"]) for c in found)
        by_engine.update(str(c["engine"]) for c in found if c["run_id"] != COMPLETE)
    landed = sum(by_run[run] > announced for run, announced in tally.killed.items())

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"

    return {
        "writers": ", ".join(targets),
        "processes started": tally.starts,
        "requests done": tally.rounds,
        "kills": tally.hits.total(),
        "killed after it said": listed(tally.hits),
        "killed within a write": f"{len(tally.killed)}, of which {landed} had committed or did so afterwards",
        **{f"commits by {engine}": n for engine, n in sorted(by_engine.items())},
        "commits announced": listed(tally.commits),
        "attempts overtaken": listed(tally.lost),
        "records produced": len(feed.produced),
        "records stored": verdict.stored,
        **verdict.wrong,
        "crypto-assets verify": audit or "passed",
        "seconds": round(seconds),
    }


def _verify(settings: Settings) -> str:
    """What `crypto-assets verify` has against the lake; empty when it passes."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, "verify", "--home", str(settings.home)],
        env={**child_environment(), "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers)},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"exit code {done.returncode}: {done.stdout[-2000:]} {done.stderr[-500:]}" if done.returncode else ""
