"""Java and pinned jars for the embedded broker and JVM Spark.

Does not belong here: the broker (`log.kafka.broker`) or Spark (`engine.spark`).
"""
