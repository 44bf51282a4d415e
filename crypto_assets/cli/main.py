"""The commands. Each parses, calls one function and translates its errors to an exit code; nothing is done here.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crypto_assets.cli import databricks_standin, output

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

app = typer.Typer(
    help="A live-price lakehouse on Dagster. Start with: crypto-assets demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
broker_app = typer.Typer(help="The embedded Apache Kafka of a home.", no_args_is_help=True)
coins_app = typer.Typer(help="The coins that are polled.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")
app.add_typer(coins_app, name="coins")
app.command("databricks-standin")(databricks_standin.command)

Source = Annotated[str | None, typer.Option("--source", help="coingecko, replay or simulator (simulated).")]
HomeOption = Annotated[Path | None, typer.Option("--home", help="Home folder; default ./.crypto_assets/<source>.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
Port = Annotated[int, typer.Option("--port", help="Port of the Dagster UI on 127.0.0.1.")]


def _settings(source: str | None = None, home: Path | None = None) -> Settings:
    """Settings from the environment with the options on top; an existing home tells its own source."""
    import json

    import stamina
    from pydantic import ValidationError

    from crypto_assets.settings import Settings, prepare_embedded_engine

    prepare_embedded_engine()
    # What a retry came to is in the summary; each attempt's log line would be noise on a terminal.
    stamina.instrumentation.set_on_retry_hooks([])
    chosen: dict[str, object] = {}
    if source:
        chosen["source"] = source
    if home:
        chosen["home_path"] = home
        bound = home / "home.json"
        if bound.exists():
            kept = json.loads(bound.read_text(encoding="utf-8"))
            chosen.setdefault("source", kept["source"])
            chosen["partitions_start"] = kept["partitions_start"]
            if "transport" in kept and "transport" not in Settings(**chosen).model_fields_set:  # type: ignore[arg-type]
                chosen["transport"] = kept["transport"]
    try:
        return Settings(**chosen)  # type: ignore[arg-type]
    except ValidationError as error:
        for problem in error.errors():
            output.fail(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        raise typer.Exit(2) from None


@contextmanager
def _told() -> Iterator[None]:
    """Errors that name their own fix are printed as one line; anything else keeps its traceback."""
    from crypto_assets.cli.up import StartError
    from crypto_assets.compute.base import StepFailed
    from crypto_assets.home import HomeError
    from crypto_assets.jvm.fetch import JvmError
    from crypto_assets.kafka.errors import BrokerError, LogError
    from crypto_assets.storage.base import StorageError

    try:
        yield
    except (HomeError, StartError, StepFailed, LogError, BrokerError, JvmError, StorageError, ValueError) as error:
        output.fail(str(error))
        raise typer.Exit(1) from None


@app.command()
def demo(
    source: Annotated[str, typer.Option(help="replay or simulated.")] = "replay",
    transport: Annotated[str | None, typer.Option(help="kafka, or landing: files, without a broker.")] = None,
) -> None:
    """Two days through source, Kafka and every asset, in a home of its own."""
    from crypto_assets.cli import demo as module

    _settings(source)
    with _told():
        code = module.run(source, module.today(), transport)
    raise typer.Exit(code)


@app.command()
def up(source: Source = None, home: HomeOption = None, port: Port = 3000) -> None:
    """Run the pipeline with automation on, until Ctrl-C."""
    from crypto_assets.cli import catch_up
    from crypto_assets.cli.up import serve

    settings = _settings(source, home)
    with _told():
        code = serve(settings, port=port, automation=True, before=lambda h: catch_up.run(settings, h))
    raise typer.Exit(code)


@app.command()
def ui(
    source: Source = None,
    home: HomeOption = None,
    port: Port = 3000,
    demo: Annotated[bool, typer.Option("--demo", help="Open the demo's home.")] = False,
) -> None:
    """Open a home in the Dagster UI with everything off."""
    from crypto_assets.cli.demo import demo_home
    from crypto_assets.cli.up import serve

    if demo:
        home = demo_home(_settings(source))
        if not (home / "home.json").exists():
            output.fail(f"there is no demo in {home}; make it with: make demo SOURCE={_settings(source).source}")
            raise typer.Exit(1)
    with _told():
        code = serve(_settings(source, home), port=port, automation=False)
    raise typer.Exit(code)


@app.command()
def status(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Rows, newest events, lag, runs and checks of every asset, and whether the promise of freshness is kept.

    Exit code: 0 = kept, or nothing is promised; 1 = broken; 2 = a wrong option or setting; 3 = cannot be told.
    """
    from crypto_assets.cli import status as module

    with _told():
        code = module.run(_settings(source, home), now=datetime.now(UTC), as_json=json)
    raise typer.Exit(code)


@app.command()
def doctor(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Look for what is wrong with the installation and configuration; each finding with its fix."""
    from crypto_assets.cli import doctor as module

    raise typer.Exit(module.run(_settings(source, home), now=datetime.now(UTC), as_json=json))


@app.command()
def produce(
    source: Source = None,
    home: HomeOption = None,
    once: Annotated[bool, typer.Option("--once", help="One poll.")] = False,
    run_for: Annotated[str | None, typer.Option("--for", help="How long, as 60s, 10m or 1h.")] = None,
    json: Json = False,
) -> None:
    """Poll the source and publish to Kafka, without Dagster; a summary on Ctrl-C."""
    from crypto_assets.cli import produce as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), once=once, run_for=run_for, as_json=json))


@app.command()
def stream(
    source: Source = None,
    home: HomeOption = None,
    available_now: Annotated[
        bool, typer.Option("--available-now", help="Stop when all that the log holds now is in Gold.")
    ] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between micro-batches.")] = 2.0,
    run_for: Annotated[str | None, typer.Option("--for", help="How long, as 60s, 10m or 1h.")] = None,
    json: Json = False,
) -> None:
    """Bring records to Bronze, Silver, bars and newest quotes within seconds of their arrival, until Ctrl-C.

    A line every 5 s tells records a second, how many wait and how far Gold reaches; a summary ends it. It may be killed
    at any time, and batch runs may go on beside it.
    """
    from crypto_assets.cli import stream as module

    with _told():
        code = module.run(
            _settings(source, home), available_now=available_now, interval_s=interval, run_for=run_for, as_json=json
        )
    raise typer.Exit(code)


@app.command()
def verify(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Prove lake and log against each other with independent code; exit 1 with a table of what is wrong."""
    from crypto_assets.cli import verify as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), now=datetime.now(UTC), as_json=json))


@app.command()
def parity(
    hours: Annotated[str, typer.Option(help="Hours A..B, both included, as partition keys (2024-05-01-00:00).")],
    source: Source = None,
    home: HomeOption = None,
    engines: Annotated[str, typer.Option(help="Two targets.")] = "local,spark",
    keep: Annotated[Path | None, typer.Option(help="Make the two homes here and leave them.")] = None,
    json: Json = False,
) -> None:
    """The same partitions on two engines from the home's log, compared row by row; exit 1 when anything differs."""
    from crypto_assets.cli import parity as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), hours, engines.split(","), keep=keep, as_json=json))


@app.command()
def backfill(
    days: Annotated[str, typer.Argument(help="A day (2024-05-01) or a range of days (2024-05-01..2024-05-07).")],
    source: Source = None,
    home: HomeOption = None,
    origin: Annotated[str, typer.Option("--from", help="log or history.")] = "log",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    json: Json = False,
) -> None:
    """Rebuild days from the log, or fetch them from the source's history."""
    from crypto_assets.cli import backfill as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), days, origin, dry_run=dry_run, as_json=json))


@app.command()
def alerts(
    source: Source = None,
    home: HomeOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing new ones.")] = False,
    json: Json = False,
) -> None:
    """Alerts and recoveries, newest last."""
    from crypto_assets.cli import alerts as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), follow=follow, as_json=json))


@app.command()
def maintain(
    source: Source = None,
    home: HomeOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Compact, vacuum, clean logs, apply retention, remove orphans, prune runs. Dry run first."""
    from crypto_assets.cli import maintain as module

    with _told():
        raise typer.Exit(module.run(_settings(source, home), now=datetime.now(UTC), apply=apply, as_json=json))


@app.command()
def drill() -> None:
    """Inject six faults into a home of its own; print check, alert and recovery of each; exit 1 if one stays silent."""
    from crypto_assets.cli import drill as module

    with _told():
        raise typer.Exit(module.run())


@broker_app.command("start")
def broker_start(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Start the broker, create and verify the topics."""
    from crypto_assets.cli import broker as module

    with _told():
        module.start(_settings(source, home), as_json=json)


@broker_app.command("stop")
def broker_stop(source: Source = None, home: HomeOption = None) -> None:
    """Stop the broker cleanly."""
    from crypto_assets.cli import broker as module

    with _told():
        module.stop(_settings(source, home))


@broker_app.command("status")
def broker_status(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Whether it runs, where, and since when; exit 1 if it does not."""
    from crypto_assets.cli import broker as module

    with _told():
        raise typer.Exit(module.status(_settings(source, home), as_json=json))


@coins_app.command("list")
def coins_list(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """The registry of the home."""
    from crypto_assets.cli import coins as module

    with _told():
        module.show(_settings(source, home), as_json=json)


@coins_app.command("add")
def coins_add(coin_id: str, source: Source = None, home: HomeOption = None) -> None:
    """Poll one more coin, checked against the source."""
    from crypto_assets.cli import coins as module

    with _told():
        module.add(_settings(source, home), coin_id, now=datetime.now(UTC))


@coins_app.command("retire")
def coins_retire(coin_id: str, source: Source = None, home: HomeOption = None) -> None:
    """Stop polling a coin; its history stays."""
    from crypto_assets.cli import coins as module

    with _told():
        module.retire(_settings(source, home), coin_id, now=datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(app())
