"""The query catalogue and the exported metrics as files for SQL editors, dashboards and alerting.

Belongs here: one module per product (`sql`, `lakeview`, `alerts_v2` for Databricks; `prometheus`, `grafana`). Does not
belong here: queries (`serving.queries`), exported metrics (`serving.metrics`), the bundle (`databricks.deploy`).
"""
