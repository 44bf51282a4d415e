"""The log: embedded broker, topics, publisher, offset boundaries, reads, and the poll loop that fills it."""
