"""Engines: a lazy Spark session plus a `DeltaStore`, and the inputs and results of steps."""
