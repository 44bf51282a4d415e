"""The embedded engine: Sail (Spark Connect in process) beside delta-rs tables.

Belongs here: starting and stopping the embedded server, the session, handing Arrow data to it. Does not belong here:
what is computed, how tables are written (`storage.delta_rs`), how the log is read (`log.kafka.reading`).

One server and one session serve the whole process, whatever the number of engines. Nothing starts before first use. The
server must not be used across a fork: child processes are spawned and start their own.
"""

from __future__ import annotations

import atexit
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from crypto_assets import paths
from crypto_assets.engine.base import Engine, StepFailed
from crypto_assets.engine.spark import Sessions
from crypto_assets.log.kafka.reading import read_ranges
from crypto_assets.settings import make_connect_columns, prepare_embedded_engine
from crypto_assets.storage.base import OffsetRange
from crypto_assets.storage.delta_rs import DeltaRsStore
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

STAGE_ABOVE_BYTES = 16 * 1024 * 1024
"""Size above which Arrow data is handed over as a file: a gRPC message holds at most 128 MB, and a file is faster."""

WITHOUT_CALL_SITES = ("spark.python.sql.dataFrameDebugging.enabled", "false")
"""PySpark walks the stack and tries to import IPython at every function of a column, for messages that Sail does not
send (measured: a twentieth of a refresh)."""

UNCOMPRESSED = [("grpc.compression_enabled_algorithms_bitset", 1)]
"""gRPC's option to accept only what is not compressed. Sail compresses replies (gzip) for every client that accepts it,
which on the way within one process cost 4 of the 5 microseconds in which a record of 330 bytes is handed over."""


def _start() -> SparkSession:
    """Start the embedded server and a session of it; both stop when the process ends."""
    prepare_embedded_engine()
    make_connect_columns()
    from pysail.spark import SparkConnectServer
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    server = SparkConnectServer()
    server.start(background=True)
    address = server.listening_address
    if address is None:
        raise RuntimeError("the embedded Sail server did not report its address")
    channel = DefaultChannelBuilder(f"sc://127.0.0.1:{address[1]}", UNCOMPRESSED)
    session = ConnectSession.builder.channelBuilder(channel).create()
    session.conf.set(*WITHOUT_CALL_SITES)
    _keep_interrupts()

    def stop() -> None:
        session.stop()  # first: its client would otherwise retry against a stopped server
        server.stop()

    atexit.register(stop)
    return cast("SparkSession", session)


def _keep_interrupts() -> None:
    """Take Ctrl-C back from the server, which would stop at once.

    Work in progress still needs the server, and the session's client would retry against a stopped one for minutes.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None:
        signal.signal(signal.SIGINT, handler)


_SESSION = Sessions(_start)
"""The process's one session."""


class SailEngine(Engine):
    """Engine of the `local` target. Creating one opens nothing.

    Args:
        lake: Folder of the tables, `<lake>/<schema>/<table>`.
        kafka_config: Returns librdkafka options when the log is first read; None if this engine never reads it.
    """

    def __init__(self, lake: str, kafka_config: Callable[[], dict[str, Any]] | None = None) -> None:
        self.lake = lake
        self.store: DeltaStore = DeltaRsStore(lake, _SESSION)
        self._kafka_config = kafka_config

    @property
    def spark(self) -> SparkSession:
        """The process's session, started on first use; its time zone is UTC."""
        return _SESSION()

    @property
    def started(self) -> bool:
        """Whether this process has started its embedded server."""
        return _SESSION.started

    def read_log(self, topic: str, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        """Read exact offset ranges of a Kafka topic in chunks; see `engine.base.Engine.read_log`.

        Raises:
            LogUnavailable: The broker cannot be reached.
            LogTrimmed: A range is no longer retained.
            StepFailed: This engine has no Kafka settings.
        """
        return read_ranges(self.kafka_config(), topic, ranges)

    def kafka_config(self) -> dict[str, Any]:
        """Options of librdkafka; see `engine.base.Engine.kafka_config`."""
        if self._kafka_config is None:
            raise StepFailed("cannot read the log: this engine was made without Kafka settings")
        return self._kafka_config()

    def frame(self, rows: pa.Table) -> DataFrame:
        """Arrow rows of any size as a frame: small ones travel in the plan, large ones are staged as a file.

        The file is removed when the process ends, so the frame must not outlive it.
        """
        return frame(self.spark, rows)


def frame(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """`SailEngine.frame` for code that has only the session."""
    from pyspark.sql.pandas.types import from_arrow_schema

    if rows.nbytes <= STAGE_ABOVE_BYTES:
        return spark.createDataFrame(rows, from_arrow_schema(rows.schema))
    import pyarrow.parquet as pq

    path = paths.private_folder() / f"{uuid.uuid4().hex}.parquet"
    pq.write_table(rows, path, compression="lz4", row_group_size=128 * 1024)
    return spark.read.parquet(str(path))
