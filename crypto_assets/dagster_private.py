"""Imports from Dagster's private API (1.13), all in one place, with where and why each is used.

- AssetGraphView, AssetGraphSubset, BaseAssetGraph, AssetKeyPartitionKey, TemporalContext: restatement, backfills and
  `orchestration.unchanged` evaluate partition mappings, which has no public API.
- PartitionBackfill: publicly, only the UI can submit a backfill of selected partitions.
- SqlEventLogStorage and its tables, Instigator*, TickStatus: alerts and housekeeping follow check evaluations and ticks
  across runs (`orchestration.event_store`).
- SqliteEventLogStorage, INDEX_SHARD_NAME, SQLITE_BUSY_TIMEOUT_SECONDS, ConfigurableClassData,
  AssetCheckExecutionRecordStatus, sets of event types: event-log connections are reused and events stored together
  (decision 0003).
- Remote origins, InMemoryJob, execute_run, SINGLETON_REPOSITORY_NAME: runs started by the CLI link to their job in the
  UI (`cli.runs`).
- step_context_to_step_run_ref, code pointers, event files, StepFailureData, backoff, raise_execution_interrupts,
  process_config: the step launcher; dagster-databricks' launcher uses the same.
- Tags and serdes: keys and texts that Dagster writes into runs and events.

Tests on real instances pin each use; start here when upgrading Dagster. The script that runs on a cluster before any
package is installed (`databricks.launcher.remote_main`) has its own import.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dagster._config import process_config
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.code_pointer import FileCodePointer, ModuleCodePointer, PackageCodePointer
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.step_launcher import StepRunRef
from dagster._core.definitions.temporal_context import TemporalContext
from dagster._core.errors import raise_execution_interrupts
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.execution.api import execute_run
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan.external_step import (
    PICKLED_EVENTS_FILE_NAME,
    PICKLED_STEP_RUN_REF_FILE_NAME,
    step_context_to_step_run_ref,
)
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._serdes import ConfigurableClassData, deserialize_value
from dagster._utils.backoff import backoff

if TYPE_CHECKING:
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        AssetKeyTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
    from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS

_ON_FIRST_USE = {
    "PartitionBackfill": "dagster._core.execution.backfill",
    "AssetCheckExecutionsTable": "dagster._core.storage.event_log.schema",
    "AssetEventTagsTable": "dagster._core.storage.event_log.schema",
    "AssetKeyTable": "dagster._core.storage.event_log.schema",
    "SqlEventLogStorageTable": "dagster._core.storage.event_log.schema",
    "SqlEventLogStorage": "dagster._core.storage.event_log.sql_event_log",
    "INDEX_SHARD_NAME": "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "SqliteEventLogStorage": "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "SQLITE_BUSY_TIMEOUT_SECONDS": "dagster._core.storage.sqlite",
}
"""Names whose modules import SQLAlchemy and Alembic: a fifth of the start of every process that builds definitions."""


def __getattr__(name: str) -> object:
    """Import a name of `_ON_FIRST_USE`."""
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
