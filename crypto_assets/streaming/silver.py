"""Inserts new records into Silver and its quarantine without rereading the hour.

Belongs here: inserting rows where that provably equals rebuilding the hour, and naming the hours where it does not.
Does not belong here: judging records (`transforms.parse`), building hours (`assets.silver`).

Of several records of a quote the first to arrive counts. Records come in order of arrival within a Kafka partition, so
a stored row stays; only a record that arrived before the stored one (through another partition), or one whose quote or
slot history has filled, changes stored rows. The step rebuilds such hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from crypto_assets.assets import silver as step
from crypto_assets.assets.judging import Judged, judged
from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import compute, conform
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_day, hour_key
from crypto_assets.contracts.tables import MARKET_HISTORY, QUARANTINE, SILVER_PRICES
from crypto_assets.engine.base import Engine, StepInputs
from crypto_assets.storage import staging
from crypto_assets.streaming.arrivals import Arrival
from crypto_assets.transforms.silver import ARRIVAL_ORDER, TICK, first_arrived

if TYPE_CHECKING:
    import pyarrow as pa

COMPLETE_TO = "stream_bronze_version"
"""Commit metadata of Silver: a stream has processed all of Bronze up to this version."""
NEEDED = (
    "topic", "topic_id", "partition", "offset", "kafka_timestamp", "message_key", "raw_json", "raw_bytes", "headers",
    "arrival_hour", "event_hour", "kind",
)  # fmt: skip

RECENT = 400
"""Number of Silver's newest commits that are searched for it."""


@dataclass
class Merged:
    """Outcome of merging new records.

    Args:
        rows: Their rows of Silver, whether or not they were stored before.
        inserted: Number of rows not stored before.
        quarantined: Number of refused records.
        hours: Event hours of the rows.
        late: Event hours that are left to the restatement of late records.
        rebuilt: Hours that had to be rebuilt.
    """

    rows: pa.Table
    inserted: int = 0
    quarantined: int = 0
    hours: list[datetime] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)


def merge(engine: Engine, arrivals: Sequence[Arrival], inputs: StepInputs, bronze_version: int) -> Merged:
    """Bring the rows of Bronze commits into Silver and its quarantine.

    An event hour before the one preceding its arrival is late: its records stay in Bronze, where the commit names their
    hours, and the restatement of late records rebuilds those hours with everything downstream.

    Args:
        engine: Engine whose store is written.
        arrivals: Rows of Bronze, of every commit since the last call.
        inputs: Step inputs.
        bronze_version: Version of Bronze that the arrivals reach up to; recorded in the commit.

    Raises:
        AuditFailed: A blocking rule failed; nothing was committed.
    """
    found, valid = _judged(engine, arrivals, inputs)
    refused = _refused(engine, found, inputs)
    timely = compute().greater_equal(valid.column("event_hour"), compute().subtract(valid.column("arrival_hour"), HOUR))
    late = valid.filter(compute().invert(timely)).column("event_hour").unique().to_pylist()
    rows = conform(SILVER_PRICES, first_arrived(valid.filter(timely).select(SILVER_PRICES.column_names)))
    hours = sorted(rows.column("hour").unique().to_pylist())
    merged = Merged(rows, 0, refused, hours, sorted(hour_key(h) for h in late))
    if not hours:
        return merged
    if _must_rebuild(engine, rows, hours):
        merged.rebuilt = [hour_key(h) for h in hours]
        step.work(engine, merged.rebuilt, inputs)
        return merged
    newest = max(a.slice.start for a in arrivals)
    metadata = {
        "run_id": inputs.run_id,
        "bronze_version": str(bronze_version),
        COMPLETE_TO: str(bronze_version),
        # Hours that hold all their records up to that version: what arrives for earlier ones is late.
        "slice_start": (newest - HOUR).isoformat(),
        "slice_end": (newest + 2 * HOUR).isoformat(),
    }
    audit = rules.audit(SILVER_PRICES, [hour_key(h) for h in hours])
    write = engine.store.merge(
        SILVER_PRICES.full_name, rows, mode="insert_if_absent", audit=audit, commit_metadata=metadata
    )
    merged.inserted = write.rows
    return merged


def complete_to(engine: Engine) -> int | None:
    """Bronze version up to which a stream has brought everything into Silver; None if no recent commit records it."""
    version = engine.store.version(SILVER_PRICES.full_name)
    if version is None:
        return None
    commits = engine.store.commits_after(SILVER_PRICES.full_name, max(-1, version - RECENT), RECENT + 1)
    return max((int(c.metadata[COMPLETE_TO]) for c in commits if COMPLETE_TO in c.metadata), default=None)


def _judged(engine: Engine, arrivals: Sequence[Arrival], inputs: StepInputs) -> tuple[Judged, pa.Table]:
    """All records, judged, and the valid ones as rows of Silver with the hours of their event and their arrival."""
    import pyarrow as pa

    records = pa.concat_tables([a.rows.select(list(NEEDED)) for a in arrivals])
    # All nullable: nulls where none may be are left to the audit.
    records = records.cast(pa.schema([f.with_nullable(True) for f in records.schema]))
    found = judged(engine, engine.frame(records), inputs, [*SILVER_PRICES.column_names, "event_hour", "arrival_hour"])
    return found, found.valid()


def _refused(engine: Engine, found: Judged, inputs: StepInputs) -> int:
    """Quarantine invalid records; return their number."""
    refused = found.refused()
    if not refused.num_rows:
        return 0
    hours = [hour_key(h) for h in refused.column("hour").unique().to_pylist()]
    engine.store.merge(
        QUARANTINE.full_name,
        conform(QUARANTINE, refused),
        mode="insert_if_absent",
        audit=rules.audit(QUARANTINE, hours),
        commit_metadata={"run_id": inputs.run_id},
    )
    return refused.num_rows


def _must_rebuild(engine: Engine, rows: pa.Table, hours: Sequence[datetime]) -> bool:
    """Return whether inserting the rows would differ from rebuilding their hours."""
    days = Slice(floor_day(hours[0]), floor_day(hours[-1]) + DAY)
    # Where history lies beside live samples, a sample replaces its whole slot of history.
    if engine.store.read_arrow(MARKET_HISTORY.full_name, days, columns=["coin_id"]).num_rows:
        return True
    names = [*SILVER_PRICES.key, *ARRIVAL_ORDER, "granularity"]
    scope = staging.key_scope(SILVER_PRICES, rows)
    stored = engine.store.read_arrow(SILVER_PRICES.full_name, columns=names, where=scope)
    if not stored.num_rows:
        return False
    both = rows.select(names).join(stored, list(SILVER_PRICES.key), right_suffix="_stored", join_type="inner")
    return any(
        row["granularity_stored"] != TICK
        or tuple(row[n] for n in ARRIVAL_ORDER) < tuple(row[f"{n}_stored"] for n in ARRIVAL_ORDER)
        for row in both.to_pylist()
    )


def touched_windows(rows: pa.Table) -> list[tuple[datetime, datetime]]:
    """First and last event time (end exclusive) of every event hour among rows with `last_updated_at`."""
    pc = compute()
    event = rows.column("last_updated_at")
    hours = pc.floor_temporal(event, unit="hour")
    found = []
    for hour in hours.unique().to_pylist():
        span = pc.min_max(event.filter(pc.equal(hours, hour))).as_py()
        found.append((span["min"], span["max"] + timedelta(microseconds=1)))
    return found
