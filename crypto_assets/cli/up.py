"""`up` and `ui`: broker, webserver and daemon of a home as one supervised group.

Belongs here: starting, watching and stopping. Does not belong here: what the pipeline does (`automation`).
"""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.instance import child_environment, prepare
from crypto_assets.cli.processes import Supervised, owned_children
from crypto_assets.cli.signals import stop_if_asked, stop_requested
from crypto_assets.errors import ReportedError

if TYPE_CHECKING:
    from crypto_assets.home import Home
    from crypto_assets.log.kafka.broker import EmbeddedBroker
    from crypto_assets.settings import Settings

READY_TIMEOUT_S = 120


class StartError(ReportedError):
    """Something could not be started; the message names it and the setting or command that helps."""


@contextmanager
def running_broker(settings: Settings, *, watch: bool = False) -> Iterator[str]:
    """Kafka for the home: the external one if configured, else the embedded broker, stopped again if we started it.

    A broker that we started ends with this process, however that ends. A landing home needs none; where its files lie
    is given in place of the servers.

    Args:
        settings: Settings of the home.
        watch: Start the embedded broker again when it dies meanwhile; it is then stopped at the end in any case.
    """
    if settings.transport == "landing":
        yield f"not used: records land in {settings.landing}"
        return
    if settings.kafka_bootstrap_servers:
        yield settings.kafka_bootstrap_servers
        return
    from crypto_assets.cli.broker_watch import BrokerWatch
    from crypto_assets.log.kafka.broker import EmbeddedBroker

    broker = EmbeddedBroker(settings.home, settings.kafka_port)
    with owned_children():
        ours = not broker.status().running
        if ours:
            _start(broker)
        watcher = BrokerWatch(broker, partial(output.anyway, output.say))
        try:
            with watcher.watching() if watch else nullcontext():
                yield broker.bootstrap_servers
        finally:
            if ours or watcher.started_it:
                broker.stop()


def _start(broker: EmbeddedBroker) -> None:
    try:
        broker.start()
        stop_if_asked()  # an interrupt is lost when it comes while the client calls us back
    except KeyboardInterrupt:
        broker.stop()
        raise


def free_port(port: int) -> None:
    """Check that the web port can be used.

    Raises:
        StartError: It is taken; names it and the flag.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(
                f"port {port} is in use; choose another: --port {port + 1} (make: PORT={port + 1})"
            ) from error


def serve(settings: Settings, *, port: int, automation: bool, before: Callable[[Home], None] | None = None) -> int:
    """Run broker, webserver and daemon until a signal; leave no process.

    Args:
        settings: Settings of the home.
        port: Port of the UI on 127.0.0.1.
        automation: Start sensors and schedules (`up`) or leave everything off (`ui`).
        before: Work between broker and webserver, such as catching up.

    Returns:
        Exit code: 0 after a signal, 1 when a child ended by itself.

    Raises:
        StartError: The port is taken or Dagster does not come up.
        HomeError: The home is in use or bound to something else.
    """
    from crypto_assets.home import open_home

    free_port(port)
    home = open_home(settings)
    prepare(home)
    with stop_requested(interrupt=True) as asked:
        try:
            with ExitStack() as stack:
                stack.enter_context(home.lock("serve", doing="up" if automation else "ui"))
                stack.enter_context(owned_children())
                output.say(settings.source_facts.banner, style="bold")
                output.say(f"home {home.path}")
                servers = stack.enter_context(running_broker(settings, watch=True))
                output.say(f"kafka {servers}")
                if before is not None:
                    before(home)
                return _watch(stack, settings, home, port, automation)
        except BaseException as error:
            if asked.caused(error):
                return 0  # by now everything is stopped
            raise


def _watch(stack: ExitStack, settings: Settings, home: Home, port: int, automation: bool) -> int:
    """Start Dagster and return when it ends by itself."""
    log = home.path / "logs" / "dagster.log"
    dagster = Supervised(
        "dagster",
        [sys.executable, "-m", "dagster", "dev", "-m", "crypto_assets.definitions", "-p", str(port), "-h", "127.0.0.1"],
        child_environment(settings, home, automation=automation),
        log,
    )
    stack.callback(dagster.stop)
    url = f"http://127.0.0.1:{port}"
    if _await_ready(f"{url}/server_info", dagster, log):
        home.ui_address.write_text(url, encoding="utf-8")
        stack.callback(home.ui_address.unlink, missing_ok=True)
        state = (
            "sensors and schedules run"
            if automation
            else "sensors and schedules are OFF: nothing polls or runs by itself"
        )
        output.say(f"ui    {url}   ({state}; Ctrl-C stops everything)")
    while dagster.alive():
        time.sleep(1.0)
    output.fail(f"Dagster ended by itself with code {dagster.process.returncode}; see {log}")
    return 1


def _await_ready(url: str, dagster: Supervised, log: Path) -> bool:
    """Wait for the webserver; False when Dagster has ended meanwhile."""
    for _ in range(READY_TIMEOUT_S * 2):
        time.sleep(0.5)
        if not dagster.alive():
            return False
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return True
        except OSError:
            continue
    raise StartError(f"the Dagster webserver did not answer within {READY_TIMEOUT_S} s; see {log}")
