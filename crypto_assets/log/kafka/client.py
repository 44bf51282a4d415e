"""Configuration of Kafka clients: which broker, how to authenticate, and what may be shown of it.

Does not belong here: creating clients for a purpose (`topic`, `publisher`, `log`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka.broker import EmbeddedBroker, bootstrap_of
from crypto_assets.settings import Settings

START_HINT = "start it: crypto-assets broker start"


def client_config(settings: Settings) -> dict[str, Any]:
    """Options of librdkafka common to every client of the log: bootstrap servers, security, time-outs.

    The result holds the SASL password, so it must not be logged or stored.

    Raises:
        LogUnavailable: No external Kafka is set and the home's embedded broker does not run, or SASL is asked for
            without user name and password.
    """
    if settings.kafka_bootstrap_servers:
        return _quiet() | _external(settings)
    status = EmbeddedBroker(settings.home).status()
    if not status.running:
        before = f"the embedded broker of {settings.home} is not running"
        if bootstrap_of(settings.home) is None:
            before = f"no Kafka: KAFKA_BOOTSTRAP_SERVERS is not set and {settings.home} has no embedded broker yet"
        raise LogUnavailable(f"{before}; {START_HINT}, or set KAFKA_BOOTSTRAP_SERVERS to use another Kafka")
    return _quiet() | {"bootstrap.servers": status.bootstrap_servers}


def _quiet() -> dict[str, Any]:
    """Options that make failures arrive as errors of our calls rather than as lines on stderr."""
    return {
        "client.id": "crypto-assets",
        "log_level": 0,
        "socket.keepalive.enable": True,
        "socket.connection.setup.timeout.ms": 5000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
    }


def _external(settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.security_protocol,
    }
    if settings.kafka_ssl_ca_location:
        config["ssl.ca.location"] = settings.kafka_ssl_ca_location
    if settings.security_protocol.startswith("SASL"):
        missing = []
        if not settings.kafka_sasl_username:
            missing.append("KAFKA_SASL_USERNAME (or CONFLUENT_API_KEY)")
        if settings.kafka_sasl_password is None:
            missing.append("KAFKA_SASL_PASSWORD (or CONFLUENT_API_SECRET)")
        if missing or settings.kafka_sasl_password is None:
            raise LogUnavailable(
                f"KAFKA_SECURITY_PROTOCOL={settings.security_protocol} needs credentials; set {' and '.join(missing)}"
            )
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        }
    return config


def unavailable(config: Mapping[str, Any], what: str, error: object) -> LogUnavailable:
    """The error for an answer that did not come or that the broker refused.

    Args:
        config: Client options; only the bootstrap servers are named.
        what: What was asked for, as a noun phrase.
        error: Error of librdkafka.
    """
    message = str(error).strip() or "no reason given"
    return LogUnavailable(
        f"Kafka at {config.get('bootstrap.servers')} gave no usable answer to {what}: {message}. If it is the home's "
        f"embedded broker, {START_HINT}; otherwise check KAFKA_BOOTSTRAP_SERVERS and its SASL settings "
        "(crypto-assets doctor)"
    )
