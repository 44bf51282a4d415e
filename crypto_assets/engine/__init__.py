"""Engines: a lazy Spark session plus a `DeltaStore`, and the shape of what a step takes and returns."""
