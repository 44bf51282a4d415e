"""Quotes of ten coins at a steady rate, from a separate process, so that its processor time is measured apart.

Belongs here: producing live records with their true times. Does not belong here: what reads them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

TICKS = 10
"""Bursts a second that make up the rate."""
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("schema_version", b"1"),
    ("source", b"simulator"),
    ("cadence_s", b"1.0"),
    ("poll_id", b"drill"),
]


@dataclass(frozen=True)
class Fed:
    """What was produced.

    Args:
        sent: Records handed over and confirmed, or listed in `errors`.
        late_s: Most seconds that a burst was late.
        errors: Records that were not delivered.
        cpu_s: Processor time of the producing process, its start excluded.
    """

    sent: int
    late_s: float
    errors: list[str]
    cpu_s: float


class Feed:
    """A producing process; it begins at once.

    Args:
        settings: Settings of the home: broker and topic.
        rate: Records a second; a multiple of a hundred.
    """

    def __init__(self, settings: Settings, rate: int) -> None:
        command = [sys.executable, "-m", "bench.feed", str(settings.kafka_bootstrap_servers), settings.prices_topic]
        self._process = subprocess.Popen(
            [*command, str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def stop(self) -> Fed:
        """End it after its last burst, wait for every confirmation; what was produced."""
        out, _ = self._process.communicate("\n", timeout=90)
        return Fed(**json.loads(out))

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()


def produce(servers: str, topic: str, rate: int, enough: threading.Event) -> Fed:
    """Ten times a second a tenth of the rate; quotes of a coin are distinct milliseconds apart."""
    from confluent_kafka import Producer

    from bench.messages import COINS

    client = Producer(
        {"bootstrap.servers": servers, "acks": "all", "linger.ms": 20, "compression.type": "lz4", "log_level": 0}
    )
    chance, keys = random.Random(5), [(c.coin_id.encode(), template(c)) for c in COINS]
    errors: list[str] = []

    def confirmed(error: object, _message: object) -> None:
        if error is not None:
            errors.append(str(error))

    burst = max(len(keys), rate // TICKS)
    sent, late_s, began, spent = 0, 0.0, time.time(), time.process_time()
    for tick in range(sys.maxsize):
        due = began + tick / TICKS
        late_s = max(late_s, time.time() - due)
        if enough.wait(max(0.0, due - time.time())):
            break
        now_ms = int(time.time() * 1000)
        for i in range(burst):
            coin, pattern = keys[i % len(keys)]
            # A burst of 100 ms holds burst / 10 quotes of each coin.
            stamp = rfc3339_ms(int(due * 1000) + (i // len(keys)) * 1000 // TICKS * len(keys) // burst)
            value = pattern % (chance.uniform(90, 110), stamp, stamp)
            client.produce(topic, value.encode(), coin, headers=HEADERS, on_delivery=confirmed, timestamp=now_ms)
        sent += burst
        client.poll(0)
    left = client.flush(60)
    if left:
        errors.append(f"{left} records were not delivered")
    return Fed(sent, late_s, errors, time.process_time() - spent)


def template(coin: Any) -> str:
    """A message of a coin, with places for its price and its two times."""
    return (
        f'{{"coin_id":"{coin.coin_id}","symbol":"{coin.symbol}","name":"{coin.name}","price_usd":"%.4f",'
        '"market_cap_usd":"1000000.00","volume_24h_usd":"5000.00","change_1h_pct":"0.1","change_24h_pct":"0.2",'
        '"change_7d_pct":"0.3","last_updated_at":"%s","ingestion_timestamp":"%s"}'
    )


def rfc3339_ms(milliseconds: int) -> str:
    """RFC 3339 text of milliseconds since 1970."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def main() -> None:
    """`python -m bench.feed SERVERS TOPIC RATE`: until standard input ends."""
    enough = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        enough.set()

    threading.Thread(target=wait, daemon=True).start()
    fed = produce(sys.argv[1], sys.argv[2], int(sys.argv[3]), enough)
    print(json.dumps(fed.__dict__))


if __name__ == "__main__":
    main()
