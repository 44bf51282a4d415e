"""Models: training, evaluation, promotion, scoring. No Dagster, no clock."""
