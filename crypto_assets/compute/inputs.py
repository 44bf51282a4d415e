"""What the driver gives a step: offset bounds, coins, cut-offs. Light, without secrets, the same for every engine.

Belongs here: building `StepInputs` from settings, home and log. Does not belong here: what a step does with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.compute.base import StepFailed, StepInputs
from crypto_assets.contracts.slices import key_slice
from crypto_assets.storage.base import LogBounds

if TYPE_CHECKING:
    from crypto_assets.home import Home
    from crypto_assets.settings import Settings

BANNERS = {
    "coingecko": "LIVE CoinGecko. Data provided by CoinGecko",
    "simulator": "SIMULATED prices of ten coins (seeded random walk): no market ever quoted these",
    "replay": "REPLAY Coinbase 2018-04-04/05 via QuantConnect Lean (Apache-2.0): prices are not today's",
}


class StepInputBuilder:
    """Builds `StepInputs`. Creating one opens nothing; the home is bound and the log asked when a step needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def banner(self) -> str:
        """The sentence by which every surface names the data mode."""
        return BANNERS[self.settings.source]

    def topic(self, logical: str) -> str:
        """Kafka topic of `prices` or `polls`."""
        return {"prices": self.settings.prices_topic, "polls": self.settings.polls_topic}[logical]

    def home(self) -> Home:
        """The bound home."""
        from crypto_assets.home import open_home

        return open_home(self.settings)

    def bounds(self, logical: str, keys: Sequence[str]) -> Mapping[str, LogBounds]:
        """Offset bounds of hourly keys.

        Raises:
            StepFailed: The log cannot be asked; names the broker and the command that starts it.
        """
        from crypto_assets.kafka import log

        try:
            return log.bounds(self.settings, self.topic(logical), [key_slice(k, "hour").start for k in keys])
        except log.LogUnavailable as error:
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
    ) -> StepInputs:
        """Inputs of one step.

        Raises:
            StepFailed: From `bounds`.
            HomeError: The home is bound to something else.
        """
        home = self.home()
        start = datetime.combine(home.partitions_start, datetime.min.time(), tzinfo=now.tzinfo)
        return StepInputs(
            now=now,
            run_id=run_id,
            source=home.source,
            partitions_start=start,
            bounds=self.bounds(reads_log, [str(k) for k in keys]) if reads_log else {},
            coins=home.registry().to_records(),
            anomaly_budget=self.settings.anomaly_budget,
            accept_gap=accept_gap,
            rebuild=rebuild,
            as_of=as_of,
            params={
                "tracking_uri": self.settings.tracking_uri,
                "registry_uri": self.settings.mlflow_registry_uri or self.settings.tracking_uri,
                "artifact_root": str(home.path / "mlflow" / "artifacts"),
            },
        )
