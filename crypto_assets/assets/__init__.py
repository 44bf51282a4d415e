"""Asset bodies: `work(engine, partition_keys, inputs) -> Result`, one module per table family.

The same function runs inside a local Dagster step, a launched Databricks step or a Pipes run, so nothing here imports
Dagster, asks for the current time or reads the environment.
"""
