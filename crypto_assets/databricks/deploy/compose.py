"""Docker compose and what its containers read: Kafka, Postgres, MLflow, code server, webserver, daemon.

Belongs here: the composition, `deploy/dagster.yaml`, `deploy/workspace.yaml` and `deploy/.env.example`. Does not belong
here: the image (`deploy/Dockerfile`, written by hand) or any secret: they come from `deploy/.env`.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from crypto_assets.databricks.deploy.names import secrets
from crypto_assets.databricks.deploy.yaml_text import to_yaml
from crypto_assets.settings import Settings
from crypto_assets.settings_docs import documented

PATH = "deploy/compose.yaml"
DAGSTER = "deploy/dagster.yaml"
WORKSPACE = "deploy/workspace.yaml"
ENV_EXAMPLE = "deploy/.env.example"

KAFKA_IMAGE = "apache/kafka:4.1.0@sha256:bff074a5d0051dbc0bbbcd25b045bb1fe84833ec0d3c7c965d1797dd289ec88f"
POSTGRES_IMAGE = "postgres:17.5-bookworm@sha256:fbcea1bd13b6a882cd6caa6b58db3ae5c102efe50ec625b3e2a5cbc50db5bfe4"
CODE_PORT = 4000
LISTENERS = "INTERNAL://:9092,CONTROLLER://:9093,HOST://:19092"
PROTOCOLS = "INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT"

HEADER = """Everything on one host. Rendered by `python -m crypto_assets.databricks.deploy`; do not edit by hand.
    cp deploy/.env.example deploy/.env, set POSTGRES_PASSWORD, then: docker compose -f deploy/compose.yaml up -d --wait
Ports are bound to this host only: put your own proxy with sign-in before the webserver."""

COMMENTS = {
    "services.kafka": "One broker for one host. For more, set KAFKA_BOOTSTRAP_SERVERS in .env to your own Kafka.",
    "services.code": "Evaluates sensors and runs the steps; the only one with secrets of the product.",
    "services.webserver": "Shows; it needs the database and the code server.",
    "services.daemon": "Exactly one: it starts runs, sensors and schedules.",
}


def _environment() -> dict[str, str]:
    return {
        "CRYPTO_ASSETS_HOME": "/data",
        "CRYPTO_ASSETS_SOURCE": "${CRYPTO_ASSETS_SOURCE:-coingecko}",
        "CRYPTO_ASSETS_AUTOMATION": "true",
        "KAFKA_BOOTSTRAP_SERVERS": "${KAFKA_BOOTSTRAP_SERVERS:-kafka:9092}",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }


# The driver is named: SQLAlchemy 2.1 takes psycopg 3 for a bare postgresql://, which nothing here installs.
_DATABASE = "postgresql+psycopg2://dagster:${POSTGRES_PASSWORD:?set it in deploy/.env}@postgres:5432"


def _check(*command: str, start: str = "30s") -> dict[str, Any]:
    return {"test": ["CMD", *command], "interval": "10s", "timeout": "10s", "retries": 12, "start_period": start}


def _python_check(code: str) -> dict[str, Any]:
    return _check("python", "-c", code)


def _app(command: list[str], environment: dict[str, str], needs: list[str], check: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": "crypto-assets:${CRYPTO_ASSETS_IMAGE_TAG:-local}",
        "build": {"context": "..", "dockerfile": "deploy/Dockerfile"},
        "command": command,
        "environment": environment,
        "depends_on": {name: {"condition": "service_healthy"} for name in needs},
        "healthcheck": check,
        "restart": "unless-stopped",
        "init": True,
        "security_opt": ["no-new-privileges:true"],
    }


def _kafka() -> dict[str, Any]:
    return {
        "image": KAFKA_IMAGE,
        "environment": {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": LISTENERS,
            "KAFKA_ADVERTISED_LISTENERS": "INTERNAL://kafka:9092,HOST://localhost:19092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": PROTOCOLS,
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
        },
        "ports": ["127.0.0.1:19092:19092"],
        "volumes": ["kafka:/var/lib/kafka/data"],
        "healthcheck": _check("/opt/kafka/bin/kafka-broker-api-versions.sh", "--bootstrap-server", "localhost:9092"),
        "restart": "unless-stopped",
    }


def _postgres() -> dict[str, Any]:
    return {
        "image": POSTGRES_IMAGE,
        "environment": {
            "POSTGRES_USER": "dagster",
            "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:?set it in deploy/.env}",
            "POSTGRES_DB": "dagster",
        },
        "volumes": [
            "postgres:/var/lib/postgresql/data",
            "./postgres/mlflow.sql:/docker-entrypoint-initdb.d/mlflow.sql:ro",
        ],
        "healthcheck": _check("pg_isready", "-U", "dagster", "-d", "mlflow"),
        "restart": "unless-stopped",
    }


def document() -> dict[str, Any]:
    """The whole composition."""
    storage = {"DAGSTER_POSTGRES_URL": f"{_DATABASE}/dagster"}
    http = "import urllib.request as u; u.urlopen('http://localhost:{}', timeout=5)"
    module = "crypto_assets.definitions"
    code = _app(
        ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", str(CODE_PORT), "-m", module],  # noqa: S104
        {**storage, **_environment()},
        ["postgres", "kafka", "mlflow"],
        _check("dagster", "api", "grpc-health-check", "-p", str(CODE_PORT), start="90s"),
    )
    code["env_file"] = [{"path": ".env", "required": False}]
    code["volumes"] = ["data:/data"]
    mlflow = _app(
        ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"],  # noqa: S104
        {
            "MLFLOW_BACKEND_STORE_URI": f"{_DATABASE}/mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": "/data/mlflow",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow:5000,localhost:5000",
            # Its job runners are seven processes that ask for work all the time; nothing here gives them any.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        ["postgres"],
        _python_check(http.format("5000/health")),
    )
    mlflow |= {"ports": ["127.0.0.1:5000:5000"], "volumes": ["data:/data"]}
    serve = ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "/opt/dagster/workspace.yaml"]  # noqa: S104
    webserver = _app(serve, storage, ["postgres", "code"], _python_check(http.format("3000/server_info")))
    webserver["ports"] = ["127.0.0.1:3000:3000"]
    daemon = _app(
        ["dagster-daemon", "run", "-w", "/opt/dagster/workspace.yaml"],
        storage,
        ["postgres", "code"],
        _check("dagster-daemon", "liveness-check", start="60s"),
    )
    return {
        "name": "crypto-assets",
        "services": {
            "kafka": _kafka(), "postgres": _postgres(), "mlflow": mlflow, "code": code, "webserver": webserver,
            "daemon": daemon,
        },
        "volumes": {"kafka": None, "postgres": None, "data": None},
    }  # fmt: skip


def text() -> str:
    """`compose.yaml`."""
    return to_yaml(document(), HEADER, COMMENTS)


def dagster_yaml() -> str:
    """The packaged `dagster.yaml` with Postgres as storage; all else is the same."""
    packaged = (resources.files("crypto_assets.orchestration") / "dagster.yaml").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\n)", packaged)
    kept = [b.strip("\n") for b in blocks if b.strip() and "event_log_storage:" not in b]
    kept[0] = (
        "# Dagster instance of the compose deployment: the packaged dagster.yaml with Postgres as storage.\n"
        "# Rendered by `python -m crypto_assets.databricks.deploy`; do not edit by hand.\n\n"
        "storage:\n  postgres:\n    postgres_url: {env: DAGSTER_POSTGRES_URL}"
    )
    return "\n\n".join(kept) + "\n"


def workspace_yaml() -> str:
    """Where webserver and daemon find the definitions."""
    server = {"host": "code", "port": CODE_PORT, "location_name": "crypto_assets"}
    return to_yaml(
        {"load_from": [{"grpc_server": server}]}, "Rendered by `python -m crypto_assets.databricks.deploy`.", {}
    )


def env_example() -> str:
    """What a person sets: the database's password, every secret, and how to set anything else."""
    described = {s.names[0]: s.description for s in documented(Settings)}
    lines = [
        "# Copy to deploy/.env. Rendered by `python -m crypto_assets.databricks.deploy`.",
        "# Any variable of docs/settings.md may be added; the code server reads this file.",
        "",
        "# Password of the database; letters and digits only, it becomes part of an address.",
        "POSTGRES_PASSWORD=",
        "",
    ]
    for name in secrets():
        lines += [f"# {described[name]}", f"# {name}=", ""]
    return "\n".join(lines).rstrip() + "\n"
