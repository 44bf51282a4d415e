-- Run once by Postgres when its volume is empty: MLflow keeps its tables apart from Dagster's.
CREATE DATABASE mlflow;
