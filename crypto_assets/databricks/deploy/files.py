"""Which deployment files are rendered.

Belongs here: paths, and the pinned libraries of clusters, which are read from the checkout's lock. Does not belong
here: contents of the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from crypto_assets.databricks.clusters import COMMAND_LIBRARIES
from crypto_assets.databricks.deploy import bundle, unity


def locked(lock: str, names: Sequence[str] = COMMAND_LIBRARIES) -> list[str]:
    """`name==version` of each library, from the lock.

    Args:
        lock: Text of requirements.lock.
        names: Libraries.

    Raises:
        ValueError: A library is not in the lock; all of them are named.
    """
    found = dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*])?==([^\s;\\]+)", lock, flags=re.MULTILINE))
    versions = {name.lower().replace("_", "-"): version for name, version in found.items()}
    missing = [n for n in names if n not in versions]
    if missing:
        raise ValueError(f"requirements.lock has no {', '.join(missing)}; run: make lock")
    return [f"{n}=={versions[n]}" for n in names]


def files(root: Path) -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout.

    Args:
        root: The checkout, for its lock.
    """

    def bundle_text() -> str:
        return bundle.text(locked((root / "requirements.lock").read_text(encoding="utf-8")))

    return {bundle.PATH: bundle_text, **unity.files()}
