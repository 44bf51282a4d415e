"""Builds step inputs on the driver: offset bounds, coins, cut-offs. Light, without secrets, the same for every engine.

Belongs here: building `StepInputs` from settings, home and log, and handing them to remote steps. Does not belong here:
what a step does with them, or how they travel (`step_launcher`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from crypto_assets.contracts.slices import key_slice
from crypto_assets.engine.base import StepFailed, StepInputs
from crypto_assets.home import Home, open_home
from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka import reading
from crypto_assets.ml import places
from crypto_assets.settings import Settings
from crypto_assets.storage.base import LogBounds

MOST_BYTES = 64 * 1024
"""Maximum size of shipped inputs as JSON."""


@dataclass(frozen=True)
class Shipment:
    """Inputs shipped to a remote step, with the run and partitions they belong to."""

    run_id: str
    keys: tuple[str | None, ...]
    inputs: StepInputs

    def to_json(self) -> str:
        """Text of at most `MOST_BYTES` bytes of UTF-8.

        Raises:
            StepFailed: It would be longer.
        """
        inside = self.inputs.to_json()
        text = json.dumps({"run_id": self.run_id, "keys": self.keys}, separators=(",", ":"))
        text = f'{text[:-1]},"inputs":{inside}}}'
        size = len(text.encode())
        if size > MOST_BYTES:
            raise StepFailed(
                f"the inputs of this step are {size:,} bytes of JSON and at most {MOST_BYTES:,} are shipped "
                f"({len(self.keys)} partitions, {len(self.inputs.coins)} coins); take a shorter range"
            )
        return text

    @classmethod
    def from_json(cls, text: str) -> Shipment:
        """Rebuild from `to_json`."""
        raw = json.loads(text)
        return cls(raw["run_id"], tuple(raw["keys"]), StepInputs.from_json(json.dumps(raw["inputs"])))


class _Received:
    """The shipment received by this process, if it runs a launched step."""

    shipment: Shipment | None = None


def receive(text: str) -> None:
    """Store a shipment for this process's step."""
    _Received.shipment = Shipment.from_json(text)


class StepInputBuilder:
    """Builds `StepInputs`; in a launched step it returns those shipped by the driver, without a home or broker.

    Creating one opens nothing; it binds the home and queries the log when a step needs them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def banner(self) -> str:
        """Sentence that names the data mode on every surface."""
        return self.settings.source_facts.banner

    def topic(self, logical: str) -> str:
        """Kafka topic of `prices` or `polls`."""
        return {"prices": self.settings.prices_topic, "polls": self.settings.polls_topic}[logical]

    def home(self) -> Home:
        """The bound home."""
        return open_home(self.settings)

    def bounds(self, logical: str, keys: Sequence[str], now: datetime) -> Mapping[str, LogBounds]:
        """Offset bounds of hourly keys.

        Raises:
            StepFailed: The log cannot be queried; names the broker and the command that starts it.
        """
        try:
            hours = [key_slice(k, "hour").start for k in keys]
            return reading.bounds(self.settings, self.topic(logical), hours, now)
        except LogUnavailable as error:
            raise StepFailed(str(error)) from error

    def build(
        self,
        *,
        now: datetime,
        run_id: str,
        keys: Sequence[Any] = (),
        reads_log: str | None = None,
        rebuild: bool = False,
        accept_gap: bool = False,
        as_of: datetime | None = None,
        code_version: str | None = None,
    ) -> StepInputs:
        """Inputs of one step; its code version is among the parameters if it is given.

        Raises:
            StepFailed: From `bounds`; or this is a launched step, and other inputs or none were shipped.
            HomeError: The home is bound to something else.
        """
        if self.settings.is_remote:
            return _shipped(run_id, keys)
        home = self.home()
        # Landed files are listed by the step itself: the driver may not see their volume.
        landing = self.settings.transport == "landing"
        start = datetime.combine(home.partitions_start, datetime.min.time(), tzinfo=now.tzinfo)
        return StepInputs(
            now=now,
            run_id=run_id,
            source=home.source,
            partitions_start=start,
            bounds=self.bounds(reads_log, [str(k) for k in keys], now) if reads_log and not landing else {},
            coins=home.registry(),
            anomaly_budget=self.settings.anomaly_budget,
            accept_gap=accept_gap,
            rebuild=rebuild,
            as_of=as_of,
            landing_folder=str(self.settings.landing / self.topic(reads_log)) if landing and reads_log else None,
            params={
                "tell_commits": self.settings.on_databricks,  # the driver sees only events there, no tables
                **model_store(self.settings, home.path),
                **({"code_version": code_version} if code_version else {}),
            },
        )


def model_store(settings: Settings, home: Path) -> dict[str, str]:
    """Where models are kept, as `ml.registry.Store.of` takes it.

    Args:
        settings: Settings of the home.
        home: Its folder; on Databricks files lie on a volume instead.
    """
    place = {"artifact_root": places.FOLDER, "home": str(home)}
    if settings.on_databricks:
        place = {"artifact_root": settings.databricks_artifacts or f"/Volumes/{settings.catalog}/ml/artifacts"}
    if settings.registry_uri.startswith("databricks-uc"):
        place["schema"] = f"{settings.catalog}.ml"
    return {"tracking_uri": settings.tracking_uri, "registry_uri": settings.registry_uri, **place}


def _shipped(run_id: str, keys: Sequence[Any]) -> StepInputs:
    """The inputs shipped by the driver.

    Raises:
        StepFailed: None arrived, or they were made for another run or other partitions.
    """
    found = _Received.shipment
    if found is None:
        raise StepFailed("no inputs were shipped to this step; CRYPTO_ASSETS_ROLE=remote is for launched steps only")
    wrong = []
    if found.run_id != run_id:
        wrong.append(f"run {found.run_id} instead of {run_id}")
    if found.keys != tuple(keys):
        wrong.append(f"partitions {_some(found.keys)} instead of {_some(keys)}")
    if wrong:
        raise StepFailed(f"the shipped inputs were made for {' and '.join(wrong)}; launch the step again")
    return found.inputs


def _some(keys: Sequence[Any]) -> str:
    return f"{', '.join(map(str, keys[:3]))}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
