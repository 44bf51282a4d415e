"""`python -m bench --only peers`: the same records through the product and other systems, in one table of ratios.

Every system has a separate environment, built by this part with pip in the user's cache folder and kept for the next
time. One that cannot be installed or run is named with the reason. Rows must equal the product's, or the part fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.homes import temporary_home
from bench.peers.job import NUMBERS, Order
from bench.report import Part, formatted, middle
from bench.spent import reason_of
from bench.throughput import Timings, produce, stages, table_files
from crypto_assets.cli import output
from crypto_assets.contracts.slices import HOUR, Slice, floor_day
from crypto_assets.jvm.fetch import cache_dir

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

NAME = "peers"
CHECKOUT = Path(__file__).resolve().parents[2]
OURS = {"bronze": "Bronze", "silver": "Silver", "bars": "Bars"}
"""The product's stages by those of the jobs."""
TABLE_OF = {"bronze": "bronze.raw_prices", "silver": "silver.prices", "bars": "gold.bars_5m"}
FROM_TO = {"bronze": "Kafka → Bronze", "silver": "Bronze → Silver", "bars": "Silver → bars"}


@dataclass(frozen=True)
class Peer:
    """Another system.

    Args:
        name: Its name, as `--systems` takes it; `<name>_job.py` is its job.
        packages: What pip installs, the system first; versions are fixed, so that figures can be repeated.
        stages: What it does.
    """

    name: str
    packages: tuple[str, ...]
    stages: tuple[str, ...]


KAFKA, TABLES = ("bronze",), ("silver", "bars")
PEERS = (
    Peer("bytewax", ("bytewax==0.21.1", "confluent-kafka==2.16.1", "pyarrow==26.0.1"), KAFKA),
    Peer("quix", ("quixstreams==3.28.1", "pyarrow==26.0.1"), KAFKA),
    Peer("pathway", ("pathway==0.33.0",), KAFKA),
    Peer("polars", ("polars==2.1.0",), TABLES),
    Peer("duckdb", ("duckdb==2.0.1",), TABLES),
    Peer("pyspark", ("pyspark==4.2.0",), TABLES),
)
KEYS: dict[str, str] = {
    "bronze": "{key}, {value}",
    "silver": "coin_id, symbol, name, epoch_us(last_updated_at), source, poll_id, cadence_s, "
    + ", ".join(f"{n}::DECIMAL(38,18)" for n in NUMBERS),
    "bars": "coin_id, epoch_us(window_start), open::DECIMAL(38,18), high::DECIMAL(38,18), low::DECIMAL(38,18), "
    "close::DECIMAL(38,18), volume_24h_usd::DECIMAL(38,18), market_cap_usd::DECIMAL(38,18), sample_count::BIGINT",
}
"""What is compared of the rows of a stage."""
TEXTS = {"key": ("message_key", "key", "_key"), "value": ("raw_json", "value", "data")}
"""Columns with a record's key and value, as each system calls them."""
Costs = dict[str, dict[str, float]]


def run(*, messages: int, hours: int, repeats: int, systems: Sequence[str]) -> Part:
    """Send messages through the product and every system.

    Args:
        messages: Messages in the topic; a multiple of ten.
        hours: Hours over which they are spread.
        repeats: Runs of every system; each in a fresh process.
        systems: Names of the systems.

    Raises:
        AssertionError: A system's rows differ from the product's.
    """
    end = floor_day(datetime.now(UTC))
    span = Slice(end - hours * HOUR, end)
    reasons: dict[str, str] = {}
    with temporary_home(floor_day(span.start).date()) as (settings, broker):
        timings = Timings()
        size = produce(settings, timings, messages, span)
        lakes = [settings.home / f"lake-{i}" for i in range(repeats)]
        for lake in lakes:
            stages(settings.model_copy(update={"lake_uri": str(lake)}), timings, span)
        ours = {
            stage: {"wall": middle(timings.seconds[name]), "processor": middle(timings.cpu[name])}
            for stage, name in OURS.items()
        }
        tables = {stage: table_files(lakes[-1], name) for stage, name in TABLE_OF.items()}
        expected = {stage: digest(stage, files) for stage, files in tables.items()}
        found: dict[str, Costs] = {}
        for peer in PEERS:
            if peer.name not in systems:
                continue
            output.say(f"{peer.name} ...", style="dim")
            python, why = environment_of(peer)
            if python is not None:
                order = Order(
                    broker.bootstrap_servers, settings.prices_topic, messages, tables["bronze"], "",
                    *(f"{m:%Y-%m-%d %H:%M:%S}" for m in (span.start, span.end)), cores=cores(),
                )  # fmt: skip
                tries, why = _tries(peer, python, order, settings, repeats, expected)
                if not why:
                    found[peer.name] = _medians(tries)
            if why:
                reasons[peer.name] = why
    return _part(ours, found, reasons, messages, size)


def cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment_of(peer: Peer) -> tuple[Path | None, str]:
    """Python of a peer's environment, built if it is missing, or why there is none."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_dir() / "bench-peers" / f"{peer.name}-{version}"
    python, ready = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join((*peer.packages, "psutil"))
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return python, ""
    output.say(f"installing {', '.join(peer.packages)} into {folder} ...")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.splitlines()],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = reason_of(done.stderr.replace("ERROR:", "Error:"))
            return None, f"cannot be installed on Python {version}, {sys.platform}: {why}"
    ready.write_text(wanted, encoding="utf-8")
    return python, ""


def _tries(
    peer: Peer, python: Path, order: Order, settings: Settings, repeats: int, expected: Mapping[str, tuple[int, int]]
) -> tuple[list[Costs], str]:
    """Costs of each run of a peer, or why it did not run."""
    tries: list[Costs] = []
    for number in range(repeats):
        out = settings.home / f"{peer.name}-{number}"
        out.mkdir()
        ordered = out / "order.json"
        ordered.write_text(json.dumps(asdict(order) | {"out": str(out)}), encoding="utf-8")
        command = [str(python), "-m", f"bench.peers.{peer.name}_job", str(ordered)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SPARK_"))}
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=3600, check=False
        )
        if done.returncode or not (out / "costs.json").exists():
            return [], f"its job ended with code {done.returncode}: {reason_of(done.stdout + done.stderr)}"
        for stage in peer.stages:
            got = digest(stage, files_of(out / stage))
            if got != expected[stage]:
                raise AssertionError(
                    f"{peer.name}, {FROM_TO[stage]}: {got[0]:,} rows, the product has {expected[stage][0]:,}; "
                    f"digests {got[1]} and {expected[stage][1]}"
                )
        tries.append(json.loads((out / "costs.json").read_text(encoding="utf-8")))
    return tries, ""


def files_of(folder: Path) -> list[str]:
    """Files with rows below a folder: Parquet, or JSON lines."""
    found = [path for path in folder.rglob("*") if path.suffix in (".parquet", ".jsonl")]
    return sorted(str(path) for path in found if "_delta_log" not in path.parts)


def digest(stage: str, files: Sequence[str]) -> tuple[int, int]:
    """Number of rows of a stage, and the sum of their hashes, which does not depend on their order."""
    import duckdb

    reader = "read_json" if files and files[0].endswith(".jsonl") else "read_parquet"
    with duckdb.connect() as connection:
        rows = connection.execute(f"DESCRIBE FROM {reader}(?)", [list(files)]).fetchall()
        types = {name: kind for name, kind, *_ in rows}
        texts = {
            what: next(f"decode({n})" if types[n] == "BLOB" else n for n in names if n in types)
            for what, names in TEXTS.items()
            if stage == "bronze"
        }
        only = "WHERE kind = 'record'" if stage == "bronze" and "kind" in types else ""
        columns = KEYS[stage].format(**texts)
        query = f"SELECT count(*), coalesce(sum(hash({columns})::HUGEINT), 0) FROM {reader}(?) {only}"
        count, total = connection.execute(query, [list(files)]).fetchone() or (0, 0)
    return int(count), int(total)


def _medians(tries: Sequence[Costs]) -> Costs:
    return {
        stage: {quantity: middle([costs[stage][quantity] for costs in tries]) for quantity in ("wall", "processor")}
        for stage in tries[0]
    }


def _part(ours: Costs, found: Mapping[str, Costs], reasons: Mapping[str, str], messages: int, size: float) -> Part:
    part = Part(f"Peers: {messages:,} messages of {size:.0f} bytes, {cores()} cores")
    rows: list[dict[str, Any]] = []
    for stage, title in FROM_TO.items():
        own = ours[stage]
        rows.append(_row(title, "crypto_assets", own, own, messages))
        rows += [_row(title, name, costs[stage], own, messages) for name, costs in found.items() if stage in costs]
    part.tables["Processor time and wall time beside the product"] = rows
    part.notes = [
        "equal rows: keys and values of Bronze, all columns that both have of Silver and bars",
        "the product's stages include rules, checks, audit and an exact commit; no other job has them",
        "the start of a process, of Spark's JVM too, is not counted; stages begin and end on the disk or in Kafka",
        "pathway writes JSON lines: its Delta connector needs PATHWAY_LICENSE_KEY, which is free",
        *(f"{name} was not measured: {why}" for name, why in reasons.items()),
    ]
    part.costs = {
        f"{FROM_TO[stage]}, {n}": c[stage] for n, c in {"crypto_assets": ours, **found}.items() for stage in c
    }
    return part


def _row(stage: str, name: str, costs: Mapping[str, float], own: Mapping[str, float], messages: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "system": name,
        "processor µs a record": formatted(costs["processor"] / messages * 1e6),
        "processor : ours": f"{costs['processor'] / own['processor']:.2f}",
        "wall s": formatted(costs["wall"]),
        "wall : ours": f"{costs['wall'] / own['wall']:.2f}",
    }
