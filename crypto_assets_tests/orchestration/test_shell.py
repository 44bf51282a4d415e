"""The shell around steps, on a real Dagster instance: what each outcome of `work` becomes."""

from __future__ import annotations

from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.contracts.tables import LEADERBOARD
from crypto_assets.engine.base import NO_COINS, CheckOutcome, PartitionResult, Result, StepFailed, TableResult
from crypto_assets.orchestration.shell import build_step
from crypto_assets.storage.base import AuditFailed

HOURLY = dg.HourlyPartitionsDefinition("2026-01-01-00:00", end_offset=1)
KEY = dg.AssetKey(["gold", "leaderboard_24h"])
MODEL = ModelAsset("ml", "toy", "a toy", "team:ml", "ml", ("python",))


CONTRACT = [CheckOutcome(name, True) for name in ("not_null", "unique_key", "rank_positive", "finite")]


class Inputs:
    banner = "REPLAY"

    def build(self, **asked):
        return SimpleNamespace(source="replay", coins=NO_COINS, anomaly_budget=1.0, **asked)


def run(step: Step, *, hourly: bool = True, keys=("2026-01-01-00:00",), instance=None):
    partitions = HOURLY if hourly else None
    assets = build_step(step, partitions_def=partitions)
    tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]} if hourly else {}
    return dg.materialize(
        [assets],
        instance=instance,
        tags=tags,
        raise_on_error=False,
        resources={"engine": object(), "step_inputs": Inputs(), "step_launcher": dg.ResourceDefinition.none_resource()},
    )


def outcome(passed: bool, name: str = "toy_check") -> CheckOutcome:
    return CheckOutcome(name, passed, "found", metadata={"violations": int(not passed), "rows": 1})


def toy(work, **more) -> Step:
    return Step("toy", [LEADERBOARD], checks={"toy_check": "A toy."}, work=work, **more)


def table(by_key: dict) -> Result:
    return Result(
        {
            "gold.leaderboard_24h": TableResult(
                {
                    k: PartitionResult(1, f"v-{k}", {"delta_version": 3}, [*CONTRACT, outcome(ok)])
                    for k, ok in by_key.items()
                }
            )
        }
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def evaluations(instance: dg.DagsterInstance, name: str) -> dict:
    records = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(KEY, name), limit=20)
    return {r.evaluation.partition: r.evaluation.passed for r in records if r.evaluation}


def test_a_range_run_gives_one_materialization_and_one_evaluation_a_partition(instance):
    keys = ("2026-01-01-00:00", "2026-01-01-01:00", "2026-01-01-02:00")
    step = toy(lambda *_: table({k: k != keys[1] for k in keys}))
    result = run(step, keys=keys, instance=instance)
    assert result.success
    events = instance.fetch_materializations(KEY, limit=10).records
    assert sorted(e.partition_key for e in events) == sorted(keys)
    assert {e.asset_materialization.metadata["dagster/partition_row_count"].value for e in events} == {1}
    found = evaluations(instance, "toy_check")
    assert {k: found[k] for k in keys} == {keys[0]: True, keys[1]: False, keys[2]: True}


def test_a_single_partition_carries_its_content_as_data_version(instance):
    step = toy(lambda *_: table({"2026-01-01-00:00": True}))
    assert run(step, instance=instance).success
    record = instance.get_latest_data_version_record(KEY, partition_key="2026-01-01-00:00")
    assert record.event_log_entry.asset_materialization.tags["dagster/data_version"] == "v-2026-01-01-00:00"


def test_a_check_that_the_step_forgot_is_red(instance):
    forgetful = table({None: True})
    forgetful.tables["gold.leaderboard_24h"].partitions[None].checks.pop()
    run(toy(lambda *_: forgetful), hourly=False, instance=instance)
    assert evaluations(instance, "contract") == {None: True}
    assert evaluations(instance, "toy_check") == {None: False}


def test_a_missing_input_fails_the_step_and_materializes_nothing(instance):
    def work(*_):
        raise StepFailed("offsets [3, 9) of partition 0 are gone; accept them with accept_gap")

    result = run(toy(work), instance=instance)
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "offsets [3, 9)" in failure.step_failure_data.user_failure_data.description
    assert instance.get_materialized_partitions(KEY) == set()


def test_a_blocking_rule_shows_its_evaluation_although_nothing_was_written(instance):
    def work(*_):
        raise AuditFailed("stopped", [("2026-01-01-00:00", outcome(False, "rank_positive"))])

    assert not run(toy(work), instance=instance).success
    assert evaluations(instance, "contract") == {"2026-01-01-00:00": False}
    assert instance.get_materialized_partitions(KEY) == set()


def test_too_little_data_is_only_a_red_check(instance):
    step = Step(
        "toy",
        [MODEL],
        checks={"enough_data": "Enough days."},
        skippable=True,
        work=lambda *_: Result(skipped={"ml.toy": [CheckOutcome("enough_data", False, "needs 5 more days")]}),
    )
    result = run(step, instance=instance)
    assert result.success
    key = dg.AssetKey(["ml", "toy"])
    assert instance.get_materialized_partitions(key) == set()
    record = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "enough_data"), limit=1)
    assert record[0].evaluation.description == "needs 5 more days"
