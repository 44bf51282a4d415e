"""A Databricks workspace on 127.0.0.1 that really executes what is submitted to it.

Belongs here: the HTTP API that the Databricks SDK, the step launcher and Pipes call (`server`, `files_api`, `jobs_api`,
`catalog_api`), runs and their life cycle (`runs`, `executor`), faults on request (`faults`), and what a task sees on a
cluster (`remote`, copied into the workspace and run in a process of its own). Does not belong here: the product.
"""

from crypto_assets_tests.databricks_standin.faults import Faults
from crypto_assets_tests.databricks_standin.runs import Run, TaskRun
from crypto_assets_tests.databricks_standin.workspace import Workspace

__all__ = ["Faults", "Run", "TaskRun", "Workspace"]
