"""Job `setup` of the bundle: tables, keys, constraints, views, tags and grants, from the contracts.

Runs where a Spark session exists (serverless or a cluster). `--package` is the folder that holds the package
`crypto_assets`: files of a workspace are not installed, and a task does not know where it lies. Needs nothing but Spark
and Python's own library. Does not belong here: any statement (`crypto_assets.databricks.deploy.unity`).
"""

import argparse
import json
import sys


def main() -> None:
    """Apply the SQL set to a catalog."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", required=True, help="folder that holds the package crypto_assets")
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--groups", default="{}", help="JSON object: group by role, where it is not the default")
    parser.add_argument("--skip", nargs="*", default=[], help="files of the set to leave out, by name")
    given = parser.parse_args()
    sys.path.insert(0, given.package)

    from pyspark.sql import SparkSession

    from crypto_assets.databricks.deploy import unity

    spark = SparkSession.builder.getOrCreate()
    groups = json.loads(given.groups)
    unity.apply(lambda text: spark.sql(text).collect(), given.catalog, groups, skip=given.skip)


if __name__ == "__main__":
    main()
