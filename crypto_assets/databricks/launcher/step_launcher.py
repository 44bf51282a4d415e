"""The Databricks step launcher: dagster-databricks' own, with inputs, idempotency, preflight and classified failures.

Belongs here: one launch from staging to the last event. Does not belong here: configuration (`launcher_config`), what
is checked before (`preflight`), failure classes (`failures`), the copy of the code (`staging_copy`).

This module is imported only when a step is launched, because its base class is heavy.
"""

from __future__ import annotations

import dataclasses
import gzip
import pickle
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster_databricks.databricks_pyspark_step_launcher import (  # noqa: TID253
    CODE_ZIP_NAME,
    PICKLED_CONFIG_FILE_NAME,
    DatabricksConfig,
    DatabricksPySparkStepLauncher,
)
from dagster_pyspark.utils import build_pyspark_zip  # noqa: TID253
from dagster_shared.record import copy

from crypto_assets.dagster_private import (
    PICKLED_EVENTS_FILE_NAME,
    PICKLED_STEP_RUN_REF_FILE_NAME,
    FileCodePointer,
    ModuleCodePointer,
    PackageCodePointer,
    StepFailureData,
    UserFailureData,
    backoff,
    deserialize_value,
    raise_execution_interrupts,
    step_context_to_step_run_ref,
)
from crypto_assets.databricks.launcher import remote_main
from crypto_assets.databricks.launcher.failures import HINTS, RunEnd, classify, shown
from crypto_assets.databricks.launcher.launcher_config import credentials, launcher_config
from crypto_assets.databricks.launcher.preflight import Preflight, PreflightFailed, settings_findings
from crypto_assets.databricks.launcher.run_watch import (
    FINAL,
    cancel,
    end_of,
    failure_metadata,
    idempotency_token,
    life_cycle,
    run_name,
    task_logs,
)
from crypto_assets.databricks.launcher.staging_copy import StagedCopy, StagingRefused, stage
from crypto_assets.databricks.staging import staging_at
from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.inputs import Shipment, receive
from crypto_assets.home import HomeError
from crypto_assets.redaction import redact
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run

    from crypto_assets.dagster_private import StepExecutionContext, StepRunRef

MAIN = Path(remote_main.__file__)
MOST_STDOUT = 64 * 1024
"""Bytes of a step's captured output that are logged; its end."""


class RemoteConfig:
    """Remote set-up before the step: base configuration and shipped inputs.

    It is pickled by reference to this module, which the far side imports from the shipped copy.
    """

    def __init__(self, base: DatabricksConfig, shipment: str) -> None:
        self.base = base
        self.shipment = shipment

    def setup(self, dbutils: Any, sc: Any) -> None:
        """Set environment and storage, then keep the inputs for the step."""
        self.base.setup(dbutils, sc)
        receive(self.shipment)


class StepLauncher(DatabricksPySparkStepLauncher):
    """Launches each step as a separate Databricks run."""

    def __init__(
        self,
        settings: Settings,
        config: Mapping[str, Any],
        copied: StagedCopy,
        reads_log: Mapping[str, str | None],
    ) -> None:
        super().__init__(**config)
        self.settings = settings
        self.copied = copied
        self.staging = staging_at(self.staging_prefix, self._workspace)
        self._reads_log = reads_log
        self._configured = self.run_config
        self._shipment = ""
        self._held: dg.EventLogEntry | None = None

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        overrides: Mapping[str, Any],
        reads_log: Mapping[str, str | None],
        packages: Sequence[Path],
    ) -> StepLauncher:
        """Stage the code and make a launcher; asks nothing of the workspace.

        Raises:
            dg.Failure: The settings cannot work, the configuration does not fit, or the code may not be shipped.
        """
        if settings.databricks_host is None or not credentials(settings):
            raise dg.Failure(str(PreflightFailed(settings_findings(settings))), allow_retries=False)
        root = Path(_staging_root()) / "code"
        try:
            copied = stage(packages, root, settings.secrets())
            return cls(settings, launcher_config(settings, overrides, str(root)), copied, reads_log)
        except (StagingRefused, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def launch_step(self, step_context: StepExecutionContext) -> Iterator[dg.DagsterEvent]:
        """Run one step on Databricks and give its events as they arrive.

        Raises:
            dg.Failure: Before submit: an input is missing or too large, or the preflight found something. After: the
                run failed without saying so in its events; metadata has its URL, class and redacted output.
        """
        run_id, step_key = step_context.run_id, step_context.step.key
        log = step_context.log
        try:
            Preflight(self.settings, self._workspace).require(
                self.staging, self._configured, self.secrets, self.env_variables, log.warning
            )
            self._shipment = self._inputs(step_context).to_json()
        except (PreflightFailed, StepFailed, HomeError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None  # its message is complete
        log.info(self.copied.describe())
        log.info(f"shipped inputs: {len(self._shipment):,} bytes\n{self._shipment[:2000]}")
        self.run_config = self._run_config(step_context)
        self._held = None
        remote: int | None = None
        try:
            self._upload_artifacts(log, self._run_ref(step_context), run_id, step_key)
            # An interrupt waits for the answer to the submit: before it, the run id is unknown.
            remote = self.databricks_runner.submit_run(self.run_config, self._get_databricks_task(run_id, step_key))
            with raise_execution_interrupts():
                if self.permissions:
                    self._grant_permissions(log, remote)
                yield from self._follow(step_context, step_key, remote)
        except BaseException as error:
            if remote is not None and not isinstance(error, dg.Failure):
                self._cancel(remote, log)
            raise
        finally:
            self.log_compute_logs(log, run_id, step_key)
            if self.wait_for_logs and remote is not None:
                self._log_logs_from_cluster(log, remote)
            self._remove_staging(run_id, step_key, log)

    def create_remote_config(self) -> Any:
        """The base configuration with the step's inputs."""
        return RemoteConfig(super().create_remote_config(), self._shipment)

    def get_step_events(self, run_id: str, step_key: str, retry_number: int) -> Sequence[dg.EventLogEntry]:
        """The far side's events so far, without the check targets that its ephemeral instance made up."""
        path = self._place(run_id, step_key, f"{retry_number}_{PICKLED_EVENTS_FILE_NAME}")

        def stored() -> Sequence[dg.EventLogEntry]:
            data = self.staging.read(path)
            # The file was written by the step that this launcher shipped.
            return cast("Any", deserialize_value(pickle.loads(gzip.decompress(data)))) if data else []  # noqa: S301

        # What is read while it is written may be cut off.
        entries = backoff(stored, retry_on=(pickle.UnpicklingError, OSError, zlib.error, EOFError), max_retries=4)
        return [_without_target(e) for e in entries]

    def log_compute_logs(self, log: Any, run_id: str, step_key: str) -> None:
        """Log what the step wrote, redacted and bounded; that nothing was written is no error."""
        for name in ("stdout", "stderr"):
            try:
                data = self.staging.read(self._place(run_id, step_key, name)) or b""
            except Exception as error:  # noqa: BLE001  (whatever it is, the step's own outcome counts)
                log.info(f"no {name} of step {step_key} could be read: {type(error).__name__}")
                continue
            text = redact(data.decode(errors="replace"), self.settings.secrets())[-MOST_STDOUT:]
            if text.strip():
                log.info(f"captured {name} of step {step_key}:\n{text}")

    @property
    def _workspace(self) -> WorkspaceClient:
        return self.databricks_runner.client.workspace_client

    def _place(self, run_id: str, step_key: str, name: str) -> str:
        """Path of a file of the step below the place of staging."""
        return f"{run_id}/{self._sanitize_step_key(step_key)}/{name}"

    def _upload_artifacts(self, log: Any, step_run_ref: StepRunRef, run_id: str, step_key: str) -> None:
        """Stage what the step's task reads: its main file, the code, the step and the configuration."""
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / CODE_ZIP_NAME
            build_pyspark_zip(str(packed), self.local_dagster_job_package_path)
            code = packed.read_bytes()
        files = {
            MAIN.name: MAIN.read_bytes(),
            CODE_ZIP_NAME: code,
            PICKLED_STEP_RUN_REF_FILE_NAME: pickle.dumps(step_run_ref),
            PICKLED_CONFIG_FILE_NAME: pickle.dumps(self.create_remote_config()),
        }
        for name, data in files.items():
            self.staging.put(self._place(run_id, step_key, name), data)
        log.info(f"staged {len(files)} files, {sum(map(len, files.values())):,} bytes, in {self.staging_prefix}")

    def _get_databricks_task(self, run_id: str, step_key: str) -> Mapping[str, Any]:
        read = (PICKLED_STEP_RUN_REF_FILE_NAME, PICKLED_CONFIG_FILE_NAME, CODE_ZIP_NAME)
        return {
            "spark_python_task": {
                "python_file": self.staging.address(self._place(run_id, step_key, MAIN.name)),
                "parameters": [self.staging.mounted(self._place(run_id, step_key, name)) for name in read],
            }
        }

    def _inputs(self, context: StepExecutionContext) -> Shipment:
        keys = _keys(context)
        config: Mapping[str, Any] = context.op_config or {}
        as_of = config.get("as_of")
        inputs = context.resources.step_inputs.build(  # type: ignore[attr-defined]
            now=datetime.now(UTC),
            run_id=context.run_id,
            keys=keys,
            reads_log=self._reads_log.get(context.op.name),
            rebuild=bool(config.get("rebuild", False)),
            accept_gap=bool(config.get("accept_gap", False)),
            as_of=datetime.fromisoformat(as_of) if as_of else None,
        )
        return Shipment(context.run_id, tuple(keys), inputs)

    def _run_config(self, context: StepExecutionContext) -> dict[str, Any]:
        """The configured run with this step's token, name and tags."""
        step_key, keys = context.step.key, _keys(context)
        attempt = context.previous_attempt_count
        token = idempotency_token(context.run_id, step_key, attempt)
        config: dict[str, Any] = {**self._configured, "idempotency_token": token}
        config.setdefault("run_name", run_name(context.run_id, step_key, attempt, keys))
        new = config["cluster"].get("new")
        if new:
            tags = [*new.get("custom_tags", ()), {"key": "asset", "value": step_key}]
            tags.append({"key": "dagster_run_id", "value": context.run_id})
            config["cluster"] = {"new": {**new, "custom_tags": tags}}
        return config

    def _run_ref(self, context: StepExecutionContext) -> StepRunRef:
        """Job to run, addressed by module, without folders of this machine."""
        ref = step_context_to_step_run_ref(context)
        repository: Any = ref.recon_job.repository
        pointer = repository.pointer
        if isinstance(pointer, FileCodePointer):
            pointer = ModuleCodePointer(self._module_of(Path(pointer.python_file)), pointer.fn_name)
        elif isinstance(pointer, PackageCodePointer):
            pointer = PackageCodePointer(pointer.module, pointer.attribute)
        elif isinstance(pointer, ModuleCodePointer):
            pointer = ModuleCodePointer(pointer.module, pointer.fn_name)
        shipped = repository._replace(
            pointer=pointer,
            executable_path=None,
            repository_load_data=context.plan_data.execution_plan.repository_load_data,
        )
        run = ref.dagster_run._replace(job_code_origin=None, remote_job_origin=None)
        # Events are sent back as they are; remotely, only print the output of the step itself.
        run_config = {"loggers": {"console": {"config": {"log_level": "INFO"}}}, **ref.run_config}
        return ref._replace(
            recon_job=ref.recon_job._replace(repository=shipped), dagster_run=run, run_config=run_config
        )

    def _module_of(self, file: Path) -> str:
        """Module name of a definitions file, by its place in one of the shipped packages."""
        parts = file.resolve().with_suffix("").parts
        names = {Path(f).with_suffix("").as_posix() for f in self.copied.files}
        for start in range(len(parts)):
            if "/".join(parts[start:]) in names:
                return ".".join(parts[start:])
        raise dg.Failure(f"{file} is in no shipped package; load the definitions with -m crypto_assets.definitions")

    def _follow(self, context: StepExecutionContext, step_key: str, remote: int) -> Iterator[dg.DagsterEvent]:
        """Events of the run until it has ended; a failure event is held back until its cause is known."""
        yield self.get_databricks_run_dagster_event(context, remote)
        deadline = time.monotonic() + self.databricks_runner.max_wait_time_sec
        seen, gave_up = 0, False
        while True:
            run = self._workspace.jobs.get_run(remote)
            state = life_cycle(run)
            # Asked after the state, so that what a run wrote before it ended is always read.
            events = self.get_step_events(context.run_id, step_key, context.previous_attempt_count)
            for event in events[seen:]:
                yield from self._forward(context, event)
            seen = len(events)
            if state in FINAL:
                break
            if time.monotonic() > deadline:
                gave_up = True
                self._cancel(remote, context.log)
                break
            time.sleep(self.databricks_runner.poll_interval_sec)
        end = self._end(run, events=seen > 0, gave_up=gave_up)
        if self._held is None and end.succeeded:
            context.log.info(f"Databricks run {remote} ended well: {run.run_page_url}")
            return
        yield from self._fail(context, run, end)

    def _forward(self, context: StepExecutionContext, event: dg.EventLogEntry) -> Iterator[dg.DagsterEvent]:
        """Store an event of the far side as if it had been made here."""
        happened = event.dagster_event
        if happened is not None and happened.event_type == dg.DagsterEventType.STEP_FAILURE:
            self._held = event
            return
        context.instance.handle_new_event(event)
        if happened is not None:
            if happened.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
                self._held = event  # stored already: it explains why the run is red
            yield happened

    def _fail(self, context: StepExecutionContext, run: Run, end: RunEnd) -> Iterator[dg.DagsterEvent]:
        """Give the held failure with its cause, or raise one."""
        kind = "code" if self._held is not None else classify(end)
        metadata = failure_metadata(run, end, kind)
        if end.output:
            metadata["databricks_output"] = end.output
        if self._held is None:
            raise dg.Failure(
                f"Databricks run {run.run_id} failed ({kind}): {end.message or end.result}; {HINTS[kind]}", metadata
            )
        event = self._held
        assert event.dagster_event is not None
        if event.dagster_event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            return
        data: Any = event.dagster_event.event_specific_data
        failure = data.user_failure_data
        failure = UserFailureData(
            label=failure.label if failure else "databricks-run",
            description=failure.description if failure else f"failed on Databricks: {run.run_page_url}",
            metadata={**(failure.metadata if failure else {}), **metadata},
        )
        happened = event.dagster_event._replace(
            event_specific_data=StepFailureData(data.error, failure, data.error_source)
        )
        context.instance.handle_new_event(event._replace(dagster_event=happened))
        yield happened

    def _end(self, run: Run, *, events: bool, gave_up: bool) -> RunEnd:
        """How the run ended; the output of its task is asked for only when it did not end well."""
        secrets = self.settings.secrets()
        end = end_of(run, secrets, events=events, gave_up=gave_up)
        if end.succeeded:
            return end
        output = "\n".join(text for text in task_logs(self._workspace, run) if text)
        return dataclasses.replace(end, output=shown(output, secrets))

    def _cancel(self, remote: int, log: Any) -> None:
        """Cancel a run and see it end, for a while: what it reads must not be removed under it."""
        cancel(self._workspace, remote, log, self.databricks_runner.poll_interval_sec)

    def _remove_staging(self, run_id: str, step_key: str, log: Any) -> None:
        """Remove what was staged for the step, and the run's folder unless another step has files in it."""
        try:
            self.staging.remove(self._place(run_id, step_key, "").rstrip("/"))
        except Exception as error:  # noqa: BLE001
            log.error(f"what was staged could not be removed: {error}; delete {self.staging.address(run_id)}")
            return
        self.staging.remove_if_empty(run_id)


def _staging_root() -> str:
    """A private folder that is removed when the process ends."""
    import shutil
    from multiprocessing.util import Finalize

    folder = tempfile.mkdtemp(prefix="crypto-assets-ship-")
    # Not atexit: a step's process, forked by a fork server, ends without it. A forked child does not run what its
    # parent registered.
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)
    return folder


def _keys(context: StepExecutionContext) -> list[Any]:
    """Partition keys of the step as its body will see them: [None] without partitions."""
    assets = context.job_def.asset_layer.get_assets_def_for_node(node_handle=context.node_handle)
    if assets is None or assets.partitions_def is None:
        return [None]
    return list(assets.partitions_def.get_partition_keys_in_range(context.partition_key_range))


def _without_target(entry: dg.EventLogEntry) -> dg.EventLogEntry:
    """Check evaluations without their target: its storage id counts in the far side's ephemeral instance."""
    event = entry.dagster_event
    if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return entry
    evaluation: Any = event.event_specific_data
    if evaluation.target_materialization_data is None:
        return entry
    cleared = copy(evaluation, target_materialization_data=None)
    return entry._replace(dagster_event=event._replace(event_specific_data=cleared))
