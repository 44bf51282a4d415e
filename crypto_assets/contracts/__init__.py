"""What is promised: messages, tables, columns, rules. Pure declarations and their renderings; no I/O, no Dagster, no Spark."""
