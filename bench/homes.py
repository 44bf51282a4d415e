"""Temporary homes with a real broker, as every part needs one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from crypto_assets.kafka.broker import EmbeddedBroker
from crypto_assets.settings import Settings


@contextmanager
def temporary_home(partitions_start: date, **changed: Any) -> Iterator[tuple[Settings, EmbeddedBroker]]:
    """A simulator home in a temporary folder with its embedded broker; both are gone afterwards.

    Args:
        partitions_start: First day with partitions.
        changed: Settings that differ.
    """
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        broker = EmbeddedBroker(home)
        broker.start(timeout_s=120)
        try:
            plain = {
                "source": "simulator",
                "home_path": home,
                "kafka_bootstrap_servers": broker.bootstrap_servers,
                "partitions_start": partitions_start,
            }
            yield Settings(_env_file=None, **{**plain, **changed}), broker  # type: ignore[call-arg]
        finally:
            broker.stop()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
