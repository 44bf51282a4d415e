"""Bronze, Silver and Gold as a declarative pipeline; on Databricks run by the bundle's pipeline `sdp`.

Read by Lakeflow or by `spark-pipelines`, which configure it by `spark.conf` (keys in
`crypto_assets.databricks.pipeline.configuration`). `crypto_assets.package` names the folder that holds the package:
files of a workspace are not installed. Does not belong here: any dataset
(`crypto_assets.databricks.pipeline.datasets`).
"""

import sys

from pyspark import pipelines as dp  # noqa: TID253 - it is read inside a pipeline only
from pyspark.sql import SparkSession  # noqa: TID253

session = SparkSession.active()
package = session.conf.get("crypto_assets.package", "")
if package and package not in sys.path:
    sys.path.insert(0, package)

from crypto_assets.databricks.pipeline import bronze, configuration, datasets  # noqa: E402 - only now can it be found


def read_secret(scope: str, key: str) -> str:
    """A secret of the workspace that runs this."""
    from databricks.sdk.runtime import dbutils

    return dbutils.secrets.get(scope, key)


told = configuration.read(session.conf.get)
datasets.declare(dp, session, told, bronze.records(session, told, read_secret))
