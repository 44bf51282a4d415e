from __future__ import annotations

from collections.abc import Iterator

import pytest

from crypto_assets.serving.lake import Lake, open_lake
from crypto_assets.settings import Settings
from crypto_assets_tests.serving.home import served_home


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a filled home, which no test changes. Its name has characters that are special to DuckDB and SQL."""
    return served_home(tmp_path_factory.mktemp("served") / "o'home é*")


@pytest.fixture
def lake(served: Settings) -> Iterator[Lake]:
    """The home's tables."""
    with open_lake(served) as opened:
        yield opened
