"""The step launcher: one Databricks run per step."""
