"""Bodies of silver/prices and silver/quarantine: from Bronze to Silver.

Belongs here: which records of Bronze an hour needs, the balance of records as a check. Does not belong here: judging
records (`transforms.parse`), the shape of rows (`transforms.silver`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.judging import judged
from crypto_assets.assets.publishing import has_rows, publish
from crypto_assets.contracts.slices import HOUR, Slice, floor_day, hour_key, hour_keys
from crypto_assets.contracts.tables import MARKET_HISTORY, QUARANTINE, RAW_PRICES, SILVER_PRICES
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepInputs
from crypto_assets.transforms.parse import parse_bronze
from crypto_assets.transforms.silver import first_arrived, history_points, silver

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

ALL_COINS = "all_coins_present"
ACCOUNTED_FOR = "bronze_accounted_for"
REASONS = "quarantine_reasons"
IN_RANGE = "numbers_in_range"

EXTRA_CHECKS = {ALL_COINS: "Every coin that was active during the whole hour has a row in it."}
"""Checks that `work` evaluates beside the contract's."""

QUARANTINE_CHECKS = {
    ACCOUNTED_FOR: "Every record of the arrival hour is valid or in quarantine: Bronze records = valid + quarantined.",
    REASONS: "No record of the arrival hour was quarantined; otherwise the records are counted by reason.",
    IN_RANGE: "Silver holds every number of the valid records; one beyond decimal(38,18) is null and counted here.",
}
"""Checks that `work_quarantine` evaluates beside the contract's."""


@Step(
    "silver_prices",
    [SILVER_PRICES],
    reads=[Reads("bronze/raw_prices"), Reads("bronze/market_history", if_there=True)],
    moved_by="refresh",
    role="transform",
    checks=EXTRA_CHECKS,
    restated=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write hours of `silver.prices`.

    Silver of hour H is every valid record with an event in H, from all of Bronze that may hold one: arrival hours from
    H - 1 on, because an event may be up to 60 s later than its arrival. History fills 5-minute slots without one.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours by event time, in any order.
        inputs: `coins`, `partitions_start`, `now`, `run_id`, `rebuild`, `as_of` (records available later are left out).

    Raises:
        SliceRefused: An hour is older than Bronze's retention less one day, so its records may be gone.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """

    def build(slice_: Slice) -> DataFrame | pa.Table:
        from pyspark.sql import functions as F

        bronze = engine.store.read(RAW_PRICES.full_name)
        arrived = F.col("arrival_hour") >= F.lit(slice_.start - HOUR)
        happened = (F.col("event_hour") >= F.lit(slice_.start)) & (F.col("event_hour") < F.lit(slice_.end))
        bronze = bronze.where(arrived & happened)
        history = _history(engine, slice_, inputs)
        if history is not None:
            return silver(_parsed(bronze, inputs), history, slice_)
        # The event hour of a valid record is Bronze's, so all of these lie in the slice.
        return first_arrived(judged(engine, bronze, inputs, SILVER_PRICES.column_names).valid())

    read = _at_least(engine)
    result = publish(
        engine,
        SILVER_PRICES,
        partition_keys,
        inputs,
        build,
        source=RAW_PRICES,
        input_retention_days=RAW_PRICES.retention_days,
        extra_checks=lambda slice_, rows: _coins_present(slice_, rows, inputs),
        why_empty="no valid record and no history point has an event in this hour; see silver/quarantine and ops/polls",
        commit_metadata=read,
    )
    for partition in result.partitions.values():
        partition.metadata |= {name: int(version) for name, version in read.items()}
    return Result({SILVER_PRICES.full_name: result})


@Step(
    "silver_quarantine",
    [QUARANTINE],
    reads=[Reads("bronze/raw_prices")],
    moved_by="refresh",
    role="transform",
    checks=QUARANTINE_CHECKS,
)
def work_quarantine(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write arrival hours of `silver.quarantine`, and check that each of their records is accounted for.

    `has_rows` here checks that the hour had records to examine: an empty quarantine is good news.

    Raises:
        SliceRefused: An hour is older than Bronze's retention less one day.
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    seen: dict[Slice, tuple[int | None, pa.Table]] = {}
    balances: dict[str, Balance] = {}

    def build(slice_: Slice) -> pa.Table:
        version = engine.store.version(RAW_PRICES.full_name)
        bronze = engine.store.read(RAW_PRICES.full_name, slice_, version=version)
        found = judged(engine, bronze, inputs, ["arrival_hour", "coin_id", "last_updated_at", "out_of_range"])
        seen[slice_] = (version, found.valid())
        return found.refused()

    def checks(slice_: Slice, rows: pa.Table) -> Mapping[str, Sequence[CheckOutcome]]:
        version, valid = seen.pop(slice_)
        found = _balances(slice_, valid, _stored(engine, slice_, version, inputs.as_of), rows)
        balances.update(found)
        return {key: [_accounted_for(b), _reasons(b), _in_range(b)] for key, b in found.items()}

    result = publish(
        engine,
        QUARANTINE,
        partition_keys,
        inputs,
        build,
        source=RAW_PRICES,
        input_retention_days=RAW_PRICES.retention_days,
        extra_checks=checks,
        commit_metadata=_at_least(engine),
    )
    for key, partition in result.partitions.items():
        balance = balances[str(key)]
        not_empty = has_rows(balance.stored, "Bronze holds no record that arrived in this hour")
        if not_empty.passed:
            message = f"{balance.stored:,} records were examined, {balance.quarantined:,} quarantined"
            not_empty = replace(not_empty, description=message, metadata={"rows": partition.rows})
        partition.checks = [not_empty if check.name == not_empty.name else check for check in partition.checks]
        partition.metadata |= {
            "bronze_records": balance.stored,
            "valid": balance.valid,
            "duplicates": balance.duplicates,
            "dedup_rate": balance.duplicates / balance.valid if balance.valid else None,
            "reasons": dict(balance.reasons),
            "out_of_range": dict(balance.out_of_range),
        }
    return Result({QUARANTINE.full_name: result})


@dataclass(frozen=True)
class Balance:
    """Balance of the records of one arrival hour.

    Args:
        stored: Records in Bronze, counted without parsing any.
        valid: Records without a reason.
        distinct: Distinct quotes (coin_id, last_updated_at) among them.
        quarantined: Rows of the quarantine.
        reasons: Quarantined rows by reason; a row counts once for each of its reasons.
        out_of_range: By field, valid records whose number Silver cannot hold.
    """

    stored: int
    valid: int
    distinct: int
    quarantined: int
    reasons: Mapping[str, int]
    out_of_range: Mapping[str, int]

    @property
    def duplicates(self) -> int:
        """Valid records that repeat a quote of the same arrival hour."""
        return self.valid - self.distinct


def _parsed(bronze: DataFrame, inputs: StepInputs) -> DataFrame:
    from pyspark.sql import functions as F

    known = bronze if inputs.as_of is None else bronze.where(F.col("kafka_timestamp") <= F.lit(inputs.as_of))
    return parse_bronze(known, inputs.coins, inputs.partitions_start)


def _at_least(engine: Engine) -> dict[str, str]:
    """The Bronze version that the write reads, or an earlier one: it is read before the target is opened."""
    version = engine.store.version(RAW_PRICES.full_name)
    return {} if version is None else {"bronze_version": str(version)}


def _history(engine: Engine, slice_: Slice, inputs: StepInputs) -> DataFrame | None:
    """History points of the slice's days; None if no reply is stored for them."""
    from pyspark.sql import functions as F

    days = Slice(floor_day(slice_.start), floor_day(slice_.end - HOUR) + 24 * HOUR)
    if not engine.store.read_arrow(MARKET_HISTORY.full_name, days, columns=["coin_id"]).num_rows:
        return None
    replies = engine.store.read(MARKET_HISTORY.full_name, days)
    if inputs.as_of is not None:
        replies = replies.where(F.col("fetched_at") <= F.lit(inputs.as_of))
    return history_points(replies, inputs.coins)


def _coins_present(slice_: Slice, rows: pa.Table, inputs: StepInputs) -> dict[str, list[CheckOutcome]]:
    present: dict[datetime, set[str]] = {hour: set() for hour in slice_.hours()}
    pairs = rows.select(["hour", "coin_id"]).group_by(["hour", "coin_id"]).aggregate([])
    for pair in pairs.to_pylist():
        present[pair["hour"]].add(pair["coin_id"])
    outcomes: dict[str, list[CheckOutcome]] = {}
    for hour, coins in present.items():
        wanted = {c.coin_id for c in inputs.coins if c.active_throughout(hour, hour + HOUR)}
        absent = sorted(wanted - coins)
        message = (
            f"{len(wanted)} active coins have rows" if not absent else f"no row of {', '.join(absent)}; see ops/polls"
        )
        outcomes[hour_key(hour)] = [CheckOutcome(ALL_COINS, not absent, message, "warn", {"absent": absent})]
    return outcomes


def _stored(engine: Engine, slice_: Slice, version: int | None, as_of: datetime | None) -> Counter[str]:
    """Records of Bronze by arrival hour, counted from the stored rows."""
    known = "" if as_of is None else f" AND kafka_timestamp <= '{as_of:%Y-%m-%dT%H:%M:%S.%fZ}'"
    hours = engine.store.read_arrow(
        RAW_PRICES.full_name, slice_, columns=["arrival_hour"], where=f"kind = 'record'{known}", version=version
    )
    return _by_hour(hours.rename_columns(["hour"]))


def _balances(slice_: Slice, valid: pa.Table, stored: Counter[str], rows: pa.Table) -> dict[str, Balance]:
    beyond = {key: Counter[str]() for key in hour_keys(slice_)}
    for row in valid.filter(valid.column("out_of_range").is_valid()).to_pylist():
        beyond[hour_key(row["arrival_hour"])].update(row["out_of_range"])
    valid = valid.rename_columns(["hour", *valid.column_names[1:]]).drop_columns(["out_of_range"])
    quotes = valid.group_by(valid.column_names).aggregate([])
    refused = rows.select(["hour", "reasons"]).to_pylist()
    reasons: dict[str, Counter[str]] = {key: Counter() for key in hour_keys(slice_)}
    for row in refused:
        reasons[hour_key(row["hour"])].update(row["reasons"])
    by_hour = [_by_hour(table) for table in (valid, quotes, rows)]
    return {
        key: Balance(
            stored=stored[key],
            valid=by_hour[0][key],
            distinct=by_hour[1][key],
            quarantined=by_hour[2][key],
            reasons=dict(sorted(reasons[key].items())),
            out_of_range=dict(sorted(beyond[key].items())),
        )
        for key in hour_keys(slice_)
    }


def _by_hour(rows: pa.Table) -> Counter[str]:
    """Rows by partition key."""
    counts = rows.select(["hour"]).group_by("hour").aggregate([([], "count_all")]).to_pylist()
    return Counter({hour_key(row["hour"]): row["count_all"] for row in counts})


def _accounted_for(balance: Balance) -> CheckOutcome:
    lost = balance.stored - balance.valid - balance.quarantined
    message = f"{balance.stored:,} records = {balance.valid:,} valid + {balance.quarantined:,} quarantined"
    if lost:
        message = (
            f"{balance.stored:,} records, but {balance.valid:,} valid + {balance.quarantined:,} quarantined: {lost:+,} "
            "unaccounted for; run crypto-assets verify, which lists them"
        )
    figures = {"bronze": balance.stored, "valid": balance.valid, "quarantined": balance.quarantined}
    return CheckOutcome(ACCOUNTED_FOR, not lost, message, metadata={**figures, "duplicates": balance.duplicates})


def _reasons(balance: Balance) -> CheckOutcome:
    listed = ", ".join(f"{name} {count:,}" for name, count in balance.reasons.items())
    message = (
        f"{balance.quarantined:,} of {balance.stored:,} records: {listed}" if listed else "nothing was quarantined"
    )
    return CheckOutcome(REASONS, not balance.quarantined, message, "warn", dict(balance.reasons))


def _in_range(balance: Balance) -> CheckOutcome:
    listed = ", ".join(f"{name} of {count:,} records" for name, count in balance.out_of_range.items())
    message = (
        f"beyond decimal(38,18), and therefore null in Silver: {listed}" if listed else "Silver holds every number"
    )
    return CheckOutcome(IN_RANGE, not listed, message, "warn", dict(balance.out_of_range))
