"""Streaming with seconds of latency: micro-batches from the log to Gold, by the steps' transforms and writes."""
