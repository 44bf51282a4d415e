"""`adopt-log`: take a log that was cut as a new incarnation of its topic; a dry run unless --apply.

Belongs here: asking, showing, deciding. Does not belong here: finding where the log differs
(`assets.log_slices.adoption`), keeping the decision (`log.kafka.adoption`).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from crypto_assets.assets.log_slices.adoption import Fork, forks
from crypto_assets.cli import output
from crypto_assets.cli.up import running_broker
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import POLLS, RAW_PRICES
from crypto_assets.engine.engines import make_engine
from crypto_assets.home import existing_home
from crypto_assets.log.kafka import adoption, reading
from crypto_assets.log.kafka.client import client_config
from crypto_assets.settings import Settings


def run(settings: Settings, *, now: datetime, apply: bool, as_json: bool) -> int:
    """Compare both topics with what is stored of them and adopt what was cut; 0, as there is nothing to fail at.

    Raises:
        HomeError: There is no home.
        LogError: The log cannot be read.
        ValueError: The transport is not Kafka.
    """
    existing_home(settings)
    if settings.transport != "kafka":
        raise ValueError("landed files are known by their content and need no adoption; adopt-log is for Kafka")
    rows: list[dict[str, Any]] = []
    with running_broker(settings):
        for topic, table in ((settings.prices_topic, RAW_PRICES), (settings.polls_topic, POLLS)):
            rows += _adopt(settings, topic, table, now, apply=apply)
    if as_json:
        output.as_json(rows)
        return 0
    output.table("Adopted" if apply else "Adoption (dry run)", rows)
    if not rows:
        output.say("the log continues what is stored of it: there is nothing to adopt")
    elif apply:
        output.say("the next refresh stores these records as new incarnations: crypto-assets up, or a run in the UI")
    else:
        output.say("nothing was changed; do it with: crypto-assets adopt-log --apply")
    return 0


def _adopt(settings: Settings, topic: str, table: Table, now: datetime, *, apply: bool) -> list[dict[str, Any]]:
    """Rows to show: every Kafka partition of a topic that was cut; none of one that was not."""
    topic_id = reading.topic_id(client_config(settings), topic)
    incarnation = adoption.incarnation_of(settings, topic_id).id
    found = _forks(settings, topic, table, incarnation)
    if not any(fork.cut for fork in found):
        return []
    if apply:
        incarnation = adoption.adopt(settings, topic_id, {f.partition: f.start for f in found}, now).id
    else:
        incarnation = f"after {incarnation}"
    return [
        {
            "topic": topic,
            "incarnation": incarnation,
            **{name: value for name, value in asdict(f).items() if name != "start"},
            "adopted from": f.start,
            "records to store, at most": f.high - f.start,
        }
        for f in found
    ]


def _forks(settings: Settings, topic: str, table: Table, incarnation: str) -> list[Fork]:
    """Where each Kafka partition differs; in a workspace, whose tables cannot be read here, from its beginning."""
    retained = reading.end_offsets(settings, topic)
    if settings.on_databricks:
        # What is stored twice by that is the same quotes, which Silver removes.
        return [Fork(p, high + 1, low, high, low) for p, (low, high) in sorted(retained.items())]
    engine = make_engine(settings)
    return forks(engine, table, topic, incarnation, retained) if engine.store.exists(table.full_name) else []
