"""What state a home is in: measured, judged, reported. Reads tables, log and Dagster's storage; changes none of them."""
