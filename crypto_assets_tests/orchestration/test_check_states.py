"""States of checks on a real instance: evaluated, planned and never made, and what every reader makes of the latter."""

# Annotations are not postponed: Dagster looks at those of `context` when it decorates.

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.cli import report
from crypto_assets.cli.runs import run_job
from crypto_assets.orchestration import event_store, maintenance

MODEL, PRICES = dg.AssetKey(["ml", "price_model"]), dg.AssetKey(["silver", "prices"])
MODE = "CRYPTO_ASSETS_TEST_MODE"


def _asset(key: dg.AssetKey, check: str):
    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec(check, asset=key)])
    def made(context: dg.AssetExecutionContext):
        mode = os.environ[MODE]
        if mode == "fail":
            raise dg.Failure(f"{key.to_user_string()} has no input: start it", allow_retries=False)
        if mode == "break":
            raise OSError(f"{key.to_user_string()}: disk full\nand more of it")
        if mode == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=mode == "green", description=mode)])

    return made


def definitions() -> dg.Definitions:
    assets = [_asset(MODEL, "enough_data"), _asset(PRICES, "contract")]
    return dg.Definitions(assets=assets, jobs=[dg.define_asset_job("refresh", assets)], executor=dg.in_process_executor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dagster").mkdir()
    return tmp_path / "dagster"


@pytest.fixture
def instance(folder: Path):
    with dg.DagsterInstance.local_temp(str(folder)) as made:
        yield made


@pytest.fixture
def run(instance, monkeypatch):
    def go(mode: str, job: str = "refresh") -> list[str]:
        monkeypatch.setenv(MODE, mode)
        failed: list[str] = []
        run_job(definitions(), instance, job, [], failed, {})
        return failed

    return go


def verdicts(instance: dg.DagsterInstance) -> dict[str, str]:
    return {s.asset: s.verdict for s in event_store.check_states(instance)}


def both(verdict: str) -> dict[str, str]:
    return {"ml/price_model": verdict, "silver/prices": verdict}


def test_a_run_that_fails_before_its_checks_leaves_them_not_evaluated_and_says_why(instance, run):
    assert run("green") == []
    assert verdicts(instance) == both("green")
    failed = run("fail")
    assert sorted(line.split(" (run")[0] for line in failed) == [
        "refresh: step ml__price_model: ml/price_model has no input: start it",
        "refresh: step silver__prices: silver/prices has no input: start it",
    ]
    assert verdicts(instance) == both("not evaluated")
    state = event_store.check_state(instance, "silver/prices", "contract")
    assert state is not None
    assert not state.passed
    assert state.label == "contract (not evaluated)"
    assert "which failed without evaluating it" in state.description
    assert run("green") == []
    assert verdicts(instance) == both("green")


def test_an_error_that_nobody_worded_is_named_by_its_first_line(run):
    assert "step silver__prices: OSError: silver/prices: disk full (run" in " | ".join(run("break"))


def test_the_report_of_the_demo_names_them_and_expects_none(instance, run):
    run("red")
    run("fail")
    assert {(r["asset"], r["check"], r["verdict"]) for r in report.checks(instance)} == {
        ("ml/price_model", "enough_data", "not evaluated"),
        ("silver/prices", "contract", "not evaluated"),
    }
    first, *others = report.check_lines(event_store.check_states(instance), [])
    assert first == "checks    0 green, 0 warnings expected here; to be looked into:"
    assert [line.split(":")[0].strip() for line in others] == [
        "ml/price_model enough_data (not evaluated)",
        "silver/prices contract (not evaluated)",
    ]


def test_a_signal_ends_the_run_and_its_caller(instance, run):
    run("green")
    with pytest.raises(KeyboardInterrupt):
        run("interrupt")
    newest = instance.get_runs(limit=1)[0]
    assert event_store.failed_steps(instance, newest.run_id)[0].why == event_store.INTERRUPTED
    assert verdicts(instance) == both("not evaluated")


def test_the_checks_of_a_canceled_run_are_not_evaluated(instance, run):
    run("green")
    canceled = instance.create_run_for_job(definitions().resolve_job_def("refresh"))  # plans its evaluations
    assert verdicts(instance) == both("green")  # in progress: what was found before counts
    instance.report_run_canceled(canceled)
    assert event_store.failed_steps(instance, canceled.run_id) == []
    state = event_store.check_state(instance, "silver/prices", "contract")
    assert state is not None
    assert state.verdict == "not evaluated"
    assert "was canceled" in state.description


def test_of_a_killed_run_the_states_before_it_count_until_it_is_known_to_have_ended(instance, folder, run):
    run("red")
    child = (
        "import dagster as dg, sys\n"
        "from crypto_assets.cli.runs import run_job\n"
        "from crypto_assets_tests.orchestration.test_check_states import definitions\n"
        "with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:\n"
        "    run_job(definitions(), instance, 'refresh', [], [], {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(folder)], env={**os.environ, MODE: "die"}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    killed = instance.get_runs(limit=1)[0]
    assert killed.status is dg.DagsterRunStatus.STARTED
    assert verdicts(instance) == both("red")
    evaluated = {r.run_id for r in instance.get_runs() if r.run_id != killed.run_id}
    assert evaluated <= event_store.holders(instance)  # housekeeping keeps what is still the state of the checks
    instance.report_run_failed(killed, "the run's process ended")
    assert verdicts(instance) == both("not evaluated")
    assert [str(s) for s in event_store.failed_steps(instance, killed.run_id)] == ["the run's process ended"]


def test_a_red_blocking_rule_stays_red_when_its_step_fails(instance):
    specs = [dg.AssetCheckSpec(n, asset=PRICES) for n in ("contract", "all_coins_present")]

    @dg.asset(key=PRICES, check_specs=specs)
    def audited(context: dg.AssetExecutionContext):
        context.log_event(
            dg.AssetCheckEvaluation(  # type: ignore[arg-type]
                asset_key=PRICES, check_name="contract", passed=False, partition=None, description="2 nulls"
            )
        )
        raise dg.Failure("nothing was committed")

    dg.materialize([audited], instance=instance, raise_on_error=False)
    states = {s.check: (s.verdict, s.description) for s in event_store.check_states(instance)}
    assert states["contract"] == ("red", "2 nulls")
    assert states["all_coins_present"][0] == "not evaluated"


def test_housekeeping_changes_no_state(instance, run):
    from datetime import UTC, datetime, timedelta

    for mode in ("green", "red", "green", "fail"):
        run(mode)
    before = event_store.check_states(instance)
    assert maintenance.prune_runs(instance, datetime.now(UTC) + timedelta(days=30), dry_run=False)[0] >= 1
    assert event_store.check_states(instance) == before


def test_a_rule_that_had_a_check_of_its_own_once_is_no_state(instance):
    for check, passed in (
        ("price_positive", False),
        ("unique_key", True),
        ("contract", True),
        ("volume_not_negative", True),
    ):
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(asset_key=PRICES, check_name=check, passed=passed))
    found = [(s.check, s.verdict) for s in event_store.check_states(instance)]
    assert found == [("contract", "green"), ("volume_not_negative", "green")]
