"""The log that records arrive in: Kafka topics, or folders of JSON lines."""
