from __future__ import annotations

from pathlib import Path

import pytest

from crypto_assets.compute.sail import SailEngine
from crypto_assets.storage.base import TableStore


@pytest.fixture(params=["delta_rs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TableStore:
    """Every store that keeps the contract; another one is another parameter."""
    return {"delta_rs": lambda: SailEngine(str(tmp_path / "lake")).store}[request.param]()
