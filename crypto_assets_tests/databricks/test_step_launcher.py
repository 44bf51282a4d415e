"""Steps launched on a workspace that really executes them: events, inputs, isolation, idempotency, staging."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zipfile

import dagster as dg
import pytest

from crypto_assets_tests.databricks.launched.toys import DBFS, PLAIN, TOY, failure, failure_metadata, logged

pytestmark = pytest.mark.jvm

HOURS = ("2026-01-01-00:00", "2026-01-01-01:00", "2026-01-01-02:00")


def test_a_step_runs_on_the_cluster_from_the_shipped_code(toys):
    result = toys.launch()
    assert result.success
    (event,) = toys.instance.fetch_materializations(PLAIN, limit=5).records
    seen = {k: v.value for k, v in event.asset_materialization.metadata.items()}
    assert seen["role"] == "remote"
    assert seen["run_id"] == result.run_id
    assert seen["coins"] > 0
    assert event.asset_materialization.tags["dagster/data_version"] == "v-None"
    (run,) = toys.workspace.runs[-1:]
    unpacked = f"{run.tasks[0].folder}/tmp/"
    assert seen["package"].startswith(unpacked), "the code that ran is what was shipped"
    assert run.result_state == "SUCCESS"
    assert run.request["run_name"].startswith("crypto_assets toy_plain (")
    tags = run.tasks[0].cluster["custom_tags"]
    wanted = {"project": "crypto-assets", "env": "dev", "asset": "toy_plain", "dagster_run_id": result.run_id}
    assert {k: tags[k] for k in wanted} == wanted


def test_a_range_gives_one_materialization_and_one_evaluation_a_partition(toys):
    options = {"rebuild": True, "accept_gap": True, "as_of": "2026-02-01T00:00:00+00:00"}
    result = toys.launch(keys=HOURS, options=options)
    assert result.success
    events = toys.instance.fetch_materializations(TOY, limit=10).records
    assert sorted(e.partition_key for e in events) == list(HOURS)
    for event in events:
        metadata = event.asset_materialization.metadata
        assert metadata["key"].value == event.partition_key
        assert metadata["dagster/partition_row_count"].value == 3
        assert metadata["options"].value == {
            "rebuild": True,
            "accept_gap": True,
            "as_of": "2026-02-01 00:00:00+00:00",
        }
    records = toys.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(TOY, "toy_check"), limit=10
    )
    found = {r.evaluation.partition: r.evaluation.passed for r in records if r.evaluation}
    assert {k: found[k] for k in HOURS} == {HOURS[0]: True, HOURS[1]: False, HOURS[2]: True}
    assert all(r.evaluation.target_materialization_data is None for r in records if r.evaluation)


def test_a_single_partition_carries_its_content_as_data_version(toys):
    assert toys.launch(keys=HOURS[:1]).success
    record = toys.instance.get_latest_data_version_record(TOY, partition_key=HOURS[0])
    assert record.event_log_entry.asset_materialization.tags["dagster/data_version"] == f"v-{HOURS[0]}"


def test_only_the_package_is_shipped_as_it_is_listed_and_no_folder_of_this_machine(toys):
    result = toys.launch()
    assert result.success
    uploads = toys.uploaded()
    names = [n for n in zipfile.ZipFile(io.BytesIO(uploads["code.zip"])).namelist() if not n.endswith("/")]
    assert "crypto_assets/definitions.py" in names
    assert {n.split("/")[0] for n in names} == {"crypto_assets", "toy_assets"}
    assert {n.rsplit(".", 1)[-1] for n in names} <= {"py", "typed", "yaml"}
    (told,) = [
        r.event_log_entry.user_message
        for r in toys.instance.get_records_for_run(result.run_id).records
        if r.event_log_entry.user_message.startswith("code to ship:")
    ]
    assert told.splitlines()[0].startswith(f"code to ship: {len(names)} files, ")
    assert told.splitlines()[1:] == sorted(names)
    for name in ("step_run_ref.pkl", "config.pkl"):
        assert str(toys.workspace.checkout).encode() not in uploads[name], name


def test_the_checkout_cannot_be_read_from_the_step(toys):
    result = toys.launch(plan="peek", env={"TOY_MARK": str(toys.workspace.checkout)})
    assert not result.success
    assert failure_metadata(result)["databricks_failure_class"] == "code"
    assert "PermissionError" in repr(failure(result))
    assert "the checkout does not exist on a cluster" in repr(failure(result))


def test_code_that_holds_a_secret_is_not_shipped(toys):
    planted = "the toy was asked to fail"  # stands in the toy's own code
    toys.monkeypatch.setenv("KAFKA_SASL_PASSWORD", planted)
    toys.workspace.secrets["crypto-assets"] = {"kafka-sasl-password": planted}
    before = len(toys.workspace.runs)
    result = toys.launch()
    assert not result.success
    said = logged(toys, result)
    assert "toy_assets/definitions.py holds the value of KAFKA_SASL_PASSWORD" in said
    assert planted not in said
    assert len(toys.workspace.runs) == before
    assert toys.workspace.uploads == []


@pytest.mark.parametrize("plan", ["print", "tell", "burst"])
def test_a_secret_travels_by_scope_and_is_shown_nowhere(toys, tmp_path, plan):
    secret = 'hunter2-"of"-the-kafka'
    toys.monkeypatch.setenv("KAFKA_SASL_PASSWORD", secret)
    toys.workspace.secrets["crypto-assets"] = {"kafka-sasl-password": secret}
    kept = toys.keep_staging(tmp_path / "kept")
    result = toys.launch(plan=plan)
    assert result.success == (plan == "print")
    (run,) = toys.workspace.runs[-1:]
    assert run.environment.get("KAFKA_SASL_PASSWORD") is None
    places = {u.path: u.data for u in toys.workspace.uploads}
    places |= {str(p.relative_to(kept)): p.read_bytes() for p in kept.rglob("*") if p.is_file()}
    assert {"0_events.pkl", "stdout", "stderr"} <= {name.rsplit("/", 1)[-1] for name in places}
    said = logged(toys, result)
    task = run.tasks[0]
    places |= {"log": said.encode(), "run": f"{run.stdout}{run.stderr}{task.error}{task.trace}".encode()}
    for forbidden in (secret, secret.replace('"', '\\"'), toys.workspace.token):
        for name, data in places.items():
            assert forbidden.encode() not in unpacked(name, data), f"{forbidden} is in {name}"
    hidden = {"print": "the password is **********", "tell": "log in with **********", "burst": "divided **********"}
    assert hidden[plan] in said


def unpacked(name, data):
    """What can be read of an uploaded or written file."""
    if name.endswith(".zip"):
        archive = zipfile.ZipFile(io.BytesIO(data))
        return b"".join(archive.read(n) for n in archive.namelist())
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_a_step_is_staged_in_dbfs_where_a_setting_asks_for_it(toys):
    toys.workspace.dbfs_api.enabled = True
    toys.monkeypatch.setenv("CRYPTO_ASSETS_DATABRICKS_STAGING", f"dbfs:/{DBFS}")
    try:
        assert toys.launch().success
    finally:
        toys.workspace.dbfs_api.enabled = False
    task = toys.workspace.runs[-1].tasks[0]
    assert task.spec["spark_python_task"]["python_file"].startswith(f"dbfs:/{DBFS}/")
    assert {p.split("/")[1] for p in task.parameters} == {"dbfs"}
    assert toys.uploaded().keys() == {"remote_main.py", "code.zip", "step_run_ref.pkl", "config.pkl"}
    assert [u.path for u in toys.workspace.uploads if not u.path.startswith(f"/{DBFS}/")] == []


def test_a_503_after_an_accepted_submit_gives_one_run(toys):
    before = len(toys.workspace.runs)
    toys.workspace.faults.next("submit", status=503, after_accept=True, retry_after=0)
    result = toys.launch()
    assert result.success
    (run,) = toys.workspace.runs[before:]
    token = hashlib.sha256(f"{result.run_id}/toy_plain/0".encode()).hexdigest()
    assert run.request["idempotency_token"] == token
    submits = [r for r in toys.workspace.requests if r[1].endswith("jobs/runs/submit")]
    assert [s for _, _, s in submits][-2:] == [503, 200]


def test_refusals_for_a_moment_are_waited_for(toys):
    before, calls = len(toys.workspace.runs), len(toys.workspace.requests)
    refused = [("submit", "jobs/runs/submit"), ("get", "jobs/runs/get"), ("0_events.pkl", "0_events.pkl")]
    for fault, _ in refused:
        for status in (429, 503):
            toys.workspace.faults.next(fault, status=status, retry_after=0)
    assert toys.launch().success
    assert len(toys.workspace.runs) == before + 1
    for _, path in refused:
        answers = [status for _, p, status in toys.workspace.requests[calls:] if p.endswith(path)]
        assert answers[:2] == [429, 503], path
        assert not {429, 503} & set(answers[2:]), path


def test_a_retried_step_is_submitted_again_with_a_token_of_its_own(toys, tmp_path):
    before = len(toys.workspace.runs)
    result = toys.launch(plan="retry", env={"TOY_MARK": str(tmp_path / "mark")})
    assert result.success
    first, second = toys.workspace.runs[before:]
    assert first.request["idempotency_token"] != second.request["idempotency_token"]
    assert [first.result_state, second.result_state] == ["FAILED", "SUCCESS"]


def test_a_static_idempotency_token_is_refused(toys):
    before = len(toys.workspace.runs)
    result = toys.launch(launcher={"run_config": {"idempotency_token": "mine"}})
    assert not result.success
    assert "would merge all steps" in repr(result.all_events)
    assert len(toys.workspace.runs) == before


def test_job_configuration_is_laid_over_the_settings(toys):
    toys.workspace.clusters.add("0101-shared")
    result = toys.launch(launcher={"run_config": {"cluster": {"existing": "0101-shared"}, "run_name": "mine"}})
    assert result.success
    run = toys.workspace.runs[-1]
    assert run.request["run_name"] == "mine"
    assert run.tasks[0].spec["existing_cluster_id"] == "0101-shared"
    assert "new_cluster" not in run.tasks[0].spec


def test_shipped_inputs_hold_no_pickle_of_settings(toys):
    assert toys.launch().success
    (config,) = [u.data for u in toys.workspace.uploads if u.path.endswith("config.pkl")]
    remote = pickle.loads(config)
    assert remote.base.env_variables["CRYPTO_ASSETS_ROLE"] == "remote"
    assert set(vars(remote)) == {"base", "shipment"}
