"""What all tests of the workspace stand-in share (a pytest plugin)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crypto_assets_tests.databricks_standin.jvms import Jvms


@pytest.fixture(scope="session")
def jvms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jvms]:
    """JVMs that the workspaces of all tests use one after another: starting one costs more than most steps."""
    from crypto_assets_tests.databricks_standin.jvms import Jvms

    found = Jvms(tmp_path_factory.mktemp("jvms"))
    yield found
    found.close()
