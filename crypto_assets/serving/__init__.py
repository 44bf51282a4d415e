"""What people and programs read of a home: the query catalogue and read-only SQL. No Dagster, no Spark, no MLflow."""
