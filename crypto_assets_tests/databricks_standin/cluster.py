"""Clusters: what can be asked for, and what is running."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from crypto_assets_tests.databricks_standin.errors import absent, invalid
from crypto_assets_tests.databricks_standin.routes import Call, Routes

SPARK_VERSIONS = {
    "19.0.x-scala2.13": "19.0 (includes Apache Spark 4.2.0, Scala 2.13)",
    "18.0.x-scala2.13": "18.0 (includes Apache Spark 4.1.0, Scala 2.13)",
    "17.3.x-scala2.13": "17.3 LTS (includes Apache Spark 4.0.0, Scala 2.13)",
    "16.4.x-scala2.12": "16.4 LTS (includes Apache Spark 3.5.2, Scala 2.12)",
}
NODE_TYPES = {
    "m5d.large": (8192, 2.0),
    "m5d.xlarge": (16384, 4.0),
    "i3.xlarge": (31232, 4.0),
    "Standard_D4ds_v5": (16384, 4.0),
    "n2-highmem-4": (32768, 4.0),
}


def runtime_version(cluster: Mapping[str, Any]) -> str:
    """DATABRICKS_RUNTIME_VERSION of a cluster; serverless has one of its own kind."""
    return cluster["spark_version"].split(".x")[0] if cluster else "client.4.0"


class Clusters:
    """Job clusters, all-purpose clusters (`add`), policies and pools."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.pools: dict[str, dict[str, Any]] = {}
        self._next = itertools.count(1)

    def add(self, cluster_id: str, **spec: Any) -> str:
        """Have an all-purpose cluster; `spec` like `new_cluster`."""
        known = {"spark_version": "19.0.x-scala2.13", "data_security_mode": "SINGLE_USER", "state": "RUNNING"}
        self.known[cluster_id] = {"cluster_id": cluster_id, "cluster_name": cluster_id, **known, **spec}
        return cluster_id

    def launch(self, spec: Mapping[str, Any]) -> str | None:
        """Give a job cluster its id; serverless has none."""
        if not spec:
            return None
        number = next(self._next)
        return self.add(f"1124-0000{number:02d}-standin{number}", cluster_source="JOB", **spec)

    def register(self, routes: Routes) -> None:
        """Add the calls."""
        routes.add("GET", "clusters/get", lambda c: self._get(c.need("cluster_id")))
        routes.add("GET", "clusters/list", lambda _: {"clusters": list(self.known.values())})
        routes.add("GET", "clusters/spark-versions", self._versions)
        routes.add("GET", "clusters/list-node-types", self._node_types)
        routes.add("POST", "clusters/events", self._events)
        routes.add("GET", "policies/clusters/get", self._policy)
        routes.add("GET", "policies/clusters/list", lambda _: {"policies": list(self.policies.values())})
        routes.add("GET", "instance-pools/get", self._pool)
        routes.add("GET", "instance-pools/list", lambda _: {"instance_pools": list(self.pools.values())})

    def _get(self, cluster_id: str) -> dict[str, Any]:
        if cluster_id not in self.known:
            raise invalid(f"Cluster {cluster_id} does not exist")
        return self.known[cluster_id]

    @staticmethod
    def _versions(_: Call) -> dict[str, Any]:
        return {"versions": [{"key": k, "name": n} for k, n in SPARK_VERSIONS.items()]}

    @staticmethod
    def _node_types(_: Call) -> dict[str, Any]:
        rest = {"is_deprecated": False, "category": "General Purpose"}
        types = [
            {"node_type_id": n, "instance_type_id": n, "description": n, "memory_mb": m, "num_cores": c, **rest}
            for n, (m, c) in NODE_TYPES.items()
        ]
        return {"node_types": types}

    def _events(self, call: Call) -> dict[str, Any]:
        cluster_id = self._get(call.need("cluster_id"))["cluster_id"]
        kinds = ("CREATING", "RUNNING")
        events = [{"cluster_id": cluster_id, "timestamp": i, "type": k, "details": {}} for i, k in enumerate(kinds)]
        return {"events": events, "total_count": len(events)}

    def _policy(self, call: Call) -> dict[str, Any]:
        name = call.need("policy_id")
        if name not in self.policies:
            raise absent(f"Can't find a cluster policy with id: {name}.")
        return {"policy_id": name, "name": name, "definition": "{}", **self.policies[name]}

    def _pool(self, call: Call) -> dict[str, Any]:
        name = call.need("instance_pool_id")
        if name not in self.pools:
            raise absent(f"Can't find an instance pool with id: {name}.")
        return {"instance_pool_id": name, "instance_pool_name": name, "state": "ACTIVE", **self.pools[name]}

    def check(self, spec: Mapping[str, Any]) -> None:
        """Refuse a `new_cluster` that no workspace would start.

        Raises:
            ApiError: 400; says what is wrong.
        """
        version = spec.get("spark_version")
        if version not in SPARK_VERSIONS:
            raise invalid(f"Invalid spark version {version}.")
        node = spec.get("node_type_id")
        pool = spec.get("instance_pool_id")
        if pool and pool not in self.pools:
            raise invalid(f"Can't find an instance pool with id: {pool}.")
        if not pool and node not in NODE_TYPES:
            raise invalid(f"Node type {node} is not supported. Supported node types: {', '.join(NODE_TYPES)}")
        policy = spec.get("policy_id")
        if policy and policy not in self.policies:
            raise invalid(f"Can't find a cluster policy with id: {policy}.")
