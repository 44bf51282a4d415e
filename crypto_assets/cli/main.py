"""The commands. Each parses, calls one function and translates its errors to an exit code; nothing is done here.

Heavy modules are imported inside the commands, so that `--help` answers at once. Annotations are values here, not text:
Typer would evaluate the text of every parameter of every command, twice.
"""

import atexit
import gc
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from crypto_assets.cli import output
from crypto_assets.source_facts import listed

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

_KNOWN: "ContextVar[Settings | None]" = ContextVar("settings in force", default=None)


atexit.register(gc.freeze)  # else the interpreter, as it ends, walks every object of every module that was imported


class _Commands(TyperGroup):
    """Every command: what a person can cause, signals too, ends it with one line; anything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the command line names."""
        from crypto_assets.cli.signals import interruptible
        from crypto_assets.faults import reported

        _KNOWN.set(None)
        with reported(_KNOWN.get, output.fail), interruptible():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="A live-price lakehouse on Dagster. Start with: crypto-assets demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
broker_app = typer.Typer(help="The embedded Apache Kafka of a home.", no_args_is_help=True)
coins_app = typer.Typer(help="The coins that are polled.", no_args_is_help=True)
alerts_app = typer.Typer(help="Alerts and recoveries, newest last; the commands below: rules on market data.")
models_app = typer.Typer(help="Model versions in service; the commands below put one into service by hand.")
app.add_typer(broker_app, name="broker")
app.add_typer(coins_app, name="coins")
app.add_typer(alerts_app, name="alerts")
app.add_typer(models_app, name="models")

Source = Annotated[str | None, typer.Option("--source", help=f"{listed()}.")]
HomeOption = Annotated[Path | None, typer.Option("--home", help="Home folder; default .crypto_assets/<source>.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print every list in full.")]
Rules = Annotated[list[str] | None, typer.Argument(help="Names of rules.", metavar="RULE")]
NamedRules = Annotated[list[str], typer.Argument(help="Names of rules.", metavar="RULE")]
ModelName = Annotated[
    str, typer.Argument(help="anomaly, price_5m, price_1h, volatility_1h or volatility_24h.", metavar="NAME")
]
Why = Annotated[str, typer.Option("--why", help="Reason, recorded with the decision.")]
Port = Annotated[int, typer.Option("--port", help="Port of the Dagster UI on 127.0.0.1.")]


def _settings(source: str | None = None, home: Path | None = None) -> "Settings":
    """Settings from the environment with the options on top, and with what an existing home is bound to.

    A home named on the command line determines the source, whatever the environment has: it is the more specific
    choice. A home named in the environment must agree with the rest of the environment.

    Raises:
        ReportedError: They contradict the home, or `.env` or `home.json` cannot be understood.
        pydantic.ValidationError: A value is not acceptable.
    """
    from crypto_assets import binding
    from crypto_assets.home import in_force

    settings = _ambient(source, home)
    if home and not source and (bound := binding.read(settings.home, settings.lake)):
        settings = _ambient(bound.source, home)
    settings = in_force(settings)
    _KNOWN.set(settings)
    return settings


def _ambient(source: str | None = None, home: Path | None = None, transport: str | None = None) -> "Settings":
    """Settings from the environment with the options on top; does not read the home.

    Raises:
        UnreadableFile: `.env` cannot be understood.
        pydantic.ValidationError: A value is not acceptable.
    """
    import stamina

    from crypto_assets.settings import Settings, prepare_embedded_engine

    prepare_embedded_engine()
    # What a retry came to is in the summary; each attempt's log line would be noise on a terminal.
    stamina.instrumentation.set_on_retry_hooks([])
    options = {"source": source, "home_path": home, "transport": transport}
    settings = Settings(**{name: value for name, value in options.items() if value})
    _KNOWN.set(settings)
    return settings


@app.command()
def demo(
    source: Annotated[str | None, typer.Option(help="replay or simulator.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="Home folder; default .crypto_assets/demo-<source>.")
    ] = None,
    transport: Annotated[str | None, typer.Option(help="kafka, or landing: files, without a broker.")] = None,
    days: Annotated[
        int, typer.Option("--days", help="Days, with the simulator up to 90: 45 show the whole life of a model.")
    ] = 2,
    verbose: Verbose = False,
) -> None:
    """Run two days end to end in a separate home."""
    from crypto_assets.cli import demo as module

    settings = _ambient(source, home, transport)
    raise typer.Exit(module.run(settings, datetime.now(UTC), days=days, verbose=verbose))


@app.command()
def up(source: Source = None, home: HomeOption = None, port: Port = 3000) -> None:
    """Run the pipeline with automation on, until Ctrl-C."""
    from crypto_assets.cli.up import caught_up, serve

    settings = _settings(source, home)
    raise typer.Exit(serve(settings, port=port, automation=True, before=lambda h: caught_up(settings, h)))


@app.command()
def ui(
    source: Source = None,
    home: HomeOption = None,
    port: Port = 3000,
    demo: Annotated[bool, typer.Option("--demo", help="Open the demo's home.")] = False,
) -> None:
    """Open a home in the Dagster UI with everything off."""
    from crypto_assets import binding
    from crypto_assets.cli.up import serve
    from crypto_assets.home import HomeError, existing_home

    if demo:
        from crypto_assets.cli.demo import demo_home

        base = _ambient(source)
        home = demo_home(base)
        if not (home / binding.FILE).exists():
            raise HomeError(f"there is no demo in {home}; make it with: make demo SOURCE={base.source}")
    settings = _settings(source, home)
    existing_home(settings)
    raise typer.Exit(serve(settings, port=port, automation=False))


@app.command()
def serve(
    source: Source = None,
    home: HomeOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address; others than this machine need a token.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; default 3001.")] = None,
) -> None:
    """Serve prices, bars, anomalies and forecasts of a home by REST, and the page, until Ctrl-C; without Dagster."""
    from crypto_assets.cli import serve as module

    given = {name: value for name, value in {"api_host": host, "api_port": port}.items() if value is not None}
    raise typer.Exit(module.run(_settings(source, home).model_copy(update=given)))


@app.command()
def status(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Rows, newest events, lag, runs and checks of every asset, and whether the promise of freshness is kept.

    Exit code: 0 = kept, or nothing is promised; 1 = broken; 2 = a wrong option or setting; 3 = unknown.
    """
    from crypto_assets.collector import collector_paused

    with collector_paused(lasting=True):  # it would walk Dagster's modules again and again while they are imported
        from crypto_assets.cli import status as module

        code = module.run(_settings(source, home), clock=partial(datetime.now, UTC), as_json=json)
    raise typer.Exit(code)


@app.command()
def doctor(source: Source = None, home: HomeOption = None, json: Json = False, verbose: Verbose = False) -> None:
    """Look for what is wrong with the installation and configuration; each finding with its fix."""
    from crypto_assets.cli import doctor as module
    from crypto_assets.errors import ReportedError

    def load() -> "Settings":
        """Also of a home that cannot be used: that is a finding."""
        try:
            return _settings(source, home)
        except ReportedError:
            return _ambient(source, home)

    raise typer.Exit(module.run(load, now=datetime.now(UTC), as_json=json, verbose=verbose))


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

    raise typer.Exit(module.run(_settings(source, home), once=once, run_for=run_for, as_json=json))


@app.command()
def stream(
    source: Source = None,
    home: HomeOption = None,
    available_now: Annotated[
        bool, typer.Option("--available-now", help="Stop when all that the log holds now is in Gold.")
    ] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between micro-batches.")] = 1.0,
    run_for: Annotated[str | None, typer.Option("--for", help="How long, as 60s, 10m or 1h.")] = None,
    json: Json = False,
) -> None:
    """Bring records to Bronze, Silver, bars and newest quotes within seconds of their arrival, until Ctrl-C.

    A line every 5 s reports records per second, the backlog and the watermark of Gold; a summary ends it. It may be
    killed at any time, and batch runs may go on beside it.
    """
    from crypto_assets.cli import stream as module

    code = module.run(
        _settings(source, home), available_now=available_now, interval_s=interval, run_for=run_for, as_json=json
    )
    raise typer.Exit(code)


@app.command()
def verify(source: Source = None, home: HomeOption = None, json: Json = False, verbose: Verbose = False) -> None:
    """Prove lake and log against each other with independent code; exit 1 with a table of what is wrong."""
    from crypto_assets.cli import verify as module

    code = module.run(_settings(source, home), now=datetime.now(UTC), as_json=json, verbose=verbose)
    raise typer.Exit(code)


@app.command("adopt-log")
def adopt_log(
    source: Source = None,
    home: HomeOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Execute the plan; without it only print the plan.")] = False,
    json: Json = False,
) -> None:
    """Store what a log holds that lost its newest records: as a new incarnation of its topic. Dry run first."""
    from crypto_assets.cli import adopt_log as module

    raise typer.Exit(module.run(_settings(source, home), now=datetime.now(UTC), apply=apply, as_json=json))


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

    raise typer.Exit(module.run(_settings(source, home), days, origin, dry_run=dry_run, as_json=json))


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Model versions in service, and the newest decisions; the commands below put one into service by hand."""
    from crypto_assets.cli import models as module

    if context.invoked_subcommand is None:
        raise typer.Exit(module.show(_settings(source, home), now=datetime.now(UTC), as_json=json))
    if source or home or json:
        raise typer.BadParameter(
            f"write the options after {context.invoked_subcommand}: here they belong to models alone"
        )


@models_app.command("promote")
def models_promote(
    name: ModelName,
    version: Annotated[str, typer.Argument(help="Version; all: crypto-assets models.", metavar="VERSION")],
    why: Why,
    source: Source = None,
    home: HomeOption = None,
) -> None:
    """Put a version into service from the next hour, until a training promotes a later one."""
    from crypto_assets.cli import models as module

    settings = _settings(source, home)
    raise typer.Exit(module.decide(settings, name, version, "promoted_by_hand", why, now=datetime.now(UTC)))


@models_app.command("rollback")
def models_rollback(
    name: ModelName,
    why: Why,
    version: Annotated[
        str | None,
        typer.Argument(
            help="Version; default: the newest older one that served.", metavar="VERSION", show_default=False
        ),
    ] = None,
    source: Source = None,
    home: HomeOption = None,
) -> None:
    """Put an earlier version back into service from the next hour and hold it: trainings do not replace it."""
    from crypto_assets.cli import models as module

    settings, wanted = _settings(source, home), version or None  # a job's parameter is empty when it is left out
    raise typer.Exit(module.decide(settings, name, wanted, "rolled_back", why, now=datetime.now(UTC)))


@alerts_app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    source: Source = None,
    home: HomeOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing new ones.")] = False,
    json: Json = False,
) -> None:
    """Alerts and recoveries, newest last; the commands below: rules on market data."""
    from crypto_assets.cli import alerts as module

    if context.invoked_subcommand is None:
        raise typer.Exit(module.run(_settings(source, home), follow=follow, as_json=json))
    if source or home or follow or json:
        raise typer.BadParameter(
            f"write the options after {context.invoked_subcommand}: here they belong to alerts alone"
        )


@alerts_app.command("backtest")
def alerts_backtest(rules: Rules = None, source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """How often rules would have fired per coin and day, over all rows of the home; none named = all."""
    from crypto_assets.cli import alert_rules as module

    raise typer.Exit(module.backtest(_settings(source, home), rules or [], now=datetime.now(UTC), as_json=json))


@alerts_app.command("enable")
def alerts_enable(rules: NamedRules, source: Source = None, home: HomeOption = None) -> None:
    """Enable rules that were back-tested in their present text and stay within their budget."""
    from crypto_assets.cli import alert_rules as module

    raise typer.Exit(module.enable(_settings(source, home), rules))


@alerts_app.command("disable")
def alerts_disable(rules: NamedRules, source: Source = None, home: HomeOption = None) -> None:
    """Disable rules; their open alerts end."""
    from crypto_assets.cli import alert_rules as module

    raise typer.Exit(module.disable(_settings(source, home), rules, now=datetime.now(UTC)))


@alerts_app.command("rules")
def alerts_rules(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Every rule: what it says, whether it is on, its newest back-test."""
    from crypto_assets.cli import alert_rules as module

    raise typer.Exit(module.rules(_settings(source, home), as_json=json))


@alerts_app.command("test-channel")
def alerts_test_channel(name: str, source: Source = None, home: HomeOption = None) -> None:
    """Send a test message by a channel: webhook, or one of CRYPTO_ASSETS_ALERT_CHANNELS."""
    from crypto_assets.cli import alert_rules as module

    raise typer.Exit(module.test_channel(_settings(source, home), name, now=datetime.now(UTC)))


@app.command()
def prices(
    source: Source = None,
    home: HomeOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print again when prices change, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", metavar="<s>", min=0.5, help="Seconds between reads with --watch.")
    ] = 5.0,
    json: Json = False,
) -> None:
    """Newest price of every coin with its changes, volume, market cap and age, and why a value is unknown."""
    from crypto_assets.cli import prices as module

    raise typer.Exit(module.run(_settings(source, home), as_json=json, watch=watch, every_s=every))


@app.command()
def query(
    sql: Annotated[str | None, typer.Argument(help='One SELECT, as "SELECT * FROM gold.latest_prices".')] = None,
    source: Source = None,
    home: HomeOption = None,
    name: Annotated[str | None, typer.Option("--name", help="A query of the catalogue instead of SQL.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter, as coin=bitcoin; may be repeated.")
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="List the tables and their columns.")] = False,
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="<n>", min=1, help="Rows at most. Default: 100 in a table.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="<s>", min=0.1, help="Seconds until it is stopped.")
    ] = 30.0,
) -> None:
    """SQL over the tables of a home, read-only; or a query of the catalogue (docs/querying.md)."""
    from crypto_assets.cli import query as module

    code = module.run(
        _settings(source, home),
        sql,
        name=name,
        given=given or [],
        tables=tables,
        form=form,
        limit=limit,
        timeout_s=timeout,
    )
    raise typer.Exit(code)


@app.command()
def evaluate(
    origin: Annotated[str, typer.Option("--from", metavar="FILE|home", help="Parquet file of bars, or home.")],
    days: Annotated[str, typer.Option("--days", metavar="A..B", help="Days to evaluate, both included.")],
    source: Source = None,
    home: HomeOption = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="N", help="Flags per coin and day; may be repeated. Default: 1 and 1/7."),
    ] = None,
    horizon: Annotated[
        list[str] | None,
        typer.Option(
            "--horizon",
            metavar="5m|1h|24h",
            help="May be repeated. Default: all. 24h: volatility only; 5m: price only.",
        ),
    ] = None,
    spliced: Annotated[
        bool, typer.Option("--splice", help="Also splice in the worst recorded hour, five-fold, and follow it.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="DIR", help="Write pictures into this folder.")] = None,
    json: Json = False,
) -> None:
    """Train and score the models day by day on any bars, and print how they do: flags, faults found, intervals, skill.

    A file has the columns coin, time (start of the bar, UTC), open, high, low, close, and bars of 5 minutes or less.
    """
    from crypto_assets.cli import evaluate as module

    request = module.Request.of(days, budget or [], horizon or [], plot, splice=spliced)
    if origin != module.HOME:
        _ambient()
    raise typer.Exit(module.run(lambda: _settings(source, home), origin, request, as_json=json))


@app.command()
def maintain(
    source: Source = None,
    home: HomeOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Execute the plan; without it only print the plan.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair damaged tables instead of tidying.")] = False,
    json: Json = False,
) -> None:
    """Compact, vacuum, clean logs, apply retention, remove orphans, prune runs; or repair. Dry run first."""
    from crypto_assets.cli import maintain as module
    from crypto_assets.cli import repair as repairing

    if repair:
        raise typer.Exit(repairing.run(_settings(source, home), now=datetime.now(UTC), apply=apply, as_json=json))
    raise typer.Exit(module.run(_settings(source, home), now=datetime.now(UTC), apply=apply, as_json=json))


@app.command()
def drill() -> None:
    """Inject six faults into a separate home; print check, alert and recovery of each; exit 1 if one stays silent."""
    from crypto_assets.cli import drill as module

    raise typer.Exit(module.run(_ambient()))


@broker_app.command("start")
def broker_start(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Start the broker, create and verify the topics."""
    from crypto_assets.cli import broker as module

    module.start(_settings(source, home), as_json=json)


@broker_app.command("stop")
def broker_stop(source: Source = None, home: HomeOption = None) -> None:
    """Stop the broker cleanly."""
    from crypto_assets.cli import broker as module

    module.stop(_settings(source, home))


@broker_app.command("status")
def broker_status(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """Show whether it runs, where, and since when; exit 1 if it does not."""
    from crypto_assets.cli import broker as module

    raise typer.Exit(module.status(_settings(source, home), as_json=json))


@coins_app.command("list")
def coins_list(source: Source = None, home: HomeOption = None, json: Json = False) -> None:
    """The registry of the home."""
    from crypto_assets.cli import coins as module

    module.show(_settings(source, home), as_json=json)


@coins_app.command("add")
def coins_add(coin_id: str, source: Source = None, home: HomeOption = None) -> None:
    """Poll one more coin, checked against the source."""
    from crypto_assets.cli import coins as module

    module.add(_settings(source, home), coin_id, now=datetime.now(UTC))


@coins_app.command("retire")
def coins_retire(coin_id: str, source: Source = None, home: HomeOption = None) -> None:
    """Stop polling a coin; its history stays."""
    from crypto_assets.cli import coins as module

    module.retire(_settings(source, home), coin_id, now=datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(app())
