"""Table logic: `DataFrame -> DataFrame` functions on the PySpark API, the same on every engine. No I/O, no clock."""
