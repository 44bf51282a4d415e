from __future__ import annotations

import pytest


@pytest.fixture
def impatient(monkeypatch):
    """Questions to a broker that is gone fail after 2 s instead of 15."""
    for module in ("offsets", "topic"):
        monkeypatch.setattr(f"crypto_assets.kafka.{module}.ANSWER_TIMEOUT_S", 2.0)
