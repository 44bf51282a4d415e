"""`up` and `ui`: broker, webserver and daemon of a home as one supervised group.

Belongs here: starting, watching and stopping. Does not belong here: what the pipeline does (`automation`).
"""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.instance import child_environment, prepare
from crypto_assets.cli.processes import Supervised, stop_requested
from crypto_assets.compute.inputs import BANNERS
from crypto_assets.errors import ReportedError

if TYPE_CHECKING:
    from threading import Event

    from crypto_assets.home import Home
    from crypto_assets.settings import Settings

READY_TIMEOUT_S = 120


class StartError(ReportedError):
    """Something could not be started; the message names it and the setting or command that helps."""


@contextmanager
def running_broker(settings: Settings) -> Iterator[str]:
    """Kafka for the home: the external one if configured, else the embedded broker, stopped again if we started it.

    A landing home needs none; where its files lie is given in place of the servers.
    """
    if settings.transport == "landing":
        yield f"not used: records land in {settings.landing}"
        return
    if settings.kafka_bootstrap_servers:
        yield settings.kafka_bootstrap_servers
        return
    from crypto_assets.kafka.broker import EmbeddedBroker

    broker = EmbeddedBroker(settings.home, settings.kafka_port)
    ours = not broker.status().running
    if ours:
        broker.start()
    try:
        yield broker.status().bootstrap_servers or ""
    finally:
        if ours:
            broker.stop()


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
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requested())
        stack.enter_context(home.lock("serve", doing="up" if automation else "ui"))
        output.say(BANNERS[settings.source], style="bold")
        output.say(f"home {home.path}")
        servers = stack.enter_context(running_broker(settings))
        output.say(f"kafka {servers}")
        if before is not None and not stop.is_set():
            before(home)
        if stop.is_set():
            return 0
        return _watch(stack, settings, home, port, automation, stop)


def _watch(stack: ExitStack, settings: Settings, home: Home, port: int, automation: bool, stop: Event) -> int:
    log = home.path / "logs" / "dagster.log"
    dagster = Supervised(
        "dagster",
        [sys.executable, "-m", "dagster", "dev", "-m", "crypto_assets.definitions", "-p", str(port), "-h", "127.0.0.1"],
        child_environment(settings, home, automation=automation),
        log,
    )
    stack.callback(dagster.stop)
    url = f"http://127.0.0.1:{port}"
    _await_ready(f"{url}/server_info", dagster, stop, log)
    home.ui_address.write_text(url, encoding="utf-8")
    stack.callback(home.ui_address.unlink, missing_ok=True)
    if not stop.is_set():
        state = (
            "sensors and schedules run"
            if automation
            else "sensors and schedules are OFF: nothing polls or runs by itself"
        )
        output.say(f"ui    {url}   ({state}; Ctrl-C stops everything)")
    while dagster.alive():
        if stop.wait(1.0):
            output.say("stopping ...")
            return 0
    output.fail(f"Dagster ended by itself with code {dagster.process.returncode}; see {log}")
    return 1


def _await_ready(url: str, dagster: Supervised, stop: Event, log: Path) -> None:
    for _ in range(READY_TIMEOUT_S * 2):
        if stop.wait(0.5) or not dagster.alive():
            return
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            continue
    raise StartError(f"the Dagster webserver did not answer within {READY_TIMEOUT_S} s; see {log}")
