"""What each thing that people wait for costs by size: days of history, and coins; and with which exponent it grows.

What serves a refresh must not grow with history (exponent 0), and nothing faster than the coins (exponent 1).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.ratios import amount, slope
from bench.report import Part, middle
from bench.serving import free_port
from bench.spent import command_spent, crypto_assets, scrubbed_environment, spent
from bench.synthetic import COPIED, synthetic_home
from crypto_assets.cli import output
from crypto_assets.contracts.slices import DAY
from crypto_assets.errors import FAILED, SUCCESS

if TYPE_CHECKING:
    import psutil

    from bench.homes import Pipeline

NAME = "scale"
START_S = 600.0
REFRESHES = 3
REQUESTS = 100
SERVES_A_REFRESH = ("refresh",)
"""Figures that must not grow with history."""
FLAT, LINEAR = 0.15, 1.1
"""Exponents up to which a cost counts as constant and as proportional: what is left of 0 and 1 by noise."""
ASSET_PAGE = """
query AssetPage($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetMaterializations(limit: 100) { timestamp partition runId }
      partitionStats { numMaterialized numFailed numPartitions }
      assetPartitionStatuses {
        ... on TimePartitionStatuses { ranges { status startKey endKey } }
      }
      assetChecksOrError {
        ... on AssetChecks { checks { name executionForLatestMaterialization { status timestamp } } }
      }
    }
  }
}
"""
"""What the UI asks for to show an asset: newest events, partitions, checks."""


def run(*, days: Sequence[int], coins: Sequence[int]) -> Part:
    """Measure homes of every number of days with the fewest coins, and of every number of coins with the fewest days.

    Args:
        days: Days of history.
        coins: Coins, each with a quote every five minutes.
    """
    few_days, few_coins = min(days), min(coins)
    sizes = [(d, few_coins) for d in sorted(days)] + [(few_days, c) for c in sorted(coins) if c != few_coins]
    found: dict[tuple[int, int], dict[str, float]] = {}
    lake: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for size in sizes:
        output.say(f"{_days(size[0])} of {size[1]:,} coins ...", style="dim")
        found[size], lake[size] = measured(*size)
        output.say(", ".join(f"{what} {amount(cost, 's')}" for what, cost in found[size].items()), style="dim")
    by_days = {d: found[d, few_coins] for d in sorted(days)}
    by_coins = {c: found[few_days, c] for c in sorted(coins)}
    part = Part("Scale: processor seconds by size, children included, broker excluded")
    part.tables[f"By days of history, {few_coins:,} coins"] = table(by_days, "days", FLAT, SERVES_A_REFRESH)
    part.tables[f"By coins, {_days(few_days)}"] = table(by_coins, "coins", LINEAR)
    largest = dict.fromkeys([(max(days), few_coins), (few_days, max(coins))])
    part.tables["Live files of the largest lakes after maintenance"] = [row for size in largest for row in lake[size]]
    part.notes = [
        "exponent: of the fit cost = a * size ** exponent; 0 does not grow, 1 grows in proportion",
        "quotes every five minutes; what is copied and what is made: bench/synthetic.py",
        f"refresh: median of {REFRESHES}, each after one poll, behind the first of the hour",
        f"24 h of bars: of {REQUESTS} requests of which no two are alike; asset page: the last of 5",
    ]
    part.costs = {
        f"{what}, {d:,} days, {c:,} coins": {"processor": cost}
        for (d, c), costs in found.items()
        for what, cost in costs.items()
    }
    return part


def _days(number: int) -> str:
    return f"{number:,} day{'s' if number != 1 else ''}"


def table(
    costs: dict[int, dict[str, float]], axis: str, most: float, judged: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Rows by figure: the cost at every size, and the exponent with what it may be.

    Args:
        costs: Seconds by size and figure.
        axis: Name of the size.
        most: Largest acceptable exponent.
        judged: Figures that are judged; None for all.
    """
    rows = []
    for figure in next(iter(costs.values())):
        seconds = [found[figure] for found in costs.values()]
        exponent = slope(list(costs), seconds) if len(costs) > 1 else None
        verdict = ""
        if exponent is not None and (judged is None or figure in judged):
            verdict = "yes" if exponent <= most else "NO"
        rows.append(
            {
                "processor time of": figure,
                **{
                    f"{size:,} {axis if size != 1 else axis.removesuffix('s')}": amount(value, "s")
                    for size, value in zip(costs, seconds, strict=True)
                },
                "exponent": "" if exponent is None else f"{exponent:.2f}",
                f"≤ {most}": verdict,
            }
        )
    return rows


def measured(days: int, coins: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Processor seconds of every figure in a home of one size, and rows and bytes of its tables after maintenance."""
    found: dict[str, float] = {}
    with synthetic_home(days, coins) as pipeline:
        tries = []
        for _ in range(REFRESHES + 1):
            keys = pipeline.poll()
            with spent() as taken:
                pipeline.run("refresh", keys)
            tries.append(taken.processor)
        found["first refresh of an hour"], found["refresh"] = tries[0], middle(tries[1:])
        found["UI, asset page"] = _asset_page(pipeline)
        for name, arguments, codes in (
            ("status", ("status",), (SUCCESS, FAILED)),
            # Latencies of the first day are those of another, which `verify` finds: see `synthetic`.
            ("verify", ("verify",), (SUCCESS, FAILED)),
            ("maintain", ("maintain", "--apply"), (SUCCESS,)),
        ):
            output.say(f"{name} ...", style="dim")
            command = crypto_assets(*arguments, "--home", str(pipeline.settings.home))
            found[name] = command_spent(command, environment=scrubbed_environment(), codes=codes).processor
        found |= _api(pipeline)
        return found, _lake(Path(pipeline.settings.lake), f"{_days(days)}, {coins:,} coins")


def _lake(lake: Path, size: str) -> list[dict[str, Any]]:
    """Rows, files and bytes of the tables that grow with time, from their logs."""
    import pyarrow as pa
    from deltalake import DeltaTable

    found = []
    for name in COPIED:
        files = pa.table(DeltaTable(lake / name.replace(".", "/")).get_add_actions(flatten=True))
        rows, bytes_ = (sum(files.column(n).to_pylist()) for n in ("num_records", "size_bytes"))
        found.append(
            {"size": size, "table": name, "rows": rows, "files": files.num_rows, "bytes a row": round(bytes_ / rows)}
        )
    return found


def _asset_page(pipeline: Pipeline) -> float:
    """Processor seconds of the queries by which the UI shows `gold/bars_5m`, in this process."""
    import dagster as dg
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster_graphql.schema import create_schema

    import crypto_assets.definitions as module

    module.defs = pipeline.defs
    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="crypto_assets.definitions", attribute="defs"),
            location_name="crypto_assets",
        )
    )
    key = {"key": {"path": list(dg.AssetKey(["gold", "bars_5m"]).path)}}
    schema, tries = create_schema(), []
    with WorkspaceProcessContext(pipeline.instance, target) as process:
        for _ in range(5):
            with spent() as taken:
                context = process.create_request_context()
                answer = asyncio.run(schema.execute_async(ASSET_PAGE, context_value=context, variables=key))
            if answer.errors or not answer.data["assetNodeOrError"]:
                raise AssertionError(f"the asset page failed: {answer.errors or answer.data}")
            tries.append(taken.processor)
    return tries[-1]


def _api(pipeline: Pipeline) -> dict[str, float]:
    """Processor seconds of the API until it is ready, and of a request for a day of bars."""
    with _served(pipeline) as (process, port):
        ready = _processor(process)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        start, end = pipeline.span.end - DAY, pipeline.span.end
        for number in range(REQUESTS):
            span = f"from={start:%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%S}.{number:03d}Z"
            path = f"/v1/bars/bitcoin?interval=5m&{span}"
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200 or not json.loads(text)["data"]:
                raise AssertionError(f"{path}: {answer.status} {text[:300]!r}")
        return {"API, start": ready, "API, 24 h of bars": (_processor(process) - ready) / REQUESTS}


@contextlib.contextmanager
def _served(pipeline: Pipeline) -> Iterator[tuple[psutil.Popen, int]]:
    """The API of a home, ready."""
    import psutil

    port = free_port()
    command = crypto_assets("serve", "--home", str(pipeline.settings.home), "--port", str(port))
    environment = {**scrubbed_environment(), "PYTHONUNBUFFERED": "1"}
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _ready(port), process)
        yield process, port
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _until(reached: Callable[[], bool], process: psutil.Popen) -> None:
    end = time.monotonic() + START_S
    while not reached():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"the API was not ready after {START_S:.0f} s, or ended: {process.poll()}")
        time.sleep(0.1)


def _processor(process: psutil.Popen) -> float:
    return float(sum(process.cpu_times()[:4]))
