"""`up` as a background process: an outage caught up, data within its promise, and no process left after its end.

Every process has proxy variables that lead nowhere: nothing on this machine may be asked of them.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest

from crypto_assets.assets.card import assets_of
from crypto_assets.cli.instance import CODE_LOCATION, open_instance
from crypto_assets.cli.runs import WHY
from crypto_assets.contracts.slices import Slice, floor_hour, hour_keys
from crypto_assets.home import existing_home
from crypto_assets.settings import Settings
from crypto_assets_tests.e2e.commands import clean_environment, command, run
from crypto_assets_tests.processes import command_line, still_running

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]
LAG_S = 30.0
DEAD = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
OUTAGE = timedelta(hours=4)
BEFORE_THE_OUTAGE = """
import sys
from datetime import datetime
from pathlib import Path
from crypto_assets.cli import catch_up
from crypto_assets.cli.instance import prepare
from crypto_assets.cli.up import running_broker
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
settings = Settings(source="replay", home_path=Path(sys.argv[1]))
home = open_home(settings)
prepare(home)
with running_broker(settings):
    catch_up.run(settings, home, datetime.fromisoformat(sys.argv[2]))
"""
"""What `up` did in the home until it was stopped: everything up to a time in the past."""
LOCATIONS = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}} assetNodes{assetKey{path}}}"

RELOAD = (
    f'mutation {{reloadRepositoryLocation(repositoryLocationName: "{CODE_LOCATION}") '
    "{... on WorkspaceLocationEntry{locationOrLoadError{... on RepositoryLocation{name}}}}}"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Background:
    """A command started as a shell starts `command &`: SIGINT ignored, output read line by line."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self.process = subprocess.Popen(
            ["bash", "-c", 'trap "" INT; exec "$0" "$@"', *command(*arguments)],
            cwd=folder,
            env=clean_environment() | DEAD,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line)
            self.lines.put(line)

    def await_line(self, text: str, timeout_s: float = 200) -> None:
        while True:
            try:
                line = self.lines.get(timeout=timeout_s)
            except queue.Empty:
                raise AssertionError(f"no line with {text!r}; it said: {''.join(self.said)[-2000:]}") from None
            if text in line:
                return

    def end(self) -> None:
        """Kill what is left, and release the pipe."""
        self.process.kill()
        self.process.wait(30)
        self.reader.join(30)
        assert self.process.stdout
        self.process.stdout.close()

    def family(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@pytest.fixture(scope="module")
def stopped_at() -> datetime:
    """When `up` was stopped: ten minutes into an hour that has ended since, as have the three after it."""
    return floor_hour(datetime.now(UTC)) - OUTAGE + timedelta(minutes=10)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, stopped_at: datetime) -> Path:
    home = tmp_path_factory.mktemp("up") / "home"
    subprocess.run(
        [sys.executable, "-c", BEFORE_THE_OUTAGE, str(home), stopped_at.isoformat()],
        env=clean_environment(),
        check=True,
        timeout=240,
    )
    return home


@pytest.fixture
def up(home: Path, request: pytest.FixtureRequest) -> Iterator[Background]:
    started = Background(home.parent, *request.param, "--home", str(home), "--port", str(free_port()))
    family: list[psutil.Process] = []
    try:
        started.await_line("ui    http://127.0.0.1")
        family = started.family()
        yield started
    finally:
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        started.end()


def member(started: Background, *words: str) -> psutil.Process:
    """The one process of the family whose command line has all the words."""
    (found,) = [p for p in started.family() if all(word in command_line(p) for word in words)]
    return found


def broker_of(started: Background) -> psutil.Process:
    return member(started, "kafka.Kafka")


def polls(home: Path) -> int:
    """Polls in the topic of a home whose broker runs."""
    from crypto_assets.log.kafka.broker import bootstrap_of
    from crypto_assets.log.kafka.offsets import end_offsets

    ends = end_offsets({"bootstrap.servers": bootstrap_of(home)}, "crypto-polls-replay")
    return sum(end for _, end in ends.values())


def asked(started: Background, query: str) -> dict:
    """What the webserver answers a GraphQL query."""
    (line,) = [line for line in started.said if line.startswith("ui    ")]
    request = urllib.request.Request(
        f"{line.split()[1]}/graphql",
        json.dumps({"query": query}).encode(),
        {"content-type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return json.load(answer)["data"]


def api(home: Path, path: str) -> dict:
    """What the API beside Dagster answers; raises OSError while there is none."""
    url = existing_home(Settings(source="replay", home_path=home)).api_address.read_text(encoding="utf-8")  # type: ignore[call-arg]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}{path}", timeout=60) as answer:
        return json.load(answer)


def ready(home: Path) -> bool:
    try:
        return api(home, "/readyz")["status"] == "ready"
    except OSError:  # no file, no connection, 503
        return False


def until(true: Callable[[], bool], tries: int = 120) -> None:
    for _ in range(tries):
        if true():
            return
        threading.Event().wait(1)
    raise AssertionError("it did not come to pass")


def ends_without_a_trace(started: Background, number: int) -> None:
    family = started.family()
    names = " ".join(map(command_line, family))
    assert "crypto_assets.cli.main serve" in names
    assert "dagster._daemon" in names
    assert "kafka.Kafka" in names
    os.kill(started.process.pid, number)
    assert started.process.wait(60) == 0, "".join(started.said)[-2000:]
    assert still_running(family, within_s=20) == []


def caught_up(home: Path, stopped_at: datetime) -> None:
    """Every hour of the outage was made by runs of `up`, and the interrupted one again where the log had more of it."""
    began = floor_hour(stopped_at)
    interrupted, *missed = hour_keys(Slice(began, began + OUTAGE))
    found = existing_home(Settings(source="replay", home_path=home))  # type: ignore[call-arg]
    with open_instance(found) as instance:

        def made(asset: dg.AssetKey, hour: str) -> list[dg.DagsterRun]:
            wanted = dg.AssetRecordsFilter(asset, asset_partitions=[hour])
            ids = [record.run_id for record in instance.fetch_materializations(wanted, limit=5).records]
            return [run for run in map(instance.get_run_by_id, ids) if run is not None]

        for asset in (dg.AssetKey(name.split("/")) for name in assets_of("refresh") if name != "gold/latest_prices"):
            again = asset == dg.AssetKey(["ops", "polls"])  # the recording's hole has no quotes, but polls
            assert len(made(asset, interrupted)) >= 1 + again, asset
            assert [{run.tags["crypto_assets/why"] for run in made(asset, hour)} for hour in missed] == [{WHY}] * 3


@pytest.mark.parametrize("up", [("up", "--source", "replay")], indirect=True)
def test_up_catches_up_keeps_its_promise_and_ends_on_sigterm(up, home, stopped_at):
    caught_up(home, stopped_at)
    answer = asked(up, LOCATIONS)  # the code server loaded the definitions, and the webserver reaches it
    assert answer["workspaceOrError"]["locationEntries"] == [{"name": CODE_LOCATION, "loadStatus": "LOADED"}]
    assert {"path": ["gold", "latest_prices"]} in [node["assetKey"] for node in answer["assetNodes"]]
    report = json.loads(run(home.parent, "status", "--home", str(home), "--json").stdout)
    assert report["problems"] == []
    assert report["lag_s"] < LAG_S
    assert report["producer"]["running"] is True
    latest = next(a for a in report["assets"] if a["asset"] == "gold/latest_prices")
    assert latest["rows"] == 3
    second = run(home.parent, "up", "--home", str(home), "--source", "replay", "--port", str(free_port()))
    assert second.returncode == 3
    assert "is in use by process" in second.stderr
    until(lambda: ready(home) and api(home, "/v1/status")["data"]["state"] == "ok")
    assert api(home, "/v1/prices/latest")["provenance"]["freshness"] == "kept"
    broker_of(up).kill()
    up.await_line("kafka has died (killed by SIGKILL); starting it again")
    up.await_line("runs again")
    before = polls(home)
    until(lambda: polls(home) > before)
    ends_without_a_trace(up, signal.SIGTERM)


@pytest.mark.parametrize("up", [("ui",)], indirect=True)
def test_ui_has_everything_off_and_ends_on_ctrl_c(up, home):
    assert any("OFF" in line for line in up.said)
    assert len(asked(up, LOCATIONS)["assetNodes"]) > 20
    member(up, "code-server").kill()
    up.await_line("code server has ended; starting it again")
    loaded = {"locationOrLoadError": {"name": CODE_LOCATION}}
    until(lambda: asked(up, RELOAD)["reloadRepositoryLocation"] == loaded)
    until(lambda: ready(home))
    member(up, "crypto_assets.cli.main serve").kill()
    up.await_line("the API has ended with code -9; starting it again")
    until(lambda: ready(home))
    report = json.loads(run(home.parent, "status", "--home", str(home), "--json").stdout)
    assert "(ui) polls nothing" in report["service"]
    ends_without_a_trace(up, signal.SIGINT)


@pytest.mark.parametrize("up", [("ui",)], indirect=True)
def test_killed_it_leaves_no_process_and_the_home_serves_again(up, home):
    family = up.family()
    up.process.kill()
    assert still_running(family, within_s=60) == []
    assert run(home.parent, "broker", "status", "--home", str(home)).returncode == 1
    assert run(home.parent, "produce", "--once", "--home", str(home)).returncode == 0
