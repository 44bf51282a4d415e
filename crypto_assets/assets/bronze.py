"""Appends hours of a topic to Bronze exactly once, from Kafka or from landed files.

Does not belong here: what an hour lacks (`assets.log_slices.kafka`, `assets.log_slices.landing`), the reader of hours
(`assets.log_slices.hours`), judging records (`transforms.parse`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from crypto_assets.assets import commit_report
from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices.continuity import Continuity
from crypto_assets.assets.log_slices.hours import CONTIGUOUS, HourReader, ingest
from crypto_assets.assets.log_slices.kafka import KafkaLog
from crypto_assets.assets.log_slices.landing import LandedLog
from crypto_assets.assets.log_slices.rows import PollRows, PriceRows, RowMaker
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.contracts.tables import POLLS, RAW_PRICES
from crypto_assets.engine.base import Engine, Result, StepFailed, StepInputs
from crypto_assets.log.errors import LogError
from crypto_assets.storage.base import AppendBatch, WriteResult

EXTRA_CHECKS = {
    CONTIGUOUS: "The offset ranges stored for the hour follow each other and the hours before without a hole "
    "or an overlap, in every Kafka partition."
}
"""Checks that these steps evaluate beside the contract's."""


@Step(
    "bronze_raw_prices",
    [RAW_PRICES],
    reads=[Reads("kafka/crypto_prices_raw")],
    moved_by="refresh",
    role="ingest",
    log="prices",
    checks=EXTRA_CHECKS,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Bring hours of `bronze.raw_prices` up to the end of the log.

    Args:
        engine: Engine whose store is written and whose log is read.
        partition_keys: Hours, in any order.
        inputs: `bounds` of every hour (and of the hour before if given) or `landing_folder`; `accept_gap`,
            `now`, `run_id`.

    Returns:
        Per hour: rows stored and appended, end offsets as data version, touched event hours, checks.

    Raises:
        StepFailed: Bounds are missing, records are no longer retained, or the log went backwards or cannot be read.
    """
    result = _ingest(engine, RAW_PRICES, "bronze", PriceRows(inputs.partitions_start), partition_keys, inputs)
    return commit_report.with_commits(engine, RAW_PRICES, result, inputs)


@Step(
    "ops_polls",
    [POLLS],
    reads=[Reads("kafka/crypto_polls")],
    moved_by="refresh",
    role="ingest",
    log="polls",
    checks=EXTRA_CHECKS,
)
def work_polls(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Bring hours of `ops.polls` up to the end of the log; otherwise as `work`."""
    return _ingest(engine, POLLS, "polls", PollRows(), partition_keys, inputs)


def append(
    engine: Engine,
    key: str,
    inputs: StepInputs,
    *,
    leftovers: bool,
    continuity: Continuity,
    committed: Callable[[Slice, AppendBatch, str], None] | None = None,
) -> list[WriteResult]:
    """Append what `work` writes for one hour, without its report: for streams, which write often and report later.

    Args:
        engine: Engine whose store is written and whose log is read.
        key: The hour.
        inputs: As `work` takes them; the bounds may end earlier than the log does.
        leftovers: First complete the hour before, as `work` does; needed once when an hour begins.
        continuity: Continuity check of the stream, which caches the records it has stored.
        committed: Receives the hour, the rows and the `batch_id` of every commit.

    Raises:
        StepFailed: As `work` raises it.
    """
    log = KafkaLog(engine, RAW_PRICES, inputs, [key], continuity, leftovers=leftovers)
    maker = PriceRows(inputs.partitions_start)
    try:
        with closing(log.hours()) as hours:
            return [HourReader(engine, RAW_PRICES, "bronze", maker, inputs, hour).append(committed) for hour in hours]
    except LogError as error:
        raise StepFailed(f"{RAW_PRICES.full_name}: {error}") from error


def _ingest(
    engine: Engine, table: Table, name: str, maker: RowMaker, keys: Sequence[str], inputs: StepInputs
) -> Result:
    landed = inputs.landing_folder is not None
    log = LandedLog(engine.store, table, inputs, keys) if landed else KafkaLog(engine, table, inputs, keys)
    return ingest(log, engine, table, name, maker, inputs)
