"""Freshness of seconds: micro-batches from the log to Gold, with the transforms and writes of the steps."""
