"""`python -m bench`: choose parts, run each in a separate process, print their tables.

A part has its own process so that the memory of one does not show in another, and so that one that fails leaves the
others. The exit code says whether everything could be measured (0, also when targets are missed) or not (1).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    against,
    agreement,
    commands,
    demos,
    documents,
    growth,
    idle,
    imports,
    races,
    ranges,
    refresh,
    scale,
    serving,
    streaming,
    throughput,
)
from bench.peers import comparison as peers
from bench.report import Part, machine, show, show_verdict
from bench.spent import exit_code
from crypto_assets.cli import output

PARTS: dict[str, Callable[..., Part]] = {
    imports.NAME: imports.run,
    throughput.NAME: throughput.run,
    refresh.NAME: refresh.run,
    ranges.NAME: ranges.run,
    growth.NAME: growth.run,
    streaming.NAME: streaming.run,
    races.NAME: races.run,
    agreement.NAME: agreement.run,
    serving.NAME: serving.run,
    commands.NAME: commands.run,
    demos.NAME: demos.run,
    idle.NAME: idle.run,
    scale.NAME: scale.run,
    peers.NAME: peers.run,
}
ASKED_FOR = (scale.NAME, peers.NAME)
"""Parts that run only when they are named: the one takes an hour, the other installs what it compares with."""
FULL: dict[str, dict[str, Any]] = {
    imports.NAME: {"repeats": 5},
    throughput.NAME: {"messages": 1_000_000, "hours": 24, "repeats": 3},
    refresh.NAME: {"hours": 48, "repeats": 5},
    ranges.NAME: {"hours": 72},
    growth.NAME: {"hours": 26, "refreshes": 30},
    streaming.NAME: {"seconds": 120, "rate": 5000, "kills": 10},
    races.NAME: {"kills": 12},
    agreement.NAME: {"records": 200_000},
    serving.NAME: {"requests": 3200, "commits": 50, "days": 365},
    commands.NAME: {"hours": 3, "repeats": 5},
    demos.NAME: {"source": "replay"},
    idle.NAME: {"settle": 120, "seconds": 120},
    scale.NAME: {"days": [1, 30, 365], "coins": [10, 250, 1000]},
    peers.NAME: {"messages": 1_000_000, "hours": 24, "repeats": 3, "systems": [p.name for p in peers.PEERS]},
}
QUICK: dict[str, dict[str, Any]] = {
    imports.NAME: {"repeats": 3},
    throughput.NAME: {"messages": 100_000, "hours": 2, "repeats": 1},
    refresh.NAME: {"hours": 26, "repeats": 3},
    ranges.NAME: {"hours": 6},
    growth.NAME: {"hours": 2, "refreshes": 5},
    streaming.NAME: {"seconds": 10, "rate": 200, "kills": 2, "targets": ["local"]},
    races.NAME: {"kills": 3, "cases": ["mixed"]},
    agreement.NAME: {"records": 10_000},
    serving.NAME: {"requests": 2000, "commits": 10, "days": 2},
    commands.NAME: {"hours": 2, "repeats": 3},
    demos.NAME: {"source": "replay"},
    idle.NAME: {"settle": 60, "seconds": 60},
    scale.NAME: {"days": [1, 8], "coins": [10, 50]},
    peers.NAME: {"messages": 100_000, "hours": 2, "repeats": 1, "systems": [p.name for p in peers.PEERS]},
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure throughput, latency, memory and growth."
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages and fewer repeats")
    parser.add_argument(
        "--only",
        metavar="PART",
        nargs="+",
        action="extend",
        choices=list(PARTS),
        help=f"one or more of {', '.join(PARTS)}",
    )
    parser.add_argument("--messages", type=int, help="messages to produce (throughput, peers); a multiple of ten")
    parser.add_argument("--hours", type=int, help="hours over which they are spread (throughput, peers)")
    parser.add_argument(
        "--repeats", type=int, help="tries of every stage (import, commands, throughput, refresh, peers)"
    )
    parser.add_argument(
        "--refreshes", type=int, help="refreshes (growth); with 500 the size of the event log is a target"
    )
    parser.add_argument("--rate", type=int, help="records a second (streaming)")
    parser.add_argument("--seconds", type=int, help="seconds of load beside the kills (streaming)")
    parser.add_argument("--kills", type=int, help="SIGKILLs of the stream (streaming), of writers (races)")
    parser.add_argument("--targets", nargs="+", choices=("local", "spark"), help="engines (streaming)")
    names = [peer.name for peer in peers.PEERS]
    parser.add_argument("--systems", nargs="+", choices=names, help="systems beside the product (peers)")
    parser.add_argument("--days", type=int, nargs="+", help="days of history (scale)")
    parser.add_argument("--coins", type=int, nargs="+", help="numbers of coins (scale)")
    parser.add_argument("--cases", nargs="+", choices=tuple(races.CASES), help="who races (races)")
    parser.add_argument(
        "--against", metavar="REV", help="run the parts on this revision and on HEAD by turns; print ratios"
    )
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side (--against; default: %(default)s)")
    parser.add_argument("--write", metavar="PAGE", type=Path, help="write the tables between the markers of a page")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    asked = parser.parse_args(given)
    if asked.pairs < 1:
        parser.error(f"--pairs {asked.pairs}: 1 or more")
    if asked.write:
        try:
            for name in options(asked):
                place = f"{name} against" if asked.against else name
                documents.between(asked.write.read_text(encoding="utf-8"), place, [])
        except (OSError, documents.NoPlaceError) as error:
            parser.error(f"--write {asked.write}: {error}")
    return asked


def options(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Options of the chosen parts."""
    base = QUICK if asked.quick else FULL
    own = {
        throughput.NAME: {"messages": asked.messages, "hours": asked.hours, "repeats": asked.repeats},
        imports.NAME: {"repeats": asked.repeats},
        commands.NAME: {"repeats": asked.repeats},
        refresh.NAME: {"repeats": asked.repeats},
        growth.NAME: {"refreshes": asked.refreshes},
        streaming.NAME: {n: getattr(asked, n) for n in ("rate", "seconds", "kills", "targets")},
        races.NAME: {"kills": asked.kills, "cases": asked.cases},
        scale.NAME: {"days": asked.days, "coins": asked.coins},
        peers.NAME: {n: getattr(asked, n) for n in ("messages", "hours", "repeats", "systems")},
    }
    chosen = asked.only or [name for name in PARTS if name not in ASKED_FOR]
    return {n: base[n] | {k: v for k, v in own.get(n, {}).items() if v is not None} for n in PARTS if n in chosen}


def main() -> int:
    """Run the chosen parts; 1 when one of them could not be measured."""
    asked = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: brokers and folders are removed
    if asked.part:
        name, file = asked.part
        PARTS[name](**json.loads(asked.options)).save(Path(file))
        return 0
    chosen = options(asked)
    if asked.against:
        try:
            return against.run(asked.against, chosen, asked.pairs, asked.write)
        except against.CannotCompareError as error:
            output.fail(str(error))
            return 2
    for line in machine():
        output.say(line)
    output.say()
    parts: list[Part] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-") as folder:
        for name, given in chosen.items():
            load = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in given.items())
            output.say(f"== {name} ({load})", style="bold")
            file = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "bench", "--part", name, str(file), "--options", json.dumps(given)]
            code = exit_code(command)
            if code or not file.exists():
                failed[name] = f"its process ended with code {code}; see above"
                continue
            parts.append(Part.load(file))
            show(parts[-1])
            if asked.write:
                documents.write(asked.write, name, documents.of_part(parts[-1]))
    show_verdict(parts, failed)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
