"""Token, unknown calls, faults of calls: through `requests` and the real SDK."""

from __future__ import annotations

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, ResourceDoesNotExist

from crypto_assets_tests.databricks_standin import Workspace

ME = "/api/2.0/preview/scim/v2/Me"


def test_without_a_token_401_and_with_a_wrong_one_403(ws, client):
    bare = requests.get(ws.host + ME, timeout=10)
    wrong = requests.get(ws.host + ME, headers={"Authorization": "Bearer dapiwrong"}, timeout=10)
    assert (bare.status_code, bare.json()["error_code"]) == (401, "401")
    assert (wrong.status_code, wrong.json()["message"]) == (403, "Invalid access token.")
    with pytest.raises(PermissionDenied):
        WorkspaceClient(host=ws.host, token="dapiwrong").current_user.me()
    assert client.current_user.me().user_name == "standin@example.com"


def test_a_service_principal_gets_a_token(ws):
    name, secret = ws.service_principal
    client = WorkspaceClient(host=ws.host, client_id=name, client_secret=secret)
    assert client.current_user.me().active
    with pytest.raises(ValueError, match="invalid_client"):
        WorkspaceClient(host=ws.host, client_id=name, client_secret="wrong").current_user.me()


def test_unknown_calls_are_404_and_recorded(tmp_path):
    with Workspace(tmp_path, spark=False) as ws:
        client = WorkspaceClient(host=ws.host, token=ws.token)
        with pytest.raises(NotFound, match="No API found"):
            client.jobs.delete(7)
        assert ws.unknown == ["POST /api/2.2/jobs/delete"]


def test_a_429_is_retried_by_the_sdk_after_what_it_says(ws, client):
    ws.faults.next("scim/v2/Me", status=429, retry_after=0)
    assert client.current_user.me().user_name
    assert [s for _, path, s in ws.requests if path == ME] == [429, 200]
    ws.faults.next("Me", status=429, retry_after=7)
    answer = requests.get(ws.host + ME, headers={"Authorization": f"Bearer {ws.token}"}, timeout=10)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert ws.faults.pending == 0


def test_secrets(ws, client):
    client.secrets.create_scope("kafka")
    client.secrets.put_secret("kafka", "password", string_value="s3cret")
    assert ws.secrets == {"kafka": {"password": "s3cret"}}
    assert [s.name for s in client.secrets.list_scopes()] == ["kafka"]
    assert [s.key for s in client.secrets.list_secrets("kafka")] == ["password"]
    assert client.dbutils.secrets.get("kafka", "password") == "s3cret"
    with pytest.raises(ResourceDoesNotExist, match="Scope other"):
        list(client.secrets.list_secrets("other"))


def test_what_a_cluster_can_be_made_of(ws, client):
    ws.clusters.add("c-1")
    ws.clusters.policies["p-1"] = {}
    ws.clusters.pools["pool-1"] = {}
    versions = {v.key: v.name for v in client.clusters.spark_versions().versions}
    assert "Apache Spark 4.2.0" in versions["19.0.x-scala2.13"]
    assert "i3.xlarge" in {n.node_type_id for n in client.clusters.list_node_types().node_types}
    assert client.clusters.get("c-1").spark_version == "19.0.x-scala2.13"
    assert client.cluster_policies.get("p-1").policy_id == "p-1"
    assert client.instance_pools.get("pool-1").instance_pool_id == "pool-1"
    assert [e.type.value for e in client.clusters.events("c-1")] == ["CREATING", "RUNNING"]
    for call in (client.clusters.get, client.cluster_policies.get, client.instance_pools.get):
        with pytest.raises(ResourceDoesNotExist):
            call("absent")


def test_tables_of_the_catalog_are_the_folders_of_the_lake(ws, client):
    (ws.lake / "bronze" / "t" / "_delta_log").mkdir(parents=True)
    assert client.tables.exists("crypto_analytics.bronze.t").table_exists
    assert not client.tables.exists("crypto_analytics.bronze.u").table_exists
    assert client.schemas.get("crypto_analytics.bronze").full_name == "crypto_analytics.bronze"
    with pytest.raises(NotFound):
        client.catalogs.get("other")
