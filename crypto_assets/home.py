"""The home folder: bound to one data mode and one first partition, used by one process at a time.

Belongs here: binding and checking the home, its coin registry, its locks. Does not belong here: tables (`storage`), the
broker (`log.kafka.broker`), configuration (`settings`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets import binding, paths
from crypto_assets.binding import Binding
from crypto_assets.errors import CANNOT, USAGE, ReportedError
from crypto_assets.files import UnreadableFile, file_lock, read_text
from crypto_assets.market.coins import CoinRegistry, default_registry
from crypto_assets.settings import Settings


class HomeError(ReportedError):
    """The home cannot be used as requested; the message names the command or setting that fixes it."""

    exit_code = USAGE


class HomeInUse(HomeError):
    """Another process holds the home's lock; the message names it."""

    exit_code = CANNOT


@dataclass(frozen=True)
class Home:
    """A bound home: its paths, data mode and first UTC day."""

    path: Path
    source: str
    partitions_start: date

    @property
    def coins_file(self) -> Path:
        """Coin registry as TOML; if missing, the source's default basket applies."""
        return self.path / "coins.toml"

    @property
    def dagster(self) -> Path:
        """Dagster's storage (DAGSTER_HOME)."""
        return self.path / "dagster"

    @property
    def state(self) -> Path:
        """Folder of small files that survive restarts: producer cursor, credits, locks."""
        return self.path / "state"

    @property
    def ui_address(self) -> Path:
        """File with the UI's address while `up` or `ui` is running."""
        return self.state / "ui.url"

    @property
    def api_address(self) -> Path:
        """File with the API's address while it is served."""
        return self.state / "api.url"

    def registry(self) -> CoinRegistry:
        """Coins of this home.

        Raises:
            HomeError: `coins.toml` is invalid; the message lists every problem.
        """
        if not self.coins_file.exists():
            return default_registry(self.source)
        try:
            return CoinRegistry.from_toml(read_text(self.coins_file))
        except UnreadableFile as error:
            raise HomeError(str(error)) from None
        except ValueError as error:
            raise HomeError(f"{self.coins_file}: {error}; correct it, or restore it from a backup") from error

    def holder(self, name: str) -> str | None:
        """Holder of a lock of the home, as `process 12 (up)`; None if it is free.

        Tests the lock itself, since the file's text outlives a killed process and is copied with the home. The lock is
        briefly acquired only if it is free although the file names a holder.
        """
        try:
            with (self.state / f"{name}.lock").open(encoding="utf-8", errors="replace") as handle:
                text = handle.read().strip()
                if not text:
                    return None
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return text
                return None
        except (FileNotFoundError, IsADirectoryError):
            return None

    @contextmanager
    def lock(self, name: str, *, doing: str) -> Iterator[None]:
        """Hold an exclusive lock of the home while `doing` something.

        Raises:
            HomeInUse: Another process holds it; the message names that process.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / f"{name}.lock").open("a+", encoding="utf-8", errors="replace") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise HomeInUse(
                    f"cannot {doing}: the home {self.path} is in use by {handle.read().strip() or 'another process'}; "
                    "stop it first, or choose another home with CRYPTO_ASSETS_HOME"
                ) from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} ({doing})")
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)


def refuse_unfit(settings: Settings) -> None:
    """Reject folders that a component could not open, or would resolve to another path. Writes nothing.

    Raises:
        HomeError: Names the folder, the characters, the component and the setting.
    """
    moved = "Move or rename a folder of that path, or choose another"
    try:
        paths.require("the home", settings.home, paths.SQLITE, paths.TABLES, remedy=f"{moved} home: CRYPTO_ASSETS_HOME")
        paths.require("the lake", settings.lake, paths.TABLES, remedy=f"{moved} lake: CRYPTO_ASSETS_LAKE")
        paths.require("the landing folder", settings.landing, remedy=f"{moved}: CRYPTO_ASSETS_LANDING")
    except paths.UnfitPath as error:
        raise HomeError(str(error)) from error


def open_home(settings: Settings) -> Home:
    """Bind the home at first use; verify the binding afterwards.

    Raises:
        HomeError: A folder cannot be used, or the home has another data mode or first partition.
        UnreadableFile: `home.json` is invalid.
    """
    refuse_unfit(settings)
    bound = _bound(settings)
    if bound is None:
        with file_lock(settings.home / "state" / "binding.lock", timeout_s=None):
            bound = _bound(settings)
            if bound is None:
                bound = Binding(
                    source=settings.source, partitions_start=first_day(settings), transport=settings.transport
                )
                binding.write(settings.home, bound)
    return Home(settings.home, bound.source, bound.partitions_start)


def existing_home(settings: Settings) -> Home:
    """Open an existing home without creating anything.

    Raises:
        HomeError: There is no home, or it has another data mode or first partition.
        UnreadableFile: `home.json` is invalid.
    """
    refuse_unfit(settings)
    bound = _bound(settings)
    if bound is None:
        raise HomeError(
            f"there is no home at {settings.home}; begin with: crypto-assets demo, or crypto-assets up{_others()}"
        )
    return Home(settings.home, bound.source, bound.partitions_start)


def in_force(settings: Settings) -> Settings:
    """Settings completed from the home's binding where they are unset; unchanged without a home.

    Raises:
        HomeError: They contradict the binding.
        UnreadableFile: `home.json` is invalid.
    """
    bound = None if settings.is_remote else _bound(settings, adopting=True)
    if bound is None:
        return settings
    defaults: dict[str, Any] = {"source": bound.source, "transport": bound.transport}
    unset = {name: value for name, value in defaults.items() if name not in settings.model_fields_set}
    return settings.model_copy(update={"home_path": settings.home, "partitions_start": bound.partitions_start, **unset})


def first_day(settings: Settings) -> date:
    """First UTC day with partitions: the home's, or the one a new home would get. Does not bind the home.

    Raises:
        HomeError: The settings contradict the binding, or a remote process was not given the day.
    """
    if settings.is_remote:
        if settings.partitions_start is None:
            raise HomeError(
                "CRYPTO_ASSETS_PARTITIONS_START is not set, and with CRYPTO_ASSETS_ROLE=remote there is no home to "
                "read it from: set it to the day in the home.json of the driver"
            )
        return settings.partitions_start
    bound = _bound(settings)
    if bound is not None:
        return bound.partitions_start
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    return settings.partitions_start or settings.source_facts.first_day or yesterday


def _bound(settings: Settings, *, adopting: bool = False) -> Binding | None:
    """Binding of the settings' home, checked against them; None without a home.

    With `adopting`, a source left at its default is taken from the home and cannot contradict it.
    """
    home = settings.home
    bound = binding.read(home, settings.lake)
    if bound is None:
        return None
    problems = []
    explicit = not adopting or "source" in settings.model_fields_set
    if explicit and bound.source != settings.source:
        problems.append(
            f"it holds {bound.source} data and CRYPTO_ASSETS_SOURCE asks for {settings.source}; sources are never "
            f"mixed. Use another home: CRYPTO_ASSETS_HOME=./.crypto_assets/{settings.source}"
        )
    asked = settings.partitions_start
    if asked is not None and asked != bound.partitions_start:
        problems.append(
            f"its partitions start on {bound.partitions_start} and CRYPTO_ASSETS_PARTITIONS_START says {asked}; this "
            "cannot change. Unset it, or begin a new home with CRYPTO_ASSETS_HOME"
        )
    if problems:
        raise HomeError(f"the home {home} cannot be used: " + "; ".join(problems))
    return bound


def _others() -> str:
    """Hint listing the `--home` flags of the homes in this folder, such as the demo's."""
    found: list[Path] = []
    with suppress(OSError):
        found = sorted(p.parent for p in Path(".crypto_assets").glob(f"*/{binding.FILE}"))
    return f"; or use a home that is here: {', '.join(f'--home {p}' for p in found)}" if found else ""
