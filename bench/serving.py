"""The REST service: processor time per request beside other ways, requests a second, memory, commit to client.

Every server is a separate process that answers over HTTP, so that processor time means the same for all. Ours answers
with provenance, ETag and limits; the others with the rows alone. The lake has ten coins; bars are a seeded walk.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import Measure, Part, formatted, middle
from bench.served_bars import COLUMNS, DATAP_RS, ROWS
from crypto_assets.cli import output
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import TABLES
from crypto_assets.market.coins import DEFAULT_COINS

if TYPE_CHECKING:
    import psutil

    from crypto_assets.settings import Settings

NAME = "serving"
OURS = "this service"
SEED = 20240501
START_S = 600.0
COINS = [c.coin_id for c in DEFAULT_COINS.coins][:10]
SLOT, DAY = timedelta(minutes=5), timedelta(days=1)
END = datetime(2024, 5, 2, tzinfo=UTC)
COMMITS_S = 15.0
"""Longest wait for a client to hear of a commit."""


def run(*, requests: int, commits: int, days: int) -> Part:
    """Serve a home of `days` days and ask for the newest 288 bars.

    Args:
        requests: Requests to each server; a tenth of them to those that read the table for each.
        commits: Commits of newest prices that a client of the event stream awaits.
        days: Days of 5-minute bars of ten coins.
    """
    part = Part(f"Serving {ROWS} bars of a coin, {days} days of ten coins in the lake")
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-") as folder:
        settings = _home(Path(folder) / "home", days)
        table = f"{settings.lake}/gold/bars_5m"
        rows: list[dict[str, Any]] = []
        with _ours(settings) as server:
            loaded = server.memory()
            rows.append(_asked(server, OURS, requests))
            server.path += "&to={until}"
            rows.append(_asked(server, f"{OURS}, no two requests alike", requests))
            latency = sorted(_heard(settings, server, commits))
            part.measures += [
                Measure("memory of the service", round(loaded / 1e6), "MB", note=f"with {days} days of ten coins"),
                Measure("commit to event-stream client, p50", middle(latency), "s", note=f"{commits} commits"),
                Measure("commit to event-stream client, p99", latency[int(0.99 * (len(latency) - 1))], "s", 2.0),
            ]
        for way in ("response_model", "query", "datap-rs"):
            environment, missing = _installed(Path(folder) / way) if way == "datap-rs" else ({}, "")
            if missing:
                part.notes.append(f"{way} was not measured: {missing}")
                continue
            with _other(way, table, environment) as server:
                rows.append(_asked(server, way, requests if way == "response_model" else requests // 10))
    cpu = {row["server"]: row["ms_cpu"] for row in rows}
    ours = cpu[OURS]
    part.costs = {f"a request, {name}": {"processor": ms / 1e3} for name, ms in cpu.items()}
    part.costs["the service"] = {"memory": loaded, "commit to client, p99 s": latency[int(0.99 * (len(latency) - 1))]}
    part.measures.insert(
        0, Measure("response_model : this service", cpu["response_model"] / ours, "x", 10.0, more_is_better=True)
    )
    if "datap-rs" in cpu:
        part.measures.insert(
            1, Measure("datap-rs : this service", cpu["datap-rs"] / ours, "x", 1.0, more_is_better=True)
        )
    part.tables["Processor time of the server and latency seen by one client and by 16"] = [
        {
            "server": row["server"],
            "ms of processor a request": formatted(row["ms_cpu"]),
            "kB": formatted(row["kb"]),
            "requests/s, 1 connection": formatted(row["rate_1"]),
            "p50 ms": formatted(row["p50_1"]),
            "p99 ms": formatted(row["p99_1"]),
            "requests/s, 16 connections": formatted(row["rate_16"]),
            "p99 ms, 16": formatted(row["p99_16"]),
        }
        for row in rows
    ]
    part.notes += [
        "the clients share the machine with the server",
        f"every answer has {ROWS} rows of {len(COLUMNS)} columns or more; ours also provenance and an ETag",
        "this service gives an answer again within its second while no table has a commit: the first of its rows",
    ]
    return part


@dataclass
class _Server:
    process: psutil.Popen
    port: int
    method: str
    path: str
    """`{until}` in it is another time for every request."""
    body: bytes | None = None
    asked: int = 0

    def memory(self) -> int:
        return int(self.process.memory_info().rss)

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def connection(self) -> http.client.HTTPConnection:
        found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        found.connect()
        found.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def ask(self, connection: http.client.HTTPConnection) -> bytes:
        headers = {"Content-Type": "application/json"} if self.body else {}
        self.asked += 1
        path = self.path.format(until=f"{END + timedelta(seconds=self.asked):%Y-%m-%dT%H:%M:%SZ}")
        connection.request(self.method, path, self.body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, f"{self.path}: {answer.status} {text[:300]!r}"
        return text


def _asked(server: _Server, name: str, requests: int) -> dict[str, Any]:
    """Figures of one server; the first tenth of the requests warms it up."""
    output.say(f"{name}: {requests:,} requests on one connection, then on 16")
    connection = server.connection()
    text = server.ask(connection)
    answered = json.loads(text)
    found = next(answered[key] for key in ("data", "rows", "items") if key in answered)
    assert len(found) == ROWS, f"{name} answered with {len(found)} rows"
    for _ in range(requests // 10):
        server.ask(connection)
    before, began, seconds = server.cpu(), time.perf_counter(), []
    for _ in range(requests):
        asked = time.perf_counter()
        server.ask(connection)
        seconds.append(time.perf_counter() - asked)
    took, used = time.perf_counter() - began, server.cpu() - before
    many, seconds_16 = _concurrently(server, requests, 16)
    return {
        "server": name,
        "kb": len(text) / 1e3,
        "ms_cpu": 1e3 * used / requests,
        "rate_1": requests / took,
        "p50_1": 1e3 * middle(seconds),
        "p99_1": 1e3 * _quantile(seconds, 0.99),
        "rate_16": requests / many,
        "p99_16": 1e3 * _quantile(seconds_16, 0.99),
    }


def _quantile(values: Sequence[float], q: float) -> float:
    return sorted(values)[int(q * (len(values) - 1))]


def _concurrently(server: _Server, requests: int, connections: int) -> tuple[float, list[float]]:
    """Seconds that the requests took on so many connections, and of each request."""
    seconds: list[float] = []

    def client() -> None:
        connection = server.connection()
        for _ in range(requests // connections):
            asked = time.perf_counter()
            server.ask(connection)
            seconds.append(time.perf_counter() - asked)

    threads = [threading.Thread(target=client) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, seconds


def _heard(settings: Settings, server: _Server, commits: int) -> list[float]:
    """Seconds from the end of each commit of a coin's newest price until a client of the event stream has it."""
    from deltalake import write_deltalake

    connection = server.connection()
    connection.request("GET", "/v1/stream?kind=price")
    stream = connection.getresponse()
    assert stream.status == 200, stream.read()
    heard: list[float] = []
    path = f"{settings.lake}/gold/latest_prices"
    for n in range(commits):
        rows = _latest(END + timedelta(seconds=n + 1), random.Random(SEED + n))
        write_deltalake(path, rows, mode="overwrite")
        done = time.perf_counter()
        marker = f"{END + timedelta(seconds=n + 1):%H:%M:%S}".encode()
        while time.perf_counter() < done + COMMITS_S:
            line = stream.readline()
            assert line, "the event stream ended"
            if line.startswith(b"data:") and marker in line:
                heard.append(max(0.0, time.perf_counter() - done))
                break
        else:
            raise AssertionError(f"no event within {COMMITS_S:.0f} s of commit {n}")
    return heard


@contextlib.contextmanager
def _ours(settings: Settings) -> Iterator[_Server]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "crypto_assets.cli.main",
        "serve",
        "--home",
        str(settings.home),
        "--port",
        str(port),
    ]
    path = f"/v1/bars/{COINS[0]}?interval=5m&limit={ROWS}"
    with _started(command, {}, port, path, ready="/readyz") as server:
        yield server


@contextlib.contextmanager
def _other(way: str, table: str, environment: dict[str, str]) -> Iterator[_Server]:
    port = free_port()
    command = [sys.executable, "-m", "bench.served_bars", way, table, str(port)]
    path, body = f"/bars/{COINS[0]}", None
    if way == "datap-rs":
        path = "/api/v1/datasets/bars/query"
        asked = {
            "columns": list(COLUMNS),
            "predicates": [{"col": "coin_id", "op": "eq", "val": COINS[0]}],
            "order_by": [{"col": "window_start", "dir": "desc"}],
            "page_size": ROWS,
        }
        body = json.dumps(asked).encode()
    with _started(command, environment, port, path, body, ready="/readyz" if body else path) as server:
        yield server


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: dict[str, str], port: int, path: str, body: bytes | None = None, *, ready: str
) -> Iterator[_Server]:
    """A server's process, once it answers."""
    import psutil

    process = psutil.Popen(command, env={**os.environ, "RUST_LOG": "error", **environment}, stdout=subprocess.DEVNULL)
    server = _Server(process, port, "POST" if body else "GET", path, body)
    try:
        end = time.monotonic() + START_S
        while True:
            assert process.poll() is None, f"{command[2]} ended with code {process.returncode}"
            assert time.monotonic() < end, f"{command[2]} does not answer"
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = server.connection()
                connection.request("GET", ready)
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def _installed(folder: Path) -> tuple[dict[str, str], str]:
    """Environment in which `datap-rs` can be imported, or why it cannot be had."""
    output.say(f"installing datap-rs {DATAP_RS} into a temporary folder (250 MB)")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, f"datap-rs=={DATAP_RS}"], capture_output=True, text=True, check=False)
    if done.returncode:
        return {}, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}, ""


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _home(path: Path, days: int) -> Settings:
    """A home with bars and newest prices, one file a day."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from crypto_assets.home import open_home
    from crypto_assets.settings import Settings

    settings = Settings(_env_file=None, source="replay", home_path=path)  # type: ignore[call-arg]
    open_home(settings)
    contract = TABLES["gold.bars_5m"]
    for day in range(days):
        start = END - (days - day) * DAY
        rows = [bar for i, coin in enumerate(COINS) for bar in _bars(coin, start, random.Random(SEED + 1000 * day + i))]
        write_deltalake(
            f"{settings.lake}/gold/bars_5m",
            pa.Table.from_pylist(rows, schema=arrow_schema(contract)),
            mode="append",
            partition_by=list(contract.partition_by),
        )
    write_deltalake(f"{settings.lake}/gold/latest_prices", _latest(END, random.Random(SEED)))
    return settings


def _bars(coin: str, start: datetime, walk: random.Random) -> Iterator[dict[str, Any]]:
    price = Decimal(str(round(walk.uniform(0.1, 60_000), 6)))
    for n in range(int(DAY / SLOT)):
        opened = price
        price = round(price * Decimal(str(1 + walk.gauss(0, 0.001))), 8)
        moment = start + n * SLOT
        yield _row(
            "gold.bars_5m", coin, coin_id=coin, window_start=moment, window_end=moment + SLOT, open=opened, close=price,
            high=max(opened, price), low=min(opened, price), last_event_at=moment + SLOT, available_at=moment + SLOT,
            day=moment.date(), hour=moment.replace(minute=0),
        )  # fmt: skip


def _latest(at: datetime, walk: random.Random) -> Any:
    import pyarrow as pa

    rows = [
        _row(
            "gold.latest_prices", coin, coin_id=coin, name=coin, last_updated_at=at, available_at=at,
            price_usd=Decimal(str(round(walk.uniform(0.1, 60_000), 6))), covered_offsets="{}",
        )
        for coin in COINS
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=arrow_schema(TABLES["gold.latest_prices"]))


def _row(table: str, coin: str, **values: Any) -> dict[str, Any]:
    """A row with the values given; other columns have one plain value of their type."""
    plain: dict[str, Any] = {
        "string": coin, "int": 30, "bigint": 30, "double": 0.001, "boolean": True, "date": END.date(),
        "timestamp": END, "array<string>": [coin], "decimal(38,18)": Decimal("12345.678"), "binary": b"",
    }  # fmt: skip
    return {c.name: plain[c.type] for c in TABLES[table].columns} | values
