"""The datasets of the declarative pipeline: Bronze as a streaming table, Silver and Gold as materialized views.

Every view is a transform of `crypto_assets.transforms` over the whole of what lies before it, with the columns of its
contract and the expectations rendered from it. What the assets compute by slice is the same function of the same
rows, so both give the same tables. What the steps find out by reading tables first (how far Bronze reaches) is a scalar
subquery here, since a pipeline's functions only declare queries.

Belongs here: names, inputs and the wiring. Does not belong here: rows of Bronze (`bronze`), rules (`expectations`),
any computation (`transforms`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from crypto_assets.contracts.arrow import spark_schema
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.render import literal, quoted
from crypto_assets.contracts.slices import Slice
from crypto_assets.contracts.tables import DIM_COIN, LATEST_PRICES, QUARANTINE, SILVER_PRICES, TABLES
from crypto_assets.databricks.pipeline.bronze import RECORDS
from crypto_assets.databricks.pipeline.configuration import SCHEMA_SUFFIX, Configuration
from crypto_assets.databricks.pipeline.expectations import expected
from crypto_assets.transforms.bars import Width, bars
from crypto_assets.transforms.dim_coin import dim_coin
from crypto_assets.transforms.latest import latest_prices
from crypto_assets.transforms.parse import canonical_coin, parse_bronze, where_computed
from crypto_assets.transforms.silver import examined, history_points, silver

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

BARS: dict[str, Width] = {f"gold.bars_{width}": width for width in get_args(Width)}
DATASETS: tuple[Table, ...] = (
    RECORDS,
    SILVER_PRICES,
    QUARANTINE,
    *(TABLES[name] for name in BARS),
    LATEST_PRICES,
    DIM_COIN,
)
"""Contracts of all datasets, in the order in which they depend on each other."""

END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


def dataset_name(table: Table) -> str:
    """Name of a contract's dataset: its schema is `<schema>_sdp`."""
    return f"{table.schema}{SCHEMA_SUFFIX}.{table.name}"


def declare(dp: Any, spark: SparkSession, configuration: Configuration, stream: DataFrame) -> None:
    """Declare every dataset of `DATASETS` to the pipeline that is being read.

    Args:
        dp: The module `pyspark.pipelines`.
        spark: The pipeline's session.
        configuration: Configuration of the pipeline.
        stream: Rows of Bronze (`bronze.records`). They are made before, since making them needs Spark to analyse, and
            within a dataset's query it refuses to.
    """
    views = _Views(spark, configuration)
    _declare(dp, dp.table, RECORDS, lambda: stream)
    queries: dict[str, Callable[[], DataFrame]] = {
        SILVER_PRICES.full_name: views.prices,
        QUARANTINE.full_name: views.quarantine,
        **{name: views.bars(width) for name, width in BARS.items()},
        LATEST_PRICES.full_name: views.latest,
        DIM_COIN.full_name: views.coins,
    }
    for name, query in queries.items():
        _declare(dp, dp.materialized_view, TABLES[name], query)


def _declare(dp: Any, kind: Callable[..., Any], table: Table, query: Callable[[], DataFrame]) -> None:
    # As text, because a schema object makes columns of type `string collate UTF8_BINARY`, which other readers refuse.
    # Nulls are an expectation's business.
    schema = ", ".join(f"{quoted(c.name)} {c.type} COMMENT {literal(c.description)}" for c in table.columns)
    kind(name=dataset_name(table), comment=table.description, schema=schema)(expected(dp, table, query))


@dataclass(frozen=True)
class _Views:
    """The queries of the materialized views."""

    spark: SparkSession
    configuration: Configuration

    def prices(self) -> DataFrame:
        """`silver.prices`."""
        history = history_points(self._replies(), self.configuration.coins) if self.configuration.history else None
        return silver(self._parsed(), history, Slice(self.configuration.partitions_start, END_OF_TIME))

    def quarantine(self) -> DataFrame:
        """`silver.quarantine`."""
        from pyspark.sql import functions as F

        refused = where_computed(self._parsed(), ~F.col("is_valid"))
        return examined(refused).select(*QUARANTINE.column_names)

    def bars(self, width: Width) -> Callable[[], DataFrame]:
        """`gold.bars_<width>`."""
        return lambda: bars(self._read(SILVER_PRICES), width, self._covered_until())

    def latest(self) -> DataFrame:
        """`gold.latest_prices`, of the coins that are active."""
        from pyspark.sql import functions as F

        now = F.current_timestamp()
        active = canonical_coin(F.col("coin_id"), now, self.configuration.coins).isNotNull()
        return latest_prices(
            self._read(SILVER_PRICES).where(active), self._covered_until(), self._covered_offsets(), now
        )

    def coins(self) -> DataFrame:
        """`gold.dim_coin`."""
        return self.spark.createDataFrame(dim_coin(self.configuration.coins), spark_schema(DIM_COIN))  # type: ignore[arg-type]

    def _read(self, table: Table) -> DataFrame:
        return self.spark.read.table(dataset_name(table))

    def _replies(self) -> DataFrame:
        return self.spark.read.table(str(self.configuration.history))

    def _parsed(self) -> DataFrame:
        return parse_bronze(self._read(RECORDS), self.configuration.coins, self.configuration.partitions_start)

    def _covered_until(self) -> Column:
        """Highest broker timestamp of Bronze; without a record the newest time of fetching history."""
        from pyspark.sql import functions as F

        newest = self._read(RECORDS).agg(F.max("kafka_timestamp")).scalar()
        if not self.configuration.history:
            return newest
        return F.coalesce(newest, self._replies().agg(F.max("fetched_at")).scalar())

    def _covered_offsets(self) -> Column:
        """JSON object of end offsets by Kafka partition, of the incarnation that the newest record came from."""
        from pyspark.sql import functions as F

        ends = (
            self._read(RECORDS)
            .groupBy("topic_id", "partition")
            .agg((F.max("offset") + 1).alias("end"), F.max("kafka_timestamp").alias("until"))
        )
        by_partition = F.array_sort(F.collect_list(F.struct("partition", "end")))
        texts = F.transform(by_partition, lambda p: F.concat(F.lit('"'), p["partition"], F.lit('": '), p["end"]))
        offsets = F.concat(F.lit("{"), F.array_join(texts, ", "), F.lit("}")).alias("offsets")
        incarnations = ends.groupBy("topic_id").agg(offsets, F.max("until").alias("until"))
        return incarnations.agg(F.max_by("offsets", "until")).scalar()
