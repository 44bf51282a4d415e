"""Settings that depend on one another."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from crypto_assets.settings import Settings


@pytest.mark.parametrize(
    ("target", "given", "seconds"),
    [
        ("local", {}, 0),
        ("spark", {}, 0),
        ("databricks", {}, 3600),
        ("databricks-serverless", {}, 3600),
        ("databricks", {"refresh_interval_s": 900}, 900),
        ("databricks", {"refresh_interval_s": 60, "databricks_cluster_id": "0101-a"}, 60),
        ("databricks", {"refresh_interval_s": 60, "databricks_instance_pool_id": "pool"}, 60),
        ("databricks-serverless", {"refresh_interval_s": 60}, 60),
    ],
)
def test_how_often_tables_are_refreshed(target, given, seconds):
    assert Settings(target=target, **given).refresh_every_s == seconds


def test_a_new_cluster_every_few_minutes_is_refused_with_the_ways_out():
    with pytest.raises(ValidationError) as refused:
        Settings(target="databricks", refresh_interval_s=300)
    for named in ("REFRESH_INTERVAL_S=300", "900", "CLUSTER_ID", "INSTANCE_POOL_ID", "crypto-assets stream"):
        assert named in str(refused.value)
