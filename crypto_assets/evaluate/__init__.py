"""Evaluation of the models on any bars: walk-forward by day, as trained and scored in service. No Dagster, no clock."""
