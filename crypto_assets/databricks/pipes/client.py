"""Steps on Databricks serverless compute, by Dagster Pipes with a Unity Catalog volume: the driver's side.

Belongs here: one step from its wheel to its result. Does not belong here: what runs over there (`pipes_main`), what
travels (`wire`), what is checked before (`preflight`), how a run ended (`run_watch`, `failures`).

Pipes reports nothing by itself here: the far side sends the step's `Result` as one message, and the shell reports it as
it reports a local step's. Pipes allows one materialization an asset, and takes a range run for an unpartitioned one.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

import crypto_assets
from crypto_assets.databricks.clusters import STEP_LIBRARIES, pinned
from crypto_assets.databricks.launcher.failures import HINTS, classify
from crypto_assets.databricks.launcher.launcher_config import (
    PACKAGE,
    credentials,
    environment,
    secret_entries,
)
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
from crypto_assets.databricks.launcher.staging_copy import StagingRefused, stage
from crypto_assets.databricks.launcher.wheel import DISTRIBUTION, ENTRY_POINT, Wheel, build_wheel
from crypto_assets.databricks.pipes.main import END_OF_CHUNK, FAILURE, RESULT, STARTED
from crypto_assets.databricks.staging import staging_at, staging_folder
from crypto_assets.engine.base import Result, StepInputs
from crypto_assets.engine.inputs import Shipment
from crypto_assets.engine.wire import (
    Crashed,
    Order,
    WireError,
    address_of,
    failure_from_json,
    opened,
    result_from_json,
)
from crypto_assets.redaction import SHORTEST_SECRET, redact
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.files import FilesAPI
    from databricks.sdk.service.jobs import Run

ENVIRONMENT = "step"
"""Key of the environment within a submitted run, and of its task."""
MOST_OUTPUT = 16 * 1024
"""Characters of a step's output that are logged; its end."""


def libraries() -> list[str]:
    """Requirements of the serverless environment, pinned to what is installed here. Dagster itself is not needed."""
    return pinned(["dagster-pipes", *(n for n in STEP_LIBRARIES if not n.startswith("dagster"))])


def pipes_resource(settings: Settings, packages: Sequence[Path] = (PACKAGE,)) -> dg.ConfigurableResource:
    """The resource `step_launcher` of target databricks-serverless: runs the work of every step remotely.

    It is none of Dagster's step launchers: the step itself runs in the driver's process and asks this for its result.

    Args:
        settings: Workspace, volume, environment.
        packages: Package folders that the wheel holds.
    """

    class ServerlessResource(dg.ConfigurableResource):
        """Runs the work of every step on Databricks serverless compute, by Dagster Pipes."""

        __qualname__ = "ServerlessResource"

        # With defaults: a launchpad that gives one field replaces the whole of the others.
        databricks_host: str | None = Field(default=settings.databricks_host, description="Workspace.")
        databricks_staging: str | None = Field(
            default=settings.databricks_staging, description="Folder that wheels and inputs are staged in."
        )
        databricks_environment_version: int = Field(
            default=settings.databricks_environment_version, description="Version of the serverless environment."
        )

        def create_resource(self, context: dg.InitResourceContext) -> ServerlessRunner:  # noqa: ARG002
            """The runner; asks nothing of the workspace."""
            return ServerlessRunner(settings.model_copy(update=dict(self)), packages)

    return ServerlessResource()


class ServerlessRunner:
    """Runs the work of one step at a time as one serverless run each. Creating one asks nothing of the workspace."""

    def __init__(self, settings: Settings, packages: Sequence[Path] = (PACKAGE,)) -> None:
        self.settings = settings
        self.volume = staging_folder(settings)
        self._packages = packages

    def run(
        self,
        context: dg.AssetExecutionContext,
        work: Callable[..., Result],
        keys: Sequence[Any],
        inputs: StepInputs,
        arguments: Mapping[str, Sequence[str]],
        ran: dict[str, Any],
    ) -> Result:
        """Run `work(engine, keys, inputs, **arguments)` on serverless compute and give what it returned.

        Args:
            context: Of the running step.
            work: A function of a module of the wheel.
            keys: Partition keys, [None] without partitions.
            inputs: What the driver gives the step.
            arguments: Further keyword arguments.
            ran: Filled with metadata of a failure: class, run id, URL, output.

        Raises:
            AuditFailed, SliceRefused, StepFailed: The step raised it.
            dg.Failure: It could not be launched, crashed, or its run failed for another reason.
        """
        from databricks.sdk.errors.base import DatabricksError
        from databricks.sdk.service import jobs

        try:
            order = self._order(work, context.run.run_id, keys, inputs, arguments)
            workspace = self._workspace()
            Preflight(self.settings, workspace).require_serverless(
                self.volume, libraries(), order.secrets, order.environment
            )
            wheel = self._put_wheel(workspace, context.log)
            context.log.info(f"shipped inputs: {len(order.shipment):,} bytes\n{order.shipment[:2000]}")
            client = _client(self.settings, workspace, self.volume)
            messages = client.run(
                context=_untyped(context),
                extras=order.to_extras(),
                task=jobs.SubmitTask(
                    task_key=ENVIRONMENT,
                    environment_key=ENVIRONMENT,
                    python_wheel_task=jobs.PythonWheelTask(
                        package_name=DISTRIBUTION, entry_point=ENTRY_POINT, parameters=[]
                    ),
                ),
                submit_args=self._submit_args(context, keys, wheel),
            ).get_custom_messages()
        except (PreflightFailed, StagingRefused, WireError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        except DatabricksError as error:
            message = redact(f"{error.error_code}: {error}", self.settings.secrets())
            raise dg.Failure(f"the workspace refused: {message}", {"databricks_failure_class": "cluster"}) from error
        if client.interrupted is not None:
            raise client.interrupted
        assert client.ended is not None
        return self._result(context.log, workspace, client, messages, ran)

    def _workspace(self) -> WorkspaceClient:
        given = credentials(self.settings)
        if self.settings.databricks_host is None or not given:
            raise PreflightFailed(settings_findings(self.settings))
        from databricks.sdk import WorkspaceClient

        oauth = given.get("oauth_credentials")
        if oauth:
            return WorkspaceClient(host=self.settings.databricks_host, auth_type="oauth-m2m", **oauth)
        return WorkspaceClient(host=self.settings.databricks_host, token=given["databricks_token"], auth_type="pat")

    def _order(
        self,
        work: Callable[..., Result],
        run_id: str,
        keys: Sequence[Any],
        inputs: StepInputs,
        arguments: Mapping[str, Sequence[str]],
    ) -> Order:
        """The order, which holds no secret.

        Raises:
            WireError: It would.
            StepFailed: The inputs are too large.
        """
        order = Order(
            address_of(work),
            Shipment(run_id, tuple(keys), inputs).to_json(),
            {name: list(value) for name, value in arguments.items()},
            environment(self.settings),
            secret_entries(self.settings),
        )
        text = repr(order)
        held = [
            name for name, value in self.settings.secrets().items() if len(value) >= SHORTEST_SECRET and value in text
        ]
        if held:
            raise WireError(f"the step's order would hold the value of {', '.join(held)} in clear; nothing was sent")
        return order

    def _put_wheel(self, workspace: WorkspaceClient, log: Any) -> str:
        """Path of the wheel of this code, uploaded unless it lies there."""
        from databricks.sdk.errors import NotFound
        from databricks.sdk.service.files import FilesAPI

        files, folder = FilesAPI(workspace.api_client), f"{self.volume}/wheels"
        wheel = self._wheel(log)
        path = f"{folder}/{wheel.place}"
        try:
            files.get_metadata(path)
        except NotFound:
            staging_at(self.volume, workspace).put(f"wheels/{wheel.place}", wheel.data)
            log.info(f"uploaded {path} ({len(wheel.data):,} bytes)")
            old = other_wheels(files, folder, wheel.sha256)
            if old:
                listed = "\n".join(f"databricks fs rm -r dbfs:{o}" for o in old)
                log.info(f"{len(old)} wheels of other code lie beside it; when no run uses them:\n{listed}")
        return path

    def _wheel(self, log: Any) -> Wheel:
        with tempfile.TemporaryDirectory(prefix="crypto-assets-ship-") as folder:
            copied = stage(self._packages, Path(folder) / "code", self.settings.secrets())
            log.debug(copied.describe())
            return build_wheel(copied, crypto_assets.__version__)

    def _submit_args(self, context: dg.AssetExecutionContext, keys: Sequence[Any], wheel: str) -> dict[str, Any]:
        from databricks.sdk.service import compute, jobs

        step = context.get_step_execution_context()
        attempt, key = step.previous_attempt_count, step.step.key
        spec = compute.Environment(
            environment_version=str(self.settings.databricks_environment_version), dependencies=[wheel, *libraries()]
        )
        arguments: dict[str, Any] = {
            "environments": [jobs.JobEnvironment(ENVIRONMENT, spec)],
            "idempotency_token": idempotency_token(context.run.run_id, key, attempt),
            "run_name": run_name(context.run.run_id, key, attempt, keys),
            "timeout_seconds": self.settings.databricks_run_timeout_s,
        }
        if self.settings.databricks_budget_policy_id:
            arguments["budget_policy_id"] = self.settings.databricks_budget_policy_id
        if self.settings.databricks_view_group:
            viewer = jobs.JobAccessControlRequest(
                group_name=self.settings.databricks_view_group, permission_level=jobs.JobPermissionLevel.CAN_VIEW
            )
            arguments["access_control_list"] = [viewer]
        return arguments

    def _result(
        self, log: Any, workspace: WorkspaceClient, client: Any, messages: Sequence[Any], ran: dict[str, Any]
    ) -> Result:
        """The result that the step sent, or its failure raised."""
        secrets, run = self.settings.secrets(), client.ended
        received = {m["kind"]: m for m in messages if isinstance(m, dict) and "kind" in m}
        logs, trace = task_logs(workspace, run)
        if output := redact(logs, secrets).strip():
            log.info(f"output of the step:\n{output[-MOST_OUTPUT:]}")
        end = end_of(
            run,
            secrets,
            events=STARTED in received,
            gave_up=client.gave_up,
            output=f"{logs}\n{trace}" if trace else "",
        )
        problem = ""
        try:
            if RESULT in received and end.succeeded:
                log.info(f"Databricks run {run.run_id} ended well: {run.run_page_url}")
                return result_from_json(opened(received[RESULT]))
            raised = failure_from_json(opened(received[FAILURE])) if FAILURE in received else None
        except WireError as error:
            raised, problem = None, str(error)
        kind = "code" if raised is not None else "cluster" if end.succeeded else classify(end)
        ran |= failure_metadata(run, end, kind)
        if isinstance(raised, Crashed):
            ran["databricks_output"] = redact(raised.trace, secrets)
            crash = redact(f"{raised.kind}: {raised.message}", secrets)
            raise dg.Failure(f"the step crashed on Databricks (run {run.run_id}): {crash}", dict(ran))
        if raised is not None:
            raise raised
        if end.output:
            ran["databricks_output"] = end.output
        if end.succeeded:
            problem = problem or "it ended well, but its result did not arrive"
            hint = f"see whether {self.volume} can be read here and written there, and launch the step again"
        else:
            problem, hint = problem or end.message or str(end.result), HINTS[kind]
        raise dg.Failure(f"Databricks run {run.run_id} failed ({kind}): {problem}; {hint}", dict(ran))


def other_wheels(files: FilesAPI, folder: str, keep: str) -> list[str]:
    """Folders of wheels of other code, sorted. They are never deleted here: a run that waits may need one."""
    found = (entry.name for entry in files.list_directory_contents(folder) if entry.is_directory)
    return sorted(f"{folder}/{name}" for name in found if name and name != keep)


def _untyped(context: dg.AssetExecutionContext) -> dg.AssetExecutionContext:
    """The context for Pipes, which would make every declared output mandatory: also those of a step that may skip."""
    quiet: Any = copy.copy(context)
    quiet.set_requires_typed_event_stream = lambda **_: None
    return quiet


def _client(settings: Settings, workspace: WorkspaceClient, volume: str) -> Any:
    """Pipes' serverless client, which leaves to us what a run's end means.

    Dagster's own raises before all messages were read, knows no time limit, and takes an interrupted run for a
    finished one.
    """
    from dagster_databricks.pipes import PipesDatabricksServerlessClient, PipesUnityCatalogVolumesMessageReader

    class Reader(PipesUnityCatalogVolumesMessageReader):
        def download_messages_chunk(self, index: int, params: Any) -> str | None:
            chunk = super().download_messages_chunk(index, params)
            return chunk if chunk is None or chunk.endswith(END_OF_CHUNK) else None

    class Client(PipesDatabricksServerlessClient):
        ended: Run | None = None
        interrupted: BaseException | None = None
        gave_up = False

        def _poll_til_success(self, context: Any, run_id: int) -> None:
            try:
                self._follow(context, run_id)
            except BaseException as error:
                self.interrupted = error
                cancel(self.client, run_id, context.log, self.poll_interval_seconds)
                raise

        def _follow(self, context: Any, run_id: int) -> None:
            deadline, seen = time.monotonic() + settings.databricks_wait_s, None
            while True:
                run = self.client.jobs.get_run(run_id)
                state = life_cycle(run)
                if seen is None:
                    context.log.info(f"Databricks run {run_id}: {run.run_page_url}")
                if state != seen:
                    context.log.info(f"Databricks run {run_id} is {state}")
                seen, self.ended = state, run
                if state in FINAL:
                    return
                if time.monotonic() > deadline:
                    self.gave_up = True
                    cancel(self.client, run_id, context.log, self.poll_interval_seconds)
                    self.ended = self.client.jobs.get_run(run_id)
                    return
                time.sleep(self.poll_interval_seconds)

    return Client(
        workspace,
        volume,
        message_reader=Reader(interval=0.5, client=workspace, volume_path=volume, include_stdio_in_messages=False),  # type: ignore[arg-type]
        poll_interval_seconds=settings.databricks_poll_s,
        forward_termination=False,
    )
