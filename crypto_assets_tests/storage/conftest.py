from __future__ import annotations

import pytest

from crypto_assets.engine.base import Engine
from crypto_assets.storage.store import DeltaStore


@pytest.fixture
def store(engine: Engine) -> DeltaStore:
    """The store of the chosen engine: every one keeps the same contract."""
    return engine.store
