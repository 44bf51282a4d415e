"""The home folder: bound to one data mode, one first partition and one user at a time.

Belongs here: what is written into the home once and checked ever after, its coin registry, its locks.
Does not belong here: the tables (`storage`), the broker (`log.kafka.broker`), or configuration (`settings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets import binding, paths
from crypto_assets.binding import Binding
from crypto_assets.errors import CANNOT, USAGE, ReportedError
from crypto_assets.files import UnreadableFile, file_lock, read_text
from crypto_assets.market.coins import CoinRegistry, default_registry

if TYPE_CHECKING:
    from crypto_assets.settings import Settings


class HomeError(ReportedError):
    """The home cannot be used as asked; the message names the command that can be used instead."""

    exit_code = USAGE


class HomeInUse(HomeError):
    """Another process does the same thing with the home; the message names it."""

    exit_code = CANNOT


@dataclass(frozen=True)
class Home:
    """A home that has been bound. Paths only; opening it creates its folder and `home.json`."""

    path: Path
    source: str
    partitions_start: date

    @property
    def coins_file(self) -> Path:
        """Registry of coins as TOML; absent = the mode's default basket."""
        return self.path / "coins.toml"

    @property
    def dagster(self) -> Path:
        """Dagster's storage (DAGSTER_HOME)."""
        return self.path / "dagster"

    @property
    def state(self) -> Path:
        """Small files that must survive restarts: producer cursor, credits."""
        return self.path / "state"

    @property
    def ui_address(self) -> Path:
        """File that holds the UI's address while `up` or `ui` serves it."""
        return self.state / "ui.url"

    def registry(self) -> CoinRegistry:
        """Coins of this home.

        Raises:
            HomeError: `coins.toml` cannot be read; every problem is named.
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
        """Who holds a lock of the home, as `process 12 (up)`; None when nobody does.

        The lock itself is asked, since what was written into the file outlives a killed process and is copied with a
        home. It is taken for a moment only where nobody holds it although the file names somebody.
        """
        import fcntl

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
        """Hold an exclusive lock file of the home, so that two processes do not do the same thing.

        Raises:
            HomeInUse: Another process holds it; the message names that process.
        """
        import fcntl

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
            import os

            handle.truncate(0)
            handle.write(f"process {os.getpid()} ({doing})")
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)


def refuse_unfit(settings: Settings) -> None:
    """Refuse folders that a part of the product could not open, or would open another one for; writes nothing.

    Raises:
        HomeError: Names folder, characters, parts and the setting.
    """
    moved = "Move or rename a folder of that path, or choose another"
    try:
        paths.require("the home", settings.home, paths.SQLITE, paths.TABLES, remedy=f"{moved} home: CRYPTO_ASSETS_HOME")
        paths.require("the lake", settings.lake, paths.TABLES, remedy=f"{moved} lake: CRYPTO_ASSETS_LAKE")
        paths.require("the landing folder", settings.landing, remedy=f"{moved}: CRYPTO_ASSETS_LANDING")
    except paths.UnfitPath as error:
        raise HomeError(str(error)) from error


def open_home(settings: Settings) -> Home:
    """Bind the home at first use, and check the binding ever after.

    Raises:
        HomeError: A folder cannot be used, the home holds another data mode or was begun with another first partition.
        UnreadableFile: `home.json` cannot be understood.
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
    """The home, for commands that only look at one or work on what it holds; nothing is made.

    Raises:
        HomeError: There is no home yet, or it holds another data mode or began with another first partition.
        UnreadableFile: `home.json` cannot be understood.
    """
    refuse_unfit(settings)
    bound = _bound(settings)
    if bound is None:
        raise HomeError(
            f"there is no home at {settings.home}; begin with: crypto-assets demo, or crypto-assets up{_others()}"
        )
    return Home(settings.home, bound.source, bound.partitions_start)


def in_force(settings: Settings) -> Settings:
    """The settings with what their home is bound to where they say nothing of it; as they are without a home.

    Raises:
        HomeError: They contradict the home.
        UnreadableFile: `home.json` cannot be understood.
    """
    bound = None if settings.is_remote else _bound(settings, adopting=True)
    if bound is None:
        return settings
    told: dict[str, Any] = {"source": bound.source, "transport": bound.transport}
    unsaid = {name: value for name, value in told.items() if name not in settings.model_fields_set}
    return settings.model_copy(
        update={"home_path": settings.home, "partitions_start": bound.partitions_start, **unsaid}
    )


def first_day(settings: Settings) -> date:
    """First UTC day with partitions: the home's, or the one that it would be bound to now. Nothing is bound.

    Raises:
        HomeError: The settings contradict the home, or a process without a home was not given the day.
    """
    if settings.is_remote:
        if settings.partitions_start is None:
            raise HomeError(
                "CRYPTO_ASSETS_PARTITIONS_START is not set, and with CRYPTO_ASSETS_ROLE=remote there is no home that "
                "says it: set it to the day in the home.json of the driver"
            )
        return settings.partitions_start
    bound = _bound(settings)
    if bound is not None:
        return bound.partitions_start
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    return settings.partitions_start or settings.source_facts.first_day or yesterday


def _bound(settings: Settings, *, adopting: bool = False) -> Binding | None:
    """The binding of the settings' home, which they do not contradict; None without a home.

    Where the settings take their source from the home (`adopting`), a default of theirs contradicts nothing.
    """
    home = settings.home
    bound = binding.read(home, settings.lake)
    if bound is None:
        return None
    problems = []
    said = not adopting or "source" in settings.model_fields_set
    if said and bound.source != settings.source:
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
    """The flags that open homes of this folder, as the demo's."""
    found: list[Path] = []
    with suppress(OSError):
        found = sorted(p.parent for p in Path(".crypto_assets").glob(f"*/{binding.FILE}"))
    return f"; or use a home that is here: {', '.join(f'--home {p}' for p in found)}" if found else ""
