"""The embedded broker: real Apache Kafka, one KRaft node on the loopback interface, data under the home.

Belongs here: starting, finding and stopping the process. Does not belong here: fetching its software
(`crypto_assets.jvm`), topics (`topic`) or clients (`client`).
"""

from __future__ import annotations

import base64
import json
import random
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crypto_assets.files import LockHeld, UnreadableFile, file_lock, read_object, write_atomic
from crypto_assets.jvm.fetch import ensure_jars, find_java, jvm_environment
from crypto_assets.jvm.jars import KAFKA_BROKER
from crypto_assets.log.errors import BrokerError
from crypto_assets.process_identity import started_after_boot

HOST = "127.0.0.1"
HEAP = "512m"
_PORT_RANGE = (20000, 32000)
"""Ports to pick from: below the range that Linux hands to outgoing connections, so that a kept port stays ours."""

_LOG4J2 = """<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="logs/server.log" filePattern="logs/server-%i.log">
      <PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ss.SSS}{UTC}Z %p %c{1} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="info"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""

_SERVER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # one node: internal topics have one replica, and few partitions so that a start opens few files
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # retention works on whole segments: a day a segment keeps 7 days from becoming 14
    "log.roll.hours": "24",
    "log.retention.check.interval.ms": "60000",
    # the default cleaner buffer is 128 MB of a heap of 512
    "log.cleaner.dedupe.buffer.size": "4194304",
    # a killed broker may register again only when its old session has expired; the default is 9 s
    "broker.session.timeout.ms": "5000",
    "broker.heartbeat.interval.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_QUICK = "-XX:TieredStopAtLevel=1"
"""Without HotSpot's second compiler a start costs 4 s of processor time instead of 7, on cores that the pipeline needs;
and the same 400,000 records a second are taken (measured on two cores)."""

_STARTED = "started_after_boot_s"
"""Member of the pid file; see `started_after_boot`."""
_FOLDER = "folder"
"""Member of the pid file; see `_identity`."""

_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Brokers that this process started: it must reap them, or a dead one stays a zombie; and Popen objects warn when
they are collected before their process, which here outlives them on purpose."""


@dataclass(frozen=True)
class BrokerStatus:
    """State of the embedded broker of a home.

    Args:
        running: Whether its process is alive.
        pid: Process id, which is also the id of its process group; None when not running.
        port: Port that the home keeps; None before the first start.
        bootstrap_servers: `host:port` for clients; None before the first start.
        memory_mb: Resident memory in MB; None when not running.
        started_at: Unix time of the start, seconds; None when not running.
        data: Folder of its data.
        log: Its log file.
    """

    running: bool
    pid: int | None
    port: int | None
    bootstrap_servers: str | None
    memory_mb: float | None
    started_at: float | None
    data: str
    log: str


@contextmanager
def _signals_heeded() -> Iterator[None]:
    """Let a child started meanwhile handle SIGTERM and SIGINT; effective in the main thread only.

    That a signal is ignored is inherited: SIGINT by what a shell starts in the background, and SIGTERM with it once
    Dagster has run something in this process. Such a broker could only be killed.
    """
    ignored = []
    if threading.current_thread() is threading.main_thread():
        ignored = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def bootstrap_of(home: Path) -> str | None:
    """`host:port` of the home's embedded broker as kept in the home, running or not; None before its first start."""
    port = _read_json(home / "kafka" / "port.json").get("port")
    return f"{HOST}:{port}" if port else None


def _read_json(path: Path) -> dict:
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except UnreadableFile as error:
        raise BrokerError(f"{error}; delete the file, then: crypto-assets broker start") from error


def _identity(folder: Path) -> list[int]:
    """Device and inode: a moved home is the same one; a copy, which has the pid file of the original's broker, is not.

    The process's working folder would not do: a JVM that starts works in /tmp/hsperfdata_<user> for a moment, in which
    it deletes what ended JVMs left (HotSpot, `perfMemory_posix.cpp`).
    """
    found = folder.stat()
    return [found.st_dev, found.st_ino]


def port_is_free(port: int) -> bool:
    """True if this machine can listen on a port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as the broker binds: connections in TIME_WAIT of an earlier broker do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _pick_port() -> int:
    for port in random.SystemRandom().sample(range(*_PORT_RANGE), 200):
        if port_is_free(port):
            return port
    raise BrokerError(f"no free port between {_PORT_RANGE[0]} and {_PORT_RANGE[1]}; set CRYPTO_ASSETS_KAFKA_PORT")


class EmbeddedBroker:
    """One home's Kafka broker. Creating the object opens and changes nothing.

    Args:
        home: The home folder; everything lies in `<home>/kafka`.
        port: Port to listen on; 0 keeps the home's port, or picks a free one at the first start.
    """

    def __init__(self, home: Path, port: int = 0) -> None:
        self.home = home.absolute()
        self._wanted_port = port
        self._root = self.home / "kafka"
        self._data = self._root / "data"
        self._logs = self._root / "logs"
        self._config = self._root / "server.properties"
        self._pid_file = self._root / "broker.pid"
        self._log_began = 0  # size of the log before the last start: what comes before is of earlier processes

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` for clients.

        Raises:
            BrokerError: The broker was never started in this home.
        """
        found = bootstrap_of(self.home)
        if found is None:
            raise BrokerError(f"the broker of {self.home} was never started; start it: crypto-assets broker start")
        return found

    @property
    def log_file(self) -> Path:
        """The broker's own log."""
        return self._logs / "server.log"

    def status(self) -> BrokerStatus:
        """State according to the home and the process table; does not contact the broker."""
        process = self._process()
        bootstrap = bootstrap_of(self.home)
        return BrokerStatus(
            running=process is not None,
            pid=process.pid if process else None,
            port=int(bootstrap.rsplit(":", 1)[1]) if bootstrap else None,
            bootstrap_servers=bootstrap,
            memory_mb=round(process.memory_info().rss / 1e6, 1) if process else None,
            started_at=process.create_time() if process else None,
            data=str(self._data),
            log=str(self.log_file),
        )

    def start(self, timeout_s: float = 60.0, progress: Callable[[str], None] = lambda _text: None) -> BrokerStatus:
        """Start the broker if it does not run yet and wait until it answers clients.

        It becomes the leader of its own session, so a Ctrl-C in the caller's terminal does not reach it; it lives
        until `stop`, a SIGTERM or a SIGINT to it, each of which it turns into a clean shutdown.

        Args:
            timeout_s: Seconds to wait for it to serve, beyond the download at the very first start.
            progress: Called with a line of text when something slow starts.

        Raises:
            BrokerError: The port is taken, or it did not serve in time (with its last words).
            JvmError: No Java, or the jars could not be fetched.
        """
        jars = ensure_jars(KAFKA_BROKER, progress)
        with self._locked(timeout_s):
            if self._process() is None:
                self._launch(jars, progress)
            self._await_serving(timeout_s)
        return self.status()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Stop the broker cleanly (SIGTERM), and by force if it has not ended within `timeout_s`.

        Returns:
            Whether it was running.

        Raises:
            BrokerError: It did not end by force either, or another process holds the broker's lock.
        """
        with self._locked(timeout_s):
            process = self._process()
            if process is not None:
                process.terminate()
                if not self._ended(process.pid, timeout_s):
                    process.kill()
                    if not self._ended(process.pid, 10.0):
                        raise BrokerError(
                            f"process {process.pid}, the broker of {self.home}, does not end; see {self.log_file}"
                        )
            self._pid_file.unlink(missing_ok=True)
        return process is not None

    @contextmanager
    def _locked(self, timeout_s: float) -> Iterator[None]:
        try:
            with file_lock(self._root / "broker.lock", timeout_s=timeout_s):
                yield
        except LockHeld as error:
            raise BrokerError(f"another process is starting or stopping this broker: {error}; try again") from error

    def died(self) -> str | None:
        """How the broker's process ended without `stop`; None while it runs, or if it was stopped or never started."""
        written = _read_json(self._pid_file)
        if not written or self._process() is not None:
            return None
        child = _CHILDREN.get(int(written["pid"]))
        if child is None:
            return "its process is gone"
        try:
            code = child.wait(5)  # its first thread ends before the others
        except subprocess.TimeoutExpired:
            return "its process is ending"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _ended(self, pid: int, timeout_s: float) -> bool:
        """True if the broker exits in time.

        An exited process stays a zombie until its parent reaps it, which may take hours.
        """
        deadline = time.monotonic() + timeout_s
        while self._process() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        if child := _CHILDREN.pop(pid, None):
            child.wait()
        return True

    def _process(self):
        """The running broker, or None. A pid file counts only if the process is really ours: ids are reused."""
        import psutil

        written = _read_json(self._pid_file)
        if not written:
            return None
        try:
            process = psutil.Process(int(written["pid"]))
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            started, folder = written.get(_STARTED), written.get(_FOLDER)
            # Earlier versions wrote neither.
            here = folder == _identity(self._root) if folder else self._root.samefile(process.cwd())
            same = started is None or abs(started_after_boot(process) - started) < 2.0
            return process if here and same else None
        except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            return None
        except psutil.AccessDenied:
            return None  # another user's process: not the one we started

    def _choose_port(self) -> int:
        port = self._wanted_port or _read_json(self._root / "port.json").get("port") or _pick_port()
        if not port_is_free(port):
            raise BrokerError(
                f"port {port} of {HOST} is already in use by another program, so the broker of {self.home} cannot "
                "start. Stop that program, or choose another port: "
                "CRYPTO_ASSETS_KAFKA_PORT=<port> crypto-assets broker start"
            )
        return port

    def _launch(self, jars: Path, progress: Callable[[str], None]) -> None:
        import psutil

        port = self._choose_port()
        for pid in [p for p, child in _CHILDREN.items() if child.poll() is not None]:
            del _CHILDREN[pid]
        for folder in (self._data, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_config(port)
        java = find_java()
        classpath = ["-cp", str(jars / "*")]
        logging = ["-Dlog4j2.configurationFile=log4j2.xml"]
        self._format([str(java), _QUICK, *logging, *classpath], progress)
        progress(f"starting Apache Kafka on {HOST}:{port}")
        command = [
            str(java),
            _QUICK,
            f"-Xmx{HEAP}",
            "-Xms64m",
            "-XX:+UseSerialGC",  # one core's worth of collector: the machine also runs the pipeline
            *logging,
            f"-Dcrypto_assets.home={self.home}",  # for readers of process lists
            *classpath,
            "kafka.Kafka",
            self._config.name,
        ]
        self._log_began = self.log_file.stat().st_size if self.log_file.is_file() else 0
        with (self._logs / "console.log").open("wb") as console, _signals_heeded():
            child = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env=jvm_environment(),
                start_new_session=True,
            )
        _CHILDREN[child.pid] = child
        started = started_after_boot(psutil.Process(child.pid))
        record = {"pid": child.pid, _STARTED: started, _FOLDER: _identity(self._root), "port": port}
        write_atomic(self._pid_file, json.dumps(record))
        write_atomic(self._root / "port.json", json.dumps({"port": port}))

    def _write_config(self, port: int) -> None:
        controller = _pick_port()
        while controller == port:
            controller = _pick_port()
        settings = _SERVER | {
            "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"BROKER://{HOST}:{port}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            # Relative to the process's folder, as every path that the JVM gets: a properties file is Latin-1 with
            # escapes, and `log.dirs` a list, so an absolute path could name another folder. Nor does a moved home care.
            "log.dirs": self._data.name,
        }
        write_atomic(self._config, "".join(f"{name}={value}\n" for name, value in settings.items()))
        write_atomic(self._root / "log4j2.xml", _LOG4J2)

    def _format(self, java: list[str], progress: Callable[[str], None]) -> None:
        if (self._data / "meta.properties").is_file():
            return
        progress(f"formatting the broker's storage in {self._data}")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster.startswith("-"):  # the tool would take it for an option
            cluster = "A" + cluster[1:]
        command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", self._config.name]
        answer = subprocess.run(  # noqa: S603
            command, cwd=self._root, env=jvm_environment(), capture_output=True, text=True, timeout=120, check=False
        )
        if answer.returncode != 0:
            raise BrokerError(
                f"Kafka could not format {self._data}: {(answer.stdout + answer.stderr).strip()[-1000:]}\n"
                f"If the folder is left over from something else, move it away, then: crypto-assets broker start"
            )

    def _await_serving(self, timeout_s: float) -> None:
        """Wait until the broker answers a metadata request; the attempt itself waits, so this is no busy loop."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        deadline = time.monotonic() + timeout_s
        quiet = {
            "bootstrap.servers": self.bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
            "error_cb": lambda _error: None,
        }
        admin = AdminClient(quiet)
        while True:
            if self._process() is None:
                raise BrokerError(f"the broker ended while it started ({self.died()}):\n{self._last_words()}")
            try:
                if admin.list_topics(timeout=1.0).brokers:
                    return
            except KafkaException:
                pass  # not yet
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the broker did not answer on {self.bootstrap_servers} within {timeout_s:.0f} s; its log is "
                    f"{self.log_file}:\n{self._last_words()}"
                )

    def _last_words(self, lines: int = 12) -> str:
        for path, began in ((self.log_file, self._log_began), (self._logs / "console.log", 0)):
            content = path.read_bytes() if path.is_file() else b""
            own = content[began:] if began <= len(content) else content  # it rolled over meanwhile
            if text := own.decode(errors="replace").strip():
                every = text.splitlines()[-400:]
                # from the first error on: the exception's own text stands on the lines after it
                start = next((i for i, line in enumerate(every) if " ERROR " in line or " FATAL " in line), -lines)
                return "\n".join(f"  {line[:300]}" for line in every[start:][:lines])
        return f"  (nothing in {self._logs})"
