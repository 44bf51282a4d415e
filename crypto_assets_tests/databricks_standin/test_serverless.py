"""Spark of serverless tasks: a Spark Connect session, and what serverless compute refuses."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import json
from databricks.sdk.runtime import spark
from pyspark import SparkContext
from pyspark.sql import SparkSession, functions as F

def refused(call):
    try:
        return f"allowed: {call()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

spark.conf.set("spark.sql.session.timeZone", "UTC")
spark.sql("CREATE SCHEMA IF NOT EXISTS crypto_analytics.bronze")
rows = spark.range(5).withColumn("double", F.col("id") * 2)
rows.write.format("delta").mode("append").saveAsTable("crypto_analytics.bronze.t")
print(json.dumps({
    "module": type(SparkSession.builder.getOrCreate()).__module__,
    "one": SparkSession.getActiveSession() is SparkSession.builder.getOrCreate(),
    "rows": spark.table("crypto_analytics.bronze.t").count(),
    "sparkContext": refused(lambda: spark.sparkContext),
    "_jvm": refused(lambda: spark._jvm),
    "context": refused(SparkContext.getOrCreate),
    "setting": refused(lambda: spark.conf.set("spark.sql.adaptive.enabled", "false")),
    "cache": refused(rows.cache),
}))
"""


def test_a_serverless_task_has_a_connect_session_on_the_tables_of_the_workspace(ws, client):
    from databricks.sdk.service import compute, jobs

    folder = ws.volumes_api.create("crypto_analytics.ops.staging")
    (folder / "main.py").write_text(SCRIPT, encoding="utf-8")
    task = jobs.SubmitTask(
        task_key="a",
        environment_key="e",
        spark_python_task=jobs.SparkPythonTask(python_file="/Volumes/crypto_analytics/ops/staging/main.py"),
    )
    environment = jobs.JobEnvironment("e", compute.Environment(environment_version="4"))
    said = []
    for _ in range(2):
        client.jobs.submit(tasks=[task], environments=[environment]).bind()
        ws.runs[-1].wait_for(timeout_s=250)
        assert ws.runs[-1].result_state == "SUCCESS", ws.runs[-1].stderr
        said.append(json.loads(ws.runs[-1].stdout))
    first, second = said
    assert first["module"] == "pyspark.sql.connect.session"
    assert first["one"]
    assert (first["rows"], second["rows"]) == (5, 10)
    for name in ("sparkContext", "_jvm", "context"):
        assert "JVM_ATTRIBUTE_NOT_SUPPORTED" in first[name]
    assert "CONFIG_NOT_AVAILABLE" in first["setting"]
    assert "NOT_SUPPORTED_WITH_SERVERLESS" in first["cache"]
