"""Runs the bundle's setup job on JVM Spark with Delta, twice, and prints what came of it as one line of JSON.

A process of its own: the suite's session is the embedded engine's. Arguments: checkout, warehouse folder, jar folder.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from crypto_assets_tests import short_lived_jvm

SKIPPED = ["05_keys.sql", "08_tags.sql", "09_grants.sql"]  # open-source Delta has no primary keys, tags or grants


def session(warehouse: str, jars: str) -> Any:
    from pyspark.sql import SparkSession

    options = {
        "spark.jars": ",".join(str(p) for p in sorted(Path(jars).glob("*.jar"))),
        "spark.ui.enabled": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": warehouse,
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.adaptive.enabled": "false",
        "spark.default.parallelism": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
        # Hundreds of statements over hardly any rows: generating and compiling code would be most of their cost.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": short_lived_jvm.OPTIONS,
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def parsed(spark: Any, statements: tuple[str, ...]) -> list[str]:
    """Beginnings of the statements that open-source Spark cannot parse."""
    parser = spark._jsparkSession.sessionState().sqlParser()
    refused = []
    for statement in statements:
        try:
            parser.parsePlan(statement)
        except Exception:  # noqa: BLE001 - Py4J raises several
            refused.append(statement[:60])
    return refused


def log_of(table: Path) -> dict[str, Any]:
    """Partition columns and number of versions, from the table's log: asking Delta takes seconds a table."""
    commits = sorted((table / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in commits[0].read_text().splitlines()]
    (made,) = [line["metaData"] for line in lines if "metaData" in line]
    return {"partitions": made["partitionColumns"], "versions": len(commits)}


def insert(spark: Any, values: str) -> str:
    try:
        spark.sql(f"INSERT INTO gold.dim_date VALUES ({values})")
    except Exception as error:  # noqa: BLE001 - Py4J raises several
        return re.findall(r"\[([A-Z_.]+)\]", str(error))[0]
    return "accepted"


def main(root: str, warehouse: str, jars: str) -> None:
    sys.path.insert(0, root)
    from crypto_assets.databricks.deploy import unity

    spark = session(warehouse, jars)
    spark.sparkContext.setLogLevel("OFF")
    found: dict[str, Any] = {"unparsed": {f.name: parsed(spark, f.statements) for f in unity.sql_files()}}
    for schema in unity.SCHEMAS:
        spark.sql(f"CREATE SCHEMA spark_catalog.{schema}")
    script = str(Path(root) / "deploy/databricks/setup.py")
    arguments = ["--package", root, "--catalog", "spark_catalog", "--skip", *SKIPPED]
    for _ in range(2):
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
    found["tables"] = {
        name: {
            "columns": [
                [f.name, f.dataType.simpleString(), f.metadata.get("comment")] for f in spark.table(name).schema
            ],
            "properties": {r[0]: r[1] for r in spark.sql(f"SHOW TBLPROPERTIES {name}").collect()},
            **log_of(Path(warehouse) / f"{name.replace('.', '.db/')}"),
        }
        for name in unity.TABLES
    }
    found["views"] = {
        view: {"rows": spark.table(view).count(), "vol_sum": [
            f.metadata.get("comment") for f in spark.table(view).schema if f.name == "vol_sum"]}
        for view in unity.VIEWS
    }  # fmt: skip
    columns = unity.TABLES["gold.dim_date"].column_names
    day = dict.fromkeys(columns, "1") | {"day": "DATE'2024-05-01'"}
    for name, column_type in ((c.name, c.type) for c in unity.TABLES["gold.dim_date"].columns):
        if column_type == "boolean":
            day[name] = "true"
        elif column_type == "string":
            day[name] = "'x'"
        elif column_type == "date":
            day[name] = "DATE'2024-05-01'"
    found["good"] = insert(spark, ", ".join(day.values()))
    found["bad"] = insert(spark, ", ".join({**day, "iso_weekday": "8"}.values()))
    found["null"] = insert(spark, ", ".join({**day, "iso_weekday": "NULL"}.values()))
    spark.sql("ALTER TABLE gold.dim_date ADD COLUMN stray STRING")
    try:
        unity.apply(lambda text: spark.sql(text).collect(), "spark_catalog", skip=SKIPPED)
        found["stray"] = "accepted"
    except unity.SetupRefused as error:
        found["stray"] = str(error)
    print("\n" + json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
