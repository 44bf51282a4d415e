"""Java and pinned jars: what the embedded broker and JVM Spark run on.

Does not belong here: the broker (`log.kafka.broker`) or Spark (`engine.spark`).
"""
