"""Table logic: functions DataFrame -> DataFrame on the PySpark API, the same on every engine. No I/O, no clock."""
