"""`broker start|stop|status`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from crypto_assets.cli import output
from crypto_assets.errors import UsageError
from crypto_assets.home import existing_home, open_home
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.log.kafka.topic import require_topics
from crypto_assets.settings import Settings


def _broker(settings: Settings, *, making: bool = False) -> EmbeddedBroker:
    if settings.kafka_bootstrap_servers:
        raise UsageError(
            f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers} names an external Kafka, which is not ours to "
            "start or stop; unset it to use the embedded broker"
        )
    home = (open_home if making else existing_home)(settings)
    return EmbeddedBroker(home.path, settings.kafka_port)


def start(settings: Settings, *, as_json: bool) -> None:
    """Start the broker and verify the topics."""
    status = _broker(settings, making=True).start(progress=(lambda _: None) if as_json else output.say)
    topics = require_topics(settings, datetime.now(UTC))
    if as_json:
        output.as_json({"bootstrap_servers": status.bootstrap_servers, "topics": [asdict(t) for t in topics]})
        return
    output.say(f"kafka {status.bootstrap_servers}")
    for t in topics:
        config = ", ".join(f"{k}={v}" for k, v in t.config.items())
        output.say(
            f"topic {t.topic} ({t.partitions} partitions, id {t.topic_id}): "
            f"{'; '.join(t.problems) or 'as it should be'}; {config}"
        )


def stop(settings: Settings) -> None:
    """Stop the broker."""
    output.say("stopped" if _broker(settings).stop() else "it was not running")


def status(settings: Settings, *, as_json: bool) -> int:
    """Print the broker's state; 0 when it runs, else 1."""
    found = _broker(settings).status()
    record = asdict(found)
    if as_json:
        output.as_json(record)
    else:
        output.table("Broker", [{"": k, "value": str(v)} for k, v in record.items()])
    return 0 if found.running else 1
