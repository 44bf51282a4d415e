"""What state a home is in: measured, judged, reported. Reads tables, log and Dagster's storage, and changes none."""
