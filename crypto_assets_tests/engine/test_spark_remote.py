"""A Spark Connect endpoint that is not there."""

from __future__ import annotations

import socket

import pytest

from crypto_assets.engine.spark import remote_session


def test_an_endpoint_that_does_not_answer_is_told_at_once_and_without_its_token():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ValueError, match=f"no Spark Connect server answers at 127.0.0.1:{port}") as said:
        remote_session(f"sc://127.0.0.1:{port}/;token=sesame")
    assert "CRYPTO_ASSETS_SPARK_REMOTE" in str(said.value)
    assert "sesame" not in str(said.value)
