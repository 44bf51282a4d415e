"""Runs the declarative pipeline once on this machine: `python -m crypto_assets.databricks.pipeline.local FOLDER`.

A Spark Connect server with Delta Lake and the Kafka source runs in this process's JVM. The schemas are made in it,
since a pipeline can make none, `spark-pipelines run` runs the file that Databricks would run, and then every rule is
looked at by a query, since open-source Spark has no expectations. What is read is the topic, and the history replies,
of the home that the environment names; what is written lies below FOLDER/warehouse. The catalog ends with the process,
so a folder is used once.

Belongs here: the run and its report. Does not belong here: the server (`engine.connect_server`), any dataset
(`datasets`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.model import Table
from crypto_assets.databricks.pipeline.configuration import PREFIX, SCHEMA_SUFFIX, ConfigurationError
from crypto_assets.databricks.pipeline.datasets import DATASETS, dataset_name
from crypto_assets.databricks.pipeline.expectations import FAIL, UNIQUE_KEY, expectations, violations
from crypto_assets.engine.connect_server import TOKEN, connect_server
from crypto_assets.errors import ReportedError
from crypto_assets.home import existing_home
from crypto_assets.log.kafka.client import client_config
from crypto_assets.log.kafka.topic import topic_id
from crypto_assets.settings import Settings, child_environment, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PIPELINE = Path(__file__).resolve().parents[3] / "deploy/databricks/pipeline.py"


def run(settings: Settings, folder: Path, pipeline: Path = PIPELINE, master: str = "local[2]") -> dict[str, Any]:
    """Run the pipeline over the home's topic and report on what it made.

    Args:
        settings: Settings of the home; its Kafka must need no password.
        folder: New or empty folder of the tables and of the pipeline's own files.
        pipeline: The pipeline's source file.
        master: Spark master.

    Returns:
        By dataset `rows` and `violations`: the number of rows by rule, rules that hold left out.

    Raises:
        ConfigurationError: The source file is absent, the folder is not empty, or Kafka needs a password.
        HomeError: There is no home, or it is bound to something else.
        JvmError: No Java 17 or later, or the jars could not be fetched.
        LogUnavailable: The topic does not exist or the broker cannot be reached.
        ReportedError: The run failed.
    """
    if not pipeline.is_file():
        raise ConfigurationError(f"{pipeline} is not there: it is part of a checkout, not of the installed package")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: a run begins with a new folder, name another one")
    configuration = configuration_of(settings)
    folder.mkdir(parents=True, exist_ok=True)
    specification = folder / "spark-pipeline.yml"
    specification.write_text(json.dumps(_specification(folder, pipeline, configuration), indent=2), encoding="utf-8")
    token = str(uuid.uuid4())
    with connect_server(folder / "warehouse", token, master=master) as (session, port):
        for schema in sorted({table.schema for table in DATASETS}):
            session.sql(f"CREATE SCHEMA {schema}{SCHEMA_SUFFIX}")
        _spark_pipelines(specification, port, token)
        return {dataset_name(table): _report(session, table) for table in DATASETS}


def configuration_of(settings: Settings) -> dict[str, str]:
    """The pipeline's configuration for a home, by full key.

    Raises:
        ConfigurationError: Kafka needs a password, which a configuration must not hold.
        HomeError: There is no home, or it is bound to something else.
        LogUnavailable: The topic does not exist or the broker cannot be reached.
    """
    home, client = existing_home(settings), client_config(settings)
    if "sasl.password" in client:
        raise ConfigurationError(
            "KAFKA_SECURITY_PROTOCOL asks for a password, which would lie in the pipeline's configuration; use a Kafka "
            "without one here"
        )
    history = Path(settings.lake) / "bronze" / "market_history"
    values = {
        "source": home.source,
        "coins": str(home.coins_file) if home.coins_file.exists() else "",
        "partitions_start": home.partitions_start.isoformat(),
        "topic": settings.prices_topic,
        "topic_id": topic_id(client, settings.prices_topic),
        "kafka_bootstrap_servers": str(client["bootstrap.servers"]),
        "history": f"delta.`{history}`" if (history / "_delta_log").is_dir() else "",
    }
    return {PREFIX + key: value for key, value in values.items()}


def _specification(folder: Path, pipeline: Path, configuration: Mapping[str, str]) -> dict[str, Any]:
    """`spark-pipeline.yml`; its globs do not leave its own folder, so the source is linked there."""
    (folder / pipeline.name).symlink_to(pipeline.resolve())
    return {
        "name": "crypto-assets-sdp",
        "storage": (folder / "storage").resolve().as_uri(),
        "catalog": "spark_catalog",
        "database": "default",
        "configuration": {**configuration, "spark.sql.session.timeZone": "UTC"},
        "libraries": [{"glob": {"include": pipeline.name}}],
    }


def _spark_pipelines(specification: Path, port: int, token: str) -> None:
    program = Path(sysconfig.get_path("scripts")) / "spark-pipelines"
    command = [str(program), "--remote", f"sc://localhost:{port}", "run", "--spec", str(specification)]
    done = subprocess.run(  # noqa: S603 - our own program and files
        command, env={**child_environment(), TOKEN: token}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReportedError(f"spark-pipelines ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")


def _report(session: SparkSession, table: Table) -> dict[str, Any]:
    name = dataset_name(table)
    counts = session.sql(violations(table, name)).toArrow().to_pylist()[0]
    return {"rows": session.table(name).count(), "violations": {rule: n for rule, n in counts.items() if n}}


def main(arguments: Sequence[str]) -> int:
    """Run over the home of the environment and print the report as JSON; 1 when a rule that stops a write is broken."""
    parser = argparse.ArgumentParser(prog="python -m crypto_assets.databricks.pipeline.local", description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder of the tables")
    report = run(load_settings(), parser.parse_args(arguments).folder)
    print(json.dumps(report, indent=2))
    blocking = {dataset_name(t): {*expectations(t)[FAIL], UNIQUE_KEY} for t in DATASETS}
    return int(any(blocking[name] & set(found["violations"]) for name, found in report.items()))


if __name__ == "__main__":
    from crypto_assets.faults import program

    program(lambda: main(sys.argv[1:]))
