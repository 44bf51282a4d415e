"""Dagster orchestration: the asset shell, jobs, schedules and sensors."""
