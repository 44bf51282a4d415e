"""`up` and `ui`: broker, code server, webserver and daemon of a home as one supervised group.

Belongs here: starting, watching and stopping. Does not belong here: what the pipeline does (`orchestration`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

from crypto_assets.cli import output
from crypto_assets.cli.api_child import ApiChild, api_of
from crypto_assets.cli.broker_watch import BrokerWatch
from crypto_assets.cli.instance import CODE_LOCATION, child_environment, prepare
from crypto_assets.cli.processes import Supervised, owned_children, stop_all
from crypto_assets.cli.signals import stop_if_asked, stop_requested
from crypto_assets.errors import ReportedError
from crypto_assets.home import Home, open_home
from crypto_assets.log.kafka.broker import EmbeddedBroker, port_is_free
from crypto_assets.paths import private_folder
from crypto_assets.settings import Settings

ENDS_WITHIN_S = 20.0
"""Seconds that an interrupted catch-up has for ending its run in order."""
LONGEST_SOCKET = 103
"""Bytes of a socket's path; macOS takes 103, Linux 107."""


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
        ReportedError: It is taken; names it and the flag.
    """
    if not port_is_free(port):
        raise ReportedError(f"port {port} is in use; choose another: --port {port + 1} (make: PORT={port + 1})")


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
        ReportedError: The port is taken or Dagster does not come up.
        HomeError: The home is in use or bound to something else.
    """
    free_port(port)
    api = api_of(settings, port)
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
                return _watch(stack, settings, home, port, automation, api)
        except BaseException as error:
            if asked.caused(error):
                return 0  # by now everything is stopped
            raise


def caught_up(settings: Settings, home: Home) -> None:
    """Bring a home to the present in a child process, which prints to our terminal.

    Raises:
        SystemExit: It ended with an error, which it has reported.
        ReportedError: It was killed.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "crypto_assets.cli.catch_up"],
        env=child_environment(settings, home, automation=True),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C reaches it by us alone
    )
    try:
        code = child.wait()
    except BaseException:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(ENDS_WITHIN_S)
        finally:
            child.kill()
        raise
    if code < 0:
        name = signal.Signals(-code).name
        raise ReportedError(f"catching up was ended by {name}, not by us: start again, it goes on where it was")
    if code:
        raise SystemExit(code)


def _watch(stack: ExitStack, settings: Settings, home: Home, port: int, automation: bool, api: ApiChild | None) -> int:
    """Start Dagster and the API, and return when a part of Dagster ends by itself.

    A code server that ends is started again, and so is the API, which never ends Dagster.
    """
    environment = child_environment(settings, home, automation=automation)
    dagster = _Dagster(home, environment)
    if api is not None:
        stack.callback(api.stop)
        api.start(home, environment)
    stack.callback(lambda: stop_all(list(dagster.running.values())))
    url = f"http://127.0.0.1:{port}"
    patience = Patience(settings.start_timeout_s)
    dagster.start_code_server()
    if dagster.ready("code server", dagster.loads_code, patience):
        dagster.start_services(port)
        if dagster.ready("webserver", partial(_answers, f"{url}/server_info"), patience):
            home.ui_address.write_text(url, encoding="utf-8")
            stack.callback(home.ui_address.unlink, missing_ok=True)
            state = (
                "sensors and schedules run"
                if automation
                else "sensors and schedules are OFF: nothing polls or runs by itself"
            )
            output.say(f"ui    {url}   ({state}; Ctrl-C stops everything)")
            if api is not None:
                output.say(f"api   {api.url}   (prices, charts and REST; documentation at {api.url}/docs)")
            while not (set(dagster.ended()) - {"code server"}):
                if dagster.ended():
                    output.say("Dagster's code server has ended; starting it again")
                    dagster.start_code_server()
                if api is not None:
                    api.keep()
                time.sleep(1.0)
    codes = ", ".join(f"{name} with code {code}" for name, code in dagster.ended().items())
    output.fail(f"Dagster ended by itself ({codes}); see {dagster.log}")
    return 1


class _Dagster:
    """Code server, webserver and daemon of a home: the processes of `dagster dev`, which Dagster has superseded.

    The code server listens on a socket file, and the other two are started when it has loaded the definitions.
    """

    def __init__(self, home: Home, environment: Mapping[str, str]) -> None:
        self.log = home.path / "logs" / "dagster.log"
        self.running: dict[str, Supervised] = {}
        self._environment = environment
        self._socket = private_folder() / "code.sock"
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET:
            raise ReportedError(f"{self._socket} is too long a path for a socket: set TMPDIR to a shorter folder")

    def start_code_server(self) -> None:
        """Start the process that loads the definitions and launches runs."""
        location = ("-m", CODE_LOCATION, "--location-name", CODE_LOCATION, "--socket", str(self._socket))
        options = ("--use-python-environment-entry-point", "--inject-env-vars-from-instance", "--log-level", "warning")
        self._start("code server", "dagster", "code-server", "start", *location, *options)

    def start_services(self, port: int) -> None:
        """Start webserver and daemon on the code server's socket."""
        workspace = self._socket.with_name("workspace.yaml")
        served = {"grpc_server": {"socket": str(self._socket), "location_name": CODE_LOCATION}}
        workspace.write_text(json.dumps({"load_from": [served]}), encoding="utf-8")  # JSON is YAML
        address = ("-h", "127.0.0.1", "-p", str(port))
        self._start("webserver", "dagster_webserver", "-w", str(workspace), *address)
        self._start("daemon", "dagster._daemon", "run", "-w", str(workspace))

    def _start(self, name: str, *module: str) -> None:
        self.running[name] = Supervised(name, [sys.executable, "-m", *module], self._environment, self.log)

    def ended(self) -> dict[str, int | None]:
        """Exit codes of the processes that have ended, by name."""
        return {name: child.process.returncode for name, child in self.running.items() if not child.alive()}

    def loads_code(self) -> bool:
        """True if the code server accepts connections, which it does once the definitions are loaded."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def ready(self, name: str, answers: Callable[[], bool], patience: Patience) -> bool:
        """Wait until a process answers; False when one has ended meanwhile.

        Raises:
            ReportedError: It did not answer within the limit.
        """
        while not self.ended():
            if answers():
                return True
            if not patience.wait(0.5):
                raise ReportedError(
                    f"Dagster's {name} did not answer within {patience.waited_s:.0f} s ({patience.machine}): give it "
                    f"more time with CRYPTO_ASSETS_START_TIMEOUT_S (now {patience.limit_s:g}), or see {self.log}"
                )
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return True
    except OSError:
        return False


class Patience:
    """Time that a start may take. A second counts in full on an idle machine, and the less the more load it has.

    Args:
        limit_s: Seconds on an idle machine.
        load: Returns the processes that want to run, per processor.
        clock: Returns seconds.
    """

    def __init__(
        self, limit_s: float, load: Callable[[], float] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_s, self.machine = limit_s, ""
        self._load, self._clock = load or load_per_processor, clock
        self._began = self._seen = clock()
        self._spent_s = 0.0

    @property
    def waited_s(self) -> float:
        """Seconds since the start."""
        return self._seen - self._began

    def wait(self, seconds: float) -> bool:
        """Wait; False when the time is used up."""
        time.sleep(seconds)
        now, load = self._clock(), self._load()
        self._spent_s += (now - self._seen) / max(1.0, load)
        self._seen = now
        self.machine = f"load {load:.1f} per processor"
        return self._spent_s < self.limit_s


def load_per_processor() -> float:
    """Load average of the last minute per processor; 0 if the system does not report it."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return 0.0
