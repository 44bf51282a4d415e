"""The server as a process: what it loads, where it says it is, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from crypto_assets_tests.serving.lakes import COINS, NOON, SLOT, Lake, bar, price
from crypto_assets_tests.serving.running import running, wait_loaded

SERVE = (sys.executable, "-m", "crypto_assets.cli.main", "serve")
LOADS = """
import asyncio, sys, time
from pathlib import Path
from crypto_assets_tests.serving.lakes import Lake

lake = Lake(Path(sys.argv[1]))
lake.look()
for path in ("/readyz", "/v1/prices/latest", "/v1/bars/bitcoin", "/v1/board?coin=bitcoin", "/metrics", "/openapi.json"):
    assert lake.client.get(path).status_code == 200, path
print([name for name in ("dagster", "pyspark", "pysail", "pandas", "mlflow", "sklearn") if name in sys.modules])
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "home")
    lake.merge("gold.latest_prices", [price(coin, "2.5") for coin in COINS])
    lake.replace("gold.bars_5m", [bar(c, NOON + i * SLOT) for c in COINS for i in range(5)])
    return lake


def test_no_heavy_module_is_loaded(lake: Lake) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(lake.home.path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_command_serves_until_it_is_interrupted(lake: Lake, tmp_path: Path) -> None:
    from crypto_assets.serving.server import listen

    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    token = "token-that-must-not-be-logged-42"
    environment = {"CRYPTO_ASSETS_API_TOKEN": token, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    log = tmp_path / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "crypto_assets.cli.main",
                "serve",
                "--home",
                str(lake.home.path),
                "--port",
                str(port),
            ],
            stdout=out,
            stderr=out,
            env=environment,
            cwd=tmp_path,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_loaded(url).status_code == 200
        assert lake.home.api_address.read_text(encoding="utf-8") == url
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.stream("GET", f"{url}/v1/stream", headers=headers, timeout=30) as stream:
            chunks = stream.iter_bytes()
            assert next(chunks).startswith(b"retry:")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0  # an open stream does not keep it
            assert list(chunks) == []
    finally:
        process.kill()
        process.wait()
    assert not lake.home.api_address.exists()
    assert token not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--host", "0.0.0.0"], 2, "CRYPTO_ASSETS_API_TOKEN"),
        (["--port", "TAKEN"], 3, "choose another port with --port"),
    ],
)
def test_what_cannot_be_served_is_one_line(lake: Lake, options: list[str], code: int, named: str) -> None:
    from crypto_assets.serving.server import listen

    with listen("127.0.0.1", 0) as taken:
        given = [str(taken.getsockname()[1]) if option == "TAKEN" else option for option in options]
        done = subprocess.run(
            [*SERVE, "--home", str(lake.home.path), *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == code
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_commit_reaches_a_client(lake: Lake) -> None:
    with running(lake) as url, httpx.stream("GET", f"{url}/v1/stream?kind=price", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        writing = threading.Thread(target=lake.merge, args=("gold.latest_prices", [price(COINS[0], "3.25")]))
        writing.start()
        data = next(line for line in lines if line.startswith("data:"))
        writing.join()
        assert '"price_usd":3.25' in data
        assert lake.store.version("gold.latest_prices") == 2
