"""Data contracts: messages, tables, columns, rules. Pure declarations and renderings: no I/O, Dagster or Spark."""
