"""Configuration: the only module that reads the environment.

Our own names start with CRYPTO_ASSETS_; vendors' names (KAFKA_*, COINGECKO_*, MLFLOW_*, DATABRICKS_*,
ALERT_WEBHOOK_URL) keep their usual spelling. `.env.example` and `docs/settings.md` are rendered from the fields below.
Does not belong here: anything that opens a connection or a file of the lake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from crypto_assets.errors import UsageError
from crypto_assets.files import read_text
from crypto_assets.settings_api import ApiSettings
from crypto_assets.settings_databricks import LOOPBACK, DatabricksSettings, Secret
from crypto_assets.source_facts import REPLAY, SourceFacts, SourceName, facts_of, listed

Plan = Literal["keyless", "demo", "paid"]
Target = Literal["local", "spark", "databricks", "databricks-serverless"]

HOURLY_REFRESH_S = 3600
SHORTEST_WITH_NEW_CLUSTERS_S = 900
"""A cluster takes minutes to start: more frequent refreshes would spend their time starting clusters."""

OUTSIDE = (
    "lake_uri",
    "landing_path",
    "kafka_bootstrap_servers",
    "kafka_topic",
    "kafka_polls_topic",
    "mlflow_tracking_uri",
    "mlflow_registry_uri",
    "alert_webhook_url",
    "alert_channels",
    "alert_rules",
    "partitions_start",
)
"""Settings that two homes must not share: locations outside the home, and the first partition."""

CONNECT_TOKEN = re.compile(r";token=([^;]+)")
URL_PASSWORD = re.compile(r"//[^/@]*:([^/@]+)@")
"""Secrets embedded in addresses."""
CHANNEL = re.compile(r"([a-z][a-z0-9_]{0,39})=([a-z][a-z0-9+.-]*://\S+)")
"""An entry of `alert_channels`."""


def _absolute(path: Path) -> Path:
    """Absolute path, relative to the working folder; a leading `~` that no shell expanded is the user's home."""
    return (path.expanduser() if path.parts[:1] == ("~",) else path).absolute()


class Settings(ApiSettings, DatabricksSettings):
    """All configuration; times are UTC. Created by `load_settings`, in tests with keyword arguments."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,  # `NAME=` unsets a line of .env
        extra="ignore",
        populate_by_name=True,
        frozen=True,
        hide_input_in_errors=True,  # a validator over several fields would print all of them, secrets included
    )

    source: SourceName = Field(REPLAY.name, description=f"Price source: {listed()}. A home is bound to one.")
    home_path: Path | None = Field(
        None,
        validation_alias="CRYPTO_ASSETS_HOME",
        description="Folder of lake, broker, MLflow and Dagster storage. Default: ./.crypto_assets/<source>",
    )
    target: Target = Field(
        "local",
        description="Engine: local (Sail and delta-rs in process), spark (JVM Spark), databricks (launched steps), "
        "databricks-serverless (Pipes).",
    )
    spark_master: str = Field(
        "local[*]", description="Spark master of target spark, which runs in a local JVM (Java 17 or later)."
    )
    spark_remote: str | None = Field(
        None,
        repr=False,  # it may hold a token
        description="Spark Connect endpoint of target spark (sc://host:port) instead of a local JVM; needs Delta Lake, "
        "the Kafka source and access to the lake's folder.",
    )
    spark_catalog: str | None = Field(
        None, description="Catalog of the tables on target spark. Default: the session's own."
    )
    kafka_shaded: bool = Field(
        True,
        validation_alias="CRYPTO_ASSETS_KAFKA_SHADED",
        description="The cluster's Kafka classes have Databricks' prefix kafkashaded (matters with SASL).",
    )
    role: Literal["driver", "remote"] = Field(
        "driver", description="remote inside a launched step; set by the launcher."
    )
    transport: Literal["kafka", "landing"] = Field(
        "kafka", description="How records reach Bronze: kafka, or landing (JSON lines in a folder; needs no broker)."
    )
    landing_path: Path | None = Field(
        None,
        validation_alias="CRYPTO_ASSETS_LANDING",
        description="Folder or mounted volume of landed files, <topic>/<date>/<hour>/*.jsonl, as the steps see it. "
        "Default: <home>/landing",
    )
    partitions_start: date | None = Field(
        None,
        description="First UTC day with partitions; stored in the home at first use and fixed from then on. Default: "
        "the day before a live home's first use, 2024-01-01 in replay and simulator homes.",
    )
    catalog: str = Field("crypto_analytics", description="Catalog name on Databricks.")
    lake_uri: str | None = Field(
        None, validation_alias="CRYPTO_ASSETS_LAKE", description="Folder of the tables. Default: <home>/lake"
    )
    anomaly_budget: float = Field(
        1.0, gt=0, description="Target number of anomaly flags per coin and day; below 1 needs 28 days of calibration."
    )
    poll_interval_s: float = Field(10.0, ge=1, description="Producer poll interval in seconds.")
    start_timeout_s: float = Field(
        120.0,
        ge=1,
        description="Seconds allowed for Dagster to start in `up` and `ui` on an idle machine; scaled up with the load "
        "per processor.",
    )
    refresh_interval_s: int | None = Field(
        None,
        ge=0,
        le=3600,
        description="Seconds between refreshes of the hourly tables; 0 = after every poll, 3600 = hourly, by the "
        "schedule close_hour. Default: 0; 3600 on Databricks targets, where each refresh starts a dozen runs.",
    )
    replay_speed: float = Field(1.0, gt=0, description="Speed of replay and simulator clocks; 1 = real time.")
    simulator_seed: int = Field(7, description="Seed of the simulator.")
    automation: bool = Field(
        False, description="Start sensors and schedules with the daemon; set by `crypto-assets up`."
    )

    coingecko_api_key: Secret = Field(None, description="CoinGecko key; sent in a header, never in a URL.")
    coingecko_plan: Plan | None = Field(
        None, description="keyless, demo (10,000 credits per month) or paid. Default: demo with a key, keyless without."
    )
    coingecko_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("COINGECKO_BASE_URL", "COINGECKO_API_BASE"),
        description="Only the official hosts or a loopback stand-in are accepted. Default: the host of the plan.",
    )
    coingecko_monthly_credits: int | None = Field(None, ge=1, description="Overrides the plan's credits per month.")
    coingecko_calls_per_minute: int | None = Field(None, ge=1, description="Overrides the plan's calls per minute.")

    kafka_bootstrap_servers: str | None = Field(
        None,
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "CONFLUENT_BOOTSTRAP_SERVERS"),
        description="External Kafka as host:port[,host:port]. Default: the embedded broker of the home.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = Field(
        None,
        description="Security protocol of the external Kafka. Default: SASL_SSL with a SASL user name, else PLAINTEXT.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism of the external Kafka."
    )
    kafka_sasl_username: str | None = Field(
        None,
        validation_alias=AliasChoices("KAFKA_SASL_USERNAME", "CONFLUENT_API_KEY"),
        description="SASL user name, on Confluent Cloud the API key.",
    )
    kafka_sasl_password: Secret = Field(
        None,
        validation_alias=AliasChoices("KAFKA_SASL_PASSWORD", "CONFLUENT_API_SECRET"),
        description="SASL password, on Confluent Cloud the API secret.",
    )
    kafka_ssl_ca_location: str | None = Field(None, description="CA certificates of the external Kafka.")
    kafka_port: int = Field(
        0,
        ge=0,
        le=65535,
        validation_alias="CRYPTO_ASSETS_KAFKA_PORT",
        description="Port of the embedded broker; 0 = pick a free one at first start and reuse it.",
    )
    kafka_topic: str | None = Field(
        None,
        description="Topic of prices. Default: crypto-prices-raw live, crypto-prices-replay in replay and simulator "
        "homes.",
    )
    kafka_polls_topic: str | None = Field(None, description="Topic of polls. Default: crypto-polls[-replay].")
    kafka_partitions: int = Field(3, ge=1, description="Partitions per topic.")
    kafka_replication_factor: int = Field(1, ge=1, description="Replication factor of topics that are created.")

    mlflow_tracking_uri: str | None = Field(None, repr=False, description="Default: sqlite in the home.")
    mlflow_registry_uri: str | None = Field(None, repr=False, description="Default: the tracking URI.")
    alert_webhook_url: Secret = Field(None, description="Alerts are POSTed here as JSON; unset = table only.")
    alert_channels: Secret = Field(
        None,
        description="Further channels of market alerts, name=URL separated by blanks, with URLs of Apprise "
        "(phone=tgram://... mail=mailto://...); needs the extra notify.",
    )
    alert_rules: Path | None = Field(
        None, description="File with rules for market alerts. Default: <home>/alerts.yaml, if there is one"
    )

    def __init__(self, **given: Any) -> None:
        """Read the environment and `.env`.

        Raises:
            UnreadableFile: `.env` is not a UTF-8 text file.
            UsageError: Two names of one setting have different values; the message lists all such names.
            pydantic.ValidationError: Invalid values; the message names each field.
        """
        named = given.get("_env_file", self.model_config.get("env_file"))
        values: dict[str, str | None] = {}
        if isinstance(named, (str, Path)) and (dotenv := Path(named)).exists() and not dotenv.is_fifo():
            values = dotenv_values(stream=StringIO(read_text(dotenv)))
        if conflicts := _conflicts(type(self), {**values, **os.environ}):
            raise UsageError("; ".join(conflicts))
        super().__init__(**given)

    @field_validator("home_path", "landing_path", "alert_rules", mode="before")
    @classmethod
    def _empty_path_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("alert_channels", mode="after")
    @classmethod
    def _channels_have_names(cls, value: SecretStr | None) -> SecretStr | None:
        entries = value.get_secret_value().split() if value else []
        names = [found[1] for entry in entries if (found := CHANNEL.fullmatch(entry))]
        if len({*names, "webhook"}) <= len(entries):
            raise ValueError(
                "write name=URL separated by blanks, each name once, of lower-case letters, digits and _ and not "
                "webhook, which is ALERT_WEBHOOK_URL; a blank within a URL is %20"
            )
        return value

    @field_validator("spark_remote", mode="after")
    @classmethod
    def _a_connect_endpoint(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        try:
            at = urlsplit(value)
            good = at.scheme == "sc" and bool(at.hostname) and at.port != 0
        except ValueError:  # invalid port
            good = False
        if not good:
            raise ValueError("not a Spark Connect endpoint; use the form sc://host:port (port 15002 by default)")
        return value

    @model_validator(mode="after")
    def _short_refreshes_have_a_cluster(self) -> Settings:
        starts_clusters = not (self.databricks_cluster_id or self.databricks_instance_pool_id)
        if self.target == "databricks" and starts_clusters and self.refresh_every_s < SHORTEST_WITH_NEW_CLUSTERS_S:
            raise ValueError(
                f"CRYPTO_ASSETS_REFRESH_INTERVAL_S={self.refresh_interval_s} is below {SHORTEST_WITH_NEW_CLUSTERS_S}, "
                "and every step would start its own cluster. Set CRYPTO_ASSETS_DATABRICKS_CLUSTER_ID or "
                "CRYPTO_ASSETS_DATABRICKS_INSTANCE_POOL_ID, refresh less often, or run `crypto-assets stream` as a "
                "continuous job for freshness within seconds"
            )
        return self

    @property
    def refresh_every_s(self) -> int:
        """Effective refresh interval in seconds; 0 = after every poll, `HOURLY_REFRESH_S` = by schedule only."""
        if self.refresh_interval_s is not None:
            return self.refresh_interval_s
        return HOURLY_REFRESH_S if self.on_databricks else 0

    @property
    def home(self) -> Path:
        """Absolute path of the home folder."""
        return _absolute(self.home_path or Path(".crypto_assets") / self.source)

    @property
    def lake(self) -> str:
        """Root of the tables: `<lake>/<schema>/<table>`; absolute."""
        if self.lake_uri and "://" in self.lake_uri:
            return self.lake_uri
        return str(_absolute(Path(self.lake_uri)) if self.lake_uri else self.home / "lake")

    @property
    def landing(self) -> Path:
        """Absolute path of the landing folder, whatever the transport."""
        return _absolute(self.landing_path) if self.landing_path else self.home / "landing"

    def table_uri(self, table: str) -> str:
        """Location of a table: its folder, or its Unity Catalog name on Databricks."""
        if self.on_databricks:
            return f"{self.catalog}.{table}"
        return f"{self.lake}/{table.replace('.', '/')}"

    @property
    def plan(self) -> Plan:
        """Effective CoinGecko plan."""
        return self.coingecko_plan or ("demo" if self.coingecko_api_key else "keyless")

    @property
    def source_facts(self) -> SourceFacts:
        """Static facts about the source."""
        return facts_of(self.source)

    @property
    def is_live(self) -> bool:
        """True if records carry real time (the broker's LogAppendTime) rather than a virtual arrival."""
        return self.source_facts.live

    @property
    def security_protocol(self) -> str:
        """Effective security protocol of the external Kafka."""
        return self.kafka_security_protocol or ("SASL_SSL" if self.kafka_sasl_username else "PLAINTEXT")

    @property
    def prices_topic(self) -> str:
        """Kafka topic of price messages."""
        return self.kafka_topic or self.source_facts.prices_topic

    @property
    def polls_topic(self) -> str:
        """Kafka topic of poll messages."""
        return self.kafka_polls_topic or self.source_facts.polls_topic

    @property
    def tracking_uri(self) -> str:
        """Effective MLflow tracking URI."""
        if self.mlflow_tracking_uri:
            return self.mlflow_tracking_uri
        return "databricks" if self.on_databricks else f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def registry_uri(self) -> str:
        """Effective MLflow registry URI."""
        if self.mlflow_registry_uri:
            return self.mlflow_registry_uri
        return "databricks-uc" if self.tracking_uri == "databricks" else self.tracking_uri

    @property
    def channel_urls(self) -> dict[str, SecretStr]:
        """Addresses of the channels in `alert_channels`, by name."""
        entries = self.alert_channels.get_secret_value().split() if self.alert_channels else []
        return {found[1]: SecretStr(found[2]) for entry in entries if (found := CHANNEL.fullmatch(entry))}

    @property
    def alert_rules_file(self) -> Path:
        """Absolute path of the rules file, whether there is one or not."""
        return _absolute(self.alert_rules) if self.alert_rules else self.home / "alerts.yaml"

    @property
    def on_databricks(self) -> bool:
        """True if steps run in a Databricks workspace."""
        return self.target.startswith("databricks")

    @property
    def is_remote(self) -> bool:
        """True inside a launched step, which has neither a home nor workspace credentials."""
        return self.role == "remote"

    def apart(self, **changed: Any) -> Settings:
        """Copy of these settings for a separate home: everything in `OUTSIDE` is reset to its default."""
        return self.model_copy(update={**{name: type(self).model_fields[name].default for name in OUTSIDE}, **changed})

    def outside(self) -> list[str]:
        """Environment names of the `OUTSIDE` settings that are set."""
        return [self._named(name) for name in OUTSIDE if getattr(self, name)]

    @classmethod
    def _named(cls, field: str) -> str:
        """Preferred environment name of a field."""
        alias = cls.model_fields[field].validation_alias
        return str(alias.choices[0] if isinstance(alias, AliasChoices) else alias)

    def secrets(self) -> dict[str, str]:
        """Every secret in use by environment name, for redaction and log audits.

        Includes secrets embedded in addresses: a Spark Connect endpoint's `token`, the password of an MLflow URI.
        """
        values = {
            self._named(name): getattr(self, name) for name in type(self).model_fields if name != "alert_channels"
        }
        found = {name: v for name, v in values.items() if isinstance(v, SecretStr)}
        found |= {f"CRYPTO_ASSETS_ALERT_CHANNELS {name}": url for name, url in self.channel_urls.items()}
        held = {
            "CRYPTO_ASSETS_SPARK_REMOTE": CONNECT_TOKEN.search(self.spark_remote or ""),
            "MLFLOW_TRACKING_URI": URL_PASSWORD.search(self.mlflow_tracking_uri or ""),
            "MLFLOW_REGISTRY_URI": URL_PASSWORD.search(self.mlflow_registry_uri or ""),
        }
        return {name: secret.get_secret_value() for name, secret in found.items()} | {
            name: match[1] for name, match in held.items() if match
        }


def _conflicts(model: type[Settings], values: Mapping[str, str | None]) -> list[str]:
    """One message per setting whose names have different values; lists the names, not the values."""
    given = {name.upper(): value for name, value in values.items() if value}
    found = []
    for field in model.model_fields.values():
        names = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
        used = [str(name) for name in names if str(name) in given]
        if len({given[name] for name in used}) > 1:
            found.append(f"{' and '.join(used)} are names of one setting and have different values: unset all but one")
    return found


def reach_this_machine_directly() -> None:
    """Exempt loopback addresses from the environment's proxies, for this process and its children.

    HTTP and gRPC clients (requests, urllib, the engine's client, Dagster's code server, MLflow) read these variables on
    connecting. Without a proxy nothing changes: `no_proxy` alone would hide the proxies in macOS's system settings.
    """
    exceptions = ("no_proxy", "NO_PROXY")
    if not any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in os.environ):
        return
    known = next((os.environ[name] for name in exceptions if os.environ.get(name)), "")
    # If no_grpc_proxy is set, gRPC reads it instead of the other two.
    for name in (*exceptions, *(n for n in ("no_grpc_proxy",) if n in os.environ)):
        listed = [entry.strip() for entry in os.environ.get(name, known).split(",") if entry.strip()]
        os.environ[name] = ",".join([*listed, *(host for host in LOOPBACK if host not in listed)])


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Settings from the environment and `.env`, read once per process.

    Raises:
        pydantic.ValidationError: Invalid values; the message names each field.
    """
    reach_this_machine_directly()
    if os.environ.get("CRYPTO_ASSETS_ROLE") == "remote":  # a .env in a cluster's folder is not ours
        return Settings(_env_file=None)  # type: ignore[call-arg]
    return Settings()  # type: ignore[call-arg]


def environment() -> Mapping[str, str]:
    """The process environment, for `doctor` (misspelled names) and child processes."""
    return os.environ


def child_environment() -> dict[str, str]:
    """Environment for a child process that starts its own engine.

    PySpark sets variables once a session uses Spark Connect (as the embedded engine does); a child that inherits them
    cannot start a JVM session.
    """
    own = ("SPARK_CONNECT_MODE_ENABLED", "SPARK_LOCAL_REMOTE", "PYSPARK_REMOTE_INIT_CONF_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


ENGINE_SESSION_S = 30 * 24 * 3600


def prepare_embedded_engine() -> None:
    """Configure the embedded engine through its environment variables; call before importing it.

    It logs errors only, unless RUST_LOG is set. Sessions live as long as the process: by default Sail drops idle ones
    after some minutes, and a step would fail after a long training.
    """
    reach_this_machine_directly()
    os.environ.setdefault("RUST_LOG", "error")
    os.environ.setdefault("SAIL_SPARK__SESSION_TIMEOUT_SECS", str(ENGINE_SESSION_S))


def make_connect_columns() -> None:
    """Let PySpark's functions make columns of Spark Connect, as it does by itself for a session made from an address.

    Call it only where the embedded engine starts: a JVM session can then no longer be started in this process.
    """
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"


def export_dagster_home(folder: Path) -> None:
    """Set DAGSTER_HOME, which `dagster.yaml` refers to, for this process and its children."""
    os.environ["DAGSTER_HOME"] = str(folder)


@contextmanager
def environment_with(name: str, value: str) -> Iterator[None]:
    """Set an environment variable within the context, for this process and children started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def adopt_environment(values: Mapping[str, str]) -> None:
    """Apply variables that libraries read, or that were shipped with a serverless step (before settings are loaded)."""
    os.environ.update(values)
