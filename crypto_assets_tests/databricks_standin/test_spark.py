"""Spark and MLflow of the tasks: the few tests that start a JVM or a server."""

from __future__ import annotations

import json
import urllib.request

import psutil
import pytest

from crypto_assets_tests.processes import still_running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WRITE = """
import json
from pyspark.sql import SparkSession, functions as F
active = SparkSession.getActiveSession()
same = active is SparkSession.builder.getOrCreate() and isinstance(spark, SparkSession)
same = same and sc.applicationId == active.sparkContext.applicationId
spark.sql("CREATE SCHEMA IF NOT EXISTS crypto_analytics.bronze")
rows = active.range(5).withColumn("double", F.col("id") * 2)
rows.write.format("delta").saveAsTable("crypto_analytics.bronze.t")
@F.udf("string")
def imported(_):
    try:
        import crypto_assets
        return crypto_assets.__file__
    except ImportError as error:
        return str(error)
print(json.dumps({
    "same": same,
    "total": spark.table("crypto_analytics.bronze.t").agg(F.sum("double")).first()[0],
    "zone": spark.conf.get("spark.sql.session.timeZone"),
    "worker": active.range(1).select(imported("id")).first()[0],
    "pid": sc._jvm.java.lang.ProcessHandle.current().pid(),
    "application": sc.applicationId,
}))
"""
READ = """
import json
from pyspark.sql import SparkSession
session = SparkSession.builder.getOrCreate()
before = session.table("crypto_analytics.bronze.t").count()
session.range(5, 7).selectExpr("id", "id * 2 AS double").write.format("delta").mode("append").saveAsTable(
    "crypto_analytics.bronze.t")
told = session.sql("DESCRIBE EXTENDED crypto_analytics.bronze.t").collect()
kind = [r.data_type for r in told if r.col_name == "Type"]
import deltalake, pyarrow as pa
location = session.sql("DESCRIBE DETAIL crypto_analytics.bronze.t").first().location
deltalake.write_deltalake(location.removesuffix("/t") + "/made_meanwhile", pa.table({"a": [1]}))
context = session.sparkContext
print(json.dumps([context._jvm.java.lang.ProcessHandle.current().pid(), context.applicationId]))
print(json.dumps([before, kind, session.catalog.tableExists("crypto_analytics.bronze.made_meanwhile"),
                  session.table("bronze.made_meanwhile").count()]))
"""


def _gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_delta_table_of_one_task_is_read_outside_and_by_the_next_task(ws, submit):
    import duckdb
    from deltalake import DeltaTable

    first = submit(WRITE)
    first.wait_for(timeout_s=200)
    assert first.result_state == "SUCCESS", first.stderr
    said = json.loads(first.stdout)
    java, application = said.pop("pid"), said.pop("application")
    assert said == {"same": True, "total": 20, "zone": "UTC", "worker": "No module named 'crypto_assets'"}
    table = ws.table("bronze.t")
    assert table == ws.lake / "bronze" / "t"
    assert DeltaTable(table).to_pyarrow_table().num_rows == 5
    second = submit(READ)
    second.wait_for(timeout_s=200)
    assert second.result_state == "SUCCESS", second.stderr
    served, read = (json.loads(line) for line in second.stdout.splitlines())
    assert read == [5, ["MANAGED"], True, 1]
    assert served[0] == java, "a run that ended in order leaves a warm JVM"
    assert served[1] != application, "and none of its context"
    rows = DeltaTable(table).to_pyarrow_table()  # noqa: F841 - DuckDB reads the variable
    assert duckdb.sql("SELECT count(*), sum(double) FROM rows").fetchone() == (7, 42)
    assert not _gone(java)
    ws.close()
    assert _gone(java)


def test_cancelling_kills_the_jvm(client, submit):
    run = submit("import time; print(sc._jvm.java.lang.ProcessHandle.current().pid(), flush=True); time.sleep(600)")
    for _ in range(1200):
        if run.stdout.endswith("\n"):
            break
        run.cancelled.wait(0.05)
    java = int(run.stdout)
    assert psutil.pid_exists(java)
    client.jobs.cancel_run(run.run_id)
    run.wait_for()
    assert run.result_state == "CANCELED"
    assert _gone(java)


def test_mlflow_serves_until_the_workspace_ends(ws):
    with urllib.request.urlopen(f"{ws.mlflow_uri}/version", timeout=10) as answer:
        assert answer.read().startswith(b"3.")
    server = psutil.Process(ws._mlflow.pid)
    family = [server, *server.children(recursive=True)]
    ws.close()
    assert still_running(family) == []
