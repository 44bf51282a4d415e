"""Kafka to Delta by Pathway; to JSON lines without a licence key, which its Delta connector asks for."""

from __future__ import annotations

import os
import uuid

import pathway as pw

from bench.peers.job import Order, perform


def bronze(order: Order) -> None:
    """All records with key and value, until the end that the topic had at the start."""
    settings = {
        "bootstrap.servers": order.servers,
        "group.id": f"bench-{uuid.uuid4().hex[:8]}",
        "auto.offset.reset": "earliest",
    }
    records = pw.io.kafka.read(settings, topic=order.topic, format="plaintext", mode="static")
    if os.environ.get("PATHWAY_LICENSE_KEY"):
        pw.io.deltalake.write(records, str(order.folder("bronze")), min_commit_frequency=None)
    else:
        pw.io.jsonlines.write(records, str(order.folder("bronze") / "rows.jsonl"))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    perform(bronze=bronze)
