"""Warm JVMs for the tasks' Spark, as an instance pool keeps machines: each serves one run at a time.

Belongs here: starting, lending and ending the JVMs. A run makes a SparkContext of its own in the JVM that it is lent
and stops it at its end (`remote/session.py`), so that only compiled code is shared. The JVM of a run that did not end
in order (cancelled, killed) is ended with it.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crypto_assets_tests.databricks_standin.errors import ApiError
from crypto_assets_tests.databricks_standin.processes import end_group, kept
from crypto_assets_tests.databricks_standin.routes import Call, Routes

START_S = 120


@dataclass(frozen=True)
class Jvm:
    """A running gateway of Spark.

    Args:
        process: Leader of its process group.
        port: Port of the gateway on 127.0.0.1.
        secret: What its client must send.
        token: What clients of a Spark Connect server in it must send.
    """

    process: subprocess.Popen[bytes]
    port: int
    secret: str
    token: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None


class Jvms:
    """JVMs of one workspace or of several, started when a run first needs one and none is idle.

    Args:
        folder: Where they write what they say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._idle: list[Jvm] = []
        self._lent: dict[str, Jvm] = {}
        self._over: set[str] = set()

    def register(self, routes: Routes) -> None:
        """Add the call by which a run asks for its JVM. No workspace has it: on a cluster, Spark is there already."""

        def lend(call: Call) -> dict[str, Any]:
            jvm = self.lend(call.need("run"), call.need("conf"))
            return {"port": jvm.port, "secret": jvm.secret, "token": jvm.token}

        routes.add("POST", "standin/jvm", lend)

    def lend(self, run: str, conf: Mapping[str, str]) -> Jvm:
        """The JVM of a run, which has a name that no other run has: one for all of its life.

        Raises:
            ApiError: The run is over; nothing of it may stay.
            RuntimeError: It did not start; names its log.
        """
        with self._lock:
            if run in self._lent:
                return self._lent[run]
            self._idle = [j for j in self._idle if j.alive]
            found = self._idle.pop() if self._idle else None
        found = found or self._start(conf)
        with self._lock:
            if run not in self._over:
                self._lent[run] = found
                return found
        end_group(found.process)
        raise ApiError(409, "RESOURCE_CONFLICT", "the run was over before its JVM had started")

    def give_back(self, run: str, *, in_order: bool) -> None:
        """Take back what a run was lent; whatever a run left behind that did not end in order is ended."""
        with self._lock:
            self._over.add(run)
            jvm = self._lent.pop(run, None)
            if jvm is not None and in_order and jvm.alive:
                self._idle.append(jvm)
                return
        if jvm is not None:
            end_group(jvm.process)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            all_of_them = [*self._idle, *self._lent.values()]
            self._idle, self._lent = [], {}
        for jvm in all_of_them:
            end_group(jvm.process)

    def _start(self, conf: Mapping[str, str]) -> Jvm:
        import pyspark

        given = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
        command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), *given, "pyspark-shell"]
        log = self._folder / f"{next(self._numbers)}.log"
        self._folder.mkdir(parents=True, exist_ok=True)
        told = Path(tempfile.mkdtemp(dir=self._folder)) / "gateway"
        token = secrets.token_hex(16)
        env = {
            **kept(),
            "HOME": str(self._folder),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_CONNECT_MODE": "0",
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
            "_PYSPARK_DRIVER_CONN_INFO_PATH": str(told),
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # the gateway ends with it, however this process ends
                stdout=out,
                stderr=out,
                env=env,
                cwd=self._folder,
                start_new_session=True,
            )
        waiting = threading.Event()
        for _ in range(START_S * 20):
            if told.is_file() or process.poll() is not None:
                break
            waiting.wait(0.05)
        if not told.is_file():
            end_group(process)
            raise RuntimeError(f"Spark's JVM did not start; see {log}")
        data = told.read_bytes()
        told.unlink()
        told.parent.rmdir()
        size = int.from_bytes(data[4:8], "big")
        return Jvm(process, int.from_bytes(data[:4], "big"), data[8 : 8 + size].decode(), token)
