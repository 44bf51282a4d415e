"""Configuration of the declarative pipeline: keys, and validation of their values.

A pipeline has no environment: it is configured by `spark.conf`, so its settings are read from there and
from nowhere else. Does not belong here: which datasets there are (`datasets`), how the bundle fills the keys in
(`deploy/databricks.yml`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TypeVar

from crypto_assets.errors import UsageError
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.source_facts import COINGECKO, every_source, listed

T = TypeVar("T")

PREFIX = "crypto_assets."
SCHEMA_SUFFIX = "_sdp"
"""After the name of a schema: the pipeline's tables lie beside the assets' and never in their place."""

KEYS: Mapping[str, str] = {
    "package": "Folder that holds this package, where it is not installed.",
    "source": f"Source of the home ({listed()}): its built-in coins are taken when `coins` is empty.",
    "coins": "A coins.toml as `crypto-assets coins` writes it; empty = the built-in coins of the data mode.",
    "partitions_start": "First day that has partitions (ISO 8601, UTC).",
    "topic": "Kafka topic of prices.",
    "topic_id": "Incarnation of the topic. Empty = the topic's name; give another after re-creating the topic.",
    "kafka_bootstrap_servers": "Kafka as host:port[,host:port].",
    "kafka_security_protocol": "PLAINTEXT (default), SSL, SASL_PLAINTEXT or SASL_SSL.",
    "kafka_sasl_mechanism": "PLAIN (default), SCRAM-SHA-256 or SCRAM-SHA-512.",
    "kafka_sasl_username": "SASL user name.",
    "kafka_sasl_password_at": "Where the workspace keeps the SASL password: <scope>/<key>. Never the password.",
    "history": "Table of history replies with the columns of bronze.market_history; empty = no history.",
}
"""Keys by their name after `PREFIX`."""


class ConfigurationError(UsageError):
    """The pipeline cannot be declared as configured; the message names every key and what it must hold."""


@dataclass(frozen=True)
class Configuration:
    """Inputs of the datasets.

    Args:
        topic: Kafka topic of prices.
        topic_id: Its incarnation.
        partitions_start: Start of the first partition (UTC).
        coins: The coins, with when each is active.
        kafka: Options of the Kafka client in librdkafka's names, without the password.
        password_at: Scope and key of the SASL password in the workspace; None = no password is needed.
        history: Table of history replies; None = there is none.
    """

    topic: str
    topic_id: str
    partitions_start: datetime
    coins: CoinRegistry
    kafka: Mapping[str, str]
    password_at: tuple[str, str] | None = None
    history: str | None = None


def read(get: Callable[[str, str], str | None]) -> Configuration:
    """The configuration of a pipeline.

    Args:
        get: Value of a key, or the default given with it: `spark.conf.get`.

    Raises:
        ConfigurationError: Keys are missing or malformed; all of them are named.
    """
    values = {key: (get(PREFIX + key, "") or "").strip() for key in KEYS}
    problems = [f"{PREFIX}{key} is not set: {KEYS[key]}" for key in ("topic", "kafka_bootstrap_servers") if
                not values[key]]  # fmt: skip
    start = _collect(problems, "partitions_start", lambda: date.fromisoformat(values["partitions_start"]))
    coins = _collect(problems, "coins", lambda: _coins(values["coins"], values["source"]))
    kafka = {"bootstrap.servers": values["kafka_bootstrap_servers"]}
    if values["kafka_security_protocol"]:
        kafka["security.protocol"] = values["kafka_security_protocol"]
    secret = _collect(problems, "kafka_sasl_password_at", lambda: _secret(values["kafka_sasl_password_at"]))
    if values["kafka_security_protocol"].startswith("SASL"):
        kafka["sasl.mechanism"] = values["kafka_sasl_mechanism"] or "PLAIN"
        kafka["sasl.username"] = values["kafka_sasl_username"]
        problems += [
            f"{PREFIX}{key} is not set, and {values['kafka_security_protocol']} needs it: {KEYS[key]}"
            for key in ("kafka_sasl_username", "kafka_sasl_password_at")
            if not values[key]
        ]
    if problems or start is None or coins is None:
        raise ConfigurationError(f"the pipeline's configuration has {len(problems)} problem(s): {'; '.join(problems)}")
    return Configuration(
        topic=values["topic"],
        topic_id=values["topic_id"] or values["topic"],
        partitions_start=datetime.combine(start, time(), UTC),
        coins=coins,
        kafka=kafka,
        password_at=secret,
        history=values["history"] or None,
    )


def _collect(problems: list[str], key: str, make: Callable[[], T]) -> T | None:
    """Result of `make`, or None with the problem recorded."""
    try:
        return make()
    except (OSError, ValueError) as error:
        problems.append(f"{PREFIX}{key}: {error} ({KEYS[key]})")
        return None


def _coins(path: str, source: str) -> CoinRegistry:
    if path:
        return CoinRegistry.from_toml(Path(path).read_text(encoding="utf-8"))
    if source and source not in {facts.name for facts in every_source()}:
        raise ValueError(f"{source!r} is not a source")
    return default_registry(source or COINGECKO.name)


def _secret(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    scope, slash, key = text.partition("/")
    if not (scope and slash and key):
        raise ValueError("it is not <scope>/<key>")
    return scope, key
