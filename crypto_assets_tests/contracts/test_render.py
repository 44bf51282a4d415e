"""Rendered texts are current, complete, and accepted by what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from crypto_assets.assets.card import upstream
from crypto_assets.contracts import render
from crypto_assets.contracts.messages import QUARANTINE_REASONS
from crypto_assets.contracts.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]


def test_the_data_dictionary_says_everything():
    text = render.data_dictionary(upstream)
    for table in TABLES.values():
        assert f"\n## {table.full_name}\n" in text
        section = text.split(f"\n## {table.full_name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"| `{column.name}` | {column.type} | {'yes' if column.nullable else 'no'} |" in section
        for rule in table.rules:
            assert f"| `{rule.name}` |" in section
    for reason in QUARANTINE_REASONS:
        assert f"`{reason}`" in text


def test_links_of_the_data_dictionary_lead_somewhere():
    text = render.data_dictionary(upstream)
    headings = {line.lstrip("# ") for line in text.splitlines() if line.startswith("#")}
    anchors = {h.lower().replace(" ", "-").replace(".", "") for h in headings}
    linked = {part.split(")")[0] for part in text.split("](#")[1:]}
    assert linked
    assert linked <= anchors


@pytest.mark.parametrize("name", ["crypto-prices-raw-v1", "crypto-polls-v1"])
def test_message_schemas_are_valid_json_schema(name):
    jsonschema.Draft202012Validator.check_schema(json.loads(render.json_schema(name)))


@pytest.mark.parametrize("name", TABLES)
def test_ddl_creates_the_table_that_the_contract_says(name, spark, tmp_path):
    table = TABLES[name]
    temporary = f"ddl_{table.schema}_{table.name}"
    spark.sql(render.create_table(table, temporary, str(tmp_path / "t")))
    try:
        described = spark.table(temporary).schema
    finally:
        spark.sql(f"DROP TABLE {temporary}")
    assert [(f.name, f.dataType.simpleString()) for f in described.fields] == [(c.name, c.type) for c in table.columns]


def test_ddl_carries_comments_keys_of_partitioning_and_properties():
    text = render.create_table(TABLES["bronze.raw_prices"], "crypto_analytics.bronze.raw_prices")
    assert text.startswith("CREATE TABLE IF NOT EXISTS `crypto_analytics`.`bronze`.`raw_prices` (")
    assert "`offset` BIGINT NOT NULL COMMENT 'Kafka offset; first missing offset if kind = gap.'" in text
    assert "COMMENT 'First offset of the commit\\'s range.'" in text
    assert "PARTITIONED BY (`arrival_hour`)" in text
    assert "'delta.isolationLevel' = 'Serializable'" in text
    assert (
        "'delta.dataSkippingStatsColumns' = 'partition,offset,kafka_timestamp,event_hour,range_start,range_end'" in text
    )
    assert "setTransactionRetentionDuration" not in text
    assert "LOCATION" not in text


def test_lineage_markdown_lists_columns_with_upstream_only():
    assert "| price_usd | `silver.prices.price_usd` |" in render.lineage_markdown(TABLES["gold.latest_prices"])
    assert "refreshed_at" not in render.lineage_markdown(TABLES["gold.latest_prices"])


def test_lineage_markdown_names_a_table_once():
    text = render.lineage_markdown(TABLES["gold.prediction_accuracy"])
    assert "| coverage_90 | `gold.price_predictions.{lower_90, upper_90}`, `gold.bars_5m.close` |" in text
