"""Dagster declarations of the tables, by subject."""
