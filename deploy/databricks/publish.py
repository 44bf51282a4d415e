"""Job `publish_models` of the bundle: registers the version in force of every model for serving endpoints.

Runs where a Spark session exists. `--package` is the folder that holds the package `crypto_assets` and `deploy`.
Prints the number of each version, which `deploy/online/databricks.yml` takes. Does not belong here: packing and
registering (`crypto_assets.databricks.endpoint`).
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path


def main() -> None:
    """Register what is not registered yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", required=True, help="folder that holds the package crypto_assets")
    parser.add_argument("--catalog", required=True)
    given = parser.parse_args()
    sys.path.insert(0, given.package)

    import mlflow
    from pyspark.sql import SparkSession

    from crypto_assets.databricks import endpoint
    from crypto_assets.serving.scoring import MODELS

    mlflow.set_registry_uri("databricks-uc")
    rows = SparkSession.builder.getOrCreate().table(f"`{given.catalog}`.ml.promotions").collect()
    promotions = [
        {k: v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for k, v in row.asDict().items()} for row in rows
    ]
    schema, package = f"{given.catalog}.ml.", Path(given.package)
    for model in MODELS:
        name, number = endpoint.publish(promotions, model, datetime.now(UTC), schema=schema, package=package)
        print(f"{name}: version {number}; deploy it with --var {model}_version={number}")


if __name__ == "__main__":
    main()
