"""Engines: a lazy Spark session plus a `TableStore`, and the shape of what a step takes and returns."""
