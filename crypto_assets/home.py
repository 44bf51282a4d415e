"""The home folder: bound to one data mode, one first partition and one user at a time.

Belongs here: what is written into the home once and checked ever after, its coin registry, its locks.
Does not belong here: the tables (`storage`), the broker (`kafka.broker`), or configuration (`settings`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets import paths
from crypto_assets.market.coins import CoinRegistry, default_registry

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

FORMAT = 1


class HomeError(Exception):
    """The home cannot be used as asked; the message names the command that can be used instead."""


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
            return CoinRegistry.from_toml(self.coins_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise HomeError(f"{self.coins_file}: {error}") from error

    def holder(self, name: str) -> str | None:
        """Who holds a lock of the home, as `process 12 (up)`; None when nobody does.

        The lock itself is asked, since what was written into the file outlives a killed process and is copied with a
        home. It is taken for a moment only where nobody holds it although the file names somebody.
        """
        import fcntl

        try:
            with (self.state / f"{name}.lock").open(encoding="utf-8") as handle:
                text = handle.read().strip()
                if not text:
                    return None
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return text
                return None
        except FileNotFoundError:
            return None

    @contextmanager
    def lock(self, name: str, *, doing: str) -> Iterator[None]:
        """Hold an exclusive lock file of the home, so that two processes do not do the same thing.

        Raises:
            HomeError: Another process holds it; the message names that process.
        """
        import fcntl

        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / f"{name}.lock").open("a+", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise HomeError(
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
    """
    refuse_unfit(settings)
    home = settings.home
    binding = home / "home.json"
    asked = {"format": FORMAT, "source": settings.source, "partitions_start": settings.partitions_start.isoformat()}
    if not binding.exists():
        if settings.transport != "kafka":
            # Only a default for `--home`: a home may change its transport, since its tables hold records of both.
            asked["transport"] = settings.transport
        home.mkdir(parents=True, exist_ok=True)
        temporary = binding.with_suffix(".tmp")
        temporary.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
        temporary.replace(binding)
        return Home(home, settings.source, settings.partitions_start)
    bound = json.loads(binding.read_text(encoding="utf-8"))
    problems = []
    if bound["source"] != settings.source:
        problems.append(
            f"it holds {bound['source']} data and CRYPTO_ASSETS_SOURCE asks for {settings.source}; sources are never "
            f"mixed. Use another home: CRYPTO_ASSETS_HOME=./.crypto_assets/{settings.source}"
        )
    if "partitions_start" in settings.model_fields_set and bound["partitions_start"] != asked["partitions_start"]:
        problems.append(
            f"its partitions start on {bound['partitions_start']} and CRYPTO_ASSETS_PARTITIONS_START says "
            f"{asked['partitions_start']}; this cannot change. Unset it, or begin a new home with CRYPTO_ASSETS_HOME"
        )
    if problems:
        raise HomeError(f"the home {home} cannot be used: " + "; ".join(problems))
    return Home(home, bound["source"], date.fromisoformat(bound["partitions_start"]))


def existing_home(settings: Settings) -> Home:
    """The home, for commands that only look at one or work on what it holds.

    Raises:
        HomeError: There is no home yet, or it holds another data mode or began with another first partition.
    """
    if not (settings.home / "home.json").exists():
        raise HomeError(f"there is no home at {settings.home}; begin with: crypto-assets demo, or crypto-assets up")
    return open_home(settings)
