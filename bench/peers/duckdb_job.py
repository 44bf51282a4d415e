"""Bronze to Silver to bars by DuckDB: the queries of the product's own references."""

from __future__ import annotations

from bench.duckdb_queries import bars_query, connection, silver_query, write
from bench.peers.job import Order, perform


def silver(order: Order) -> None:
    """Typed quotes, the first of every coin and time."""
    target = order.folder("silver") / "rows.parquet"
    write(connection(order.cores), silver_query(order.start, order.end), target, [order.bronze])


def bars(order: Order) -> None:
    """OHLC, mean and deviation of five minutes."""
    given = [[str(order.folder("silver") / "rows.parquet")]]
    write(connection(order.cores), bars_query(), order.folder("bars") / "rows.parquet", given)


if __name__ == "__main__":
    perform(silver=silver, bars=bars)
