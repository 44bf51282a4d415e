"""The stand-in as a process: what it prints, and that nothing of it remains."""

from __future__ import annotations

import io
import re
import signal
import stat
import subprocess
import sys

import psutil
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service import jobs

from crypto_assets.databricks.launcher.launcher_config import launcher_config
from crypto_assets.databricks.launcher.preflight import Preflight
from crypto_assets.databricks.pipes.client import libraries
from crypto_assets.databricks.staging import staging_at, staging_folder
from crypto_assets.settings import Settings
from crypto_assets_tests.processes import still_running

MAIN = "/Volumes/crypto_analytics/ops/staging/main.py"
COMMAND = [sys.executable, "-m", "crypto_assets_tests.databricks_standin"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_serves_until_a_signal_and_leaves_no_process(tmp_path, number):
    root = tmp_path / "root"
    with subprocess.Popen([*COMMAND, "--root", str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert re.fullmatch(r"export DATABRICKS_HOST=http://127\.0\.0\.1:\d+\n", lines[0])
        host = lines[0].strip().partition("=")[2]
        token = (root / "token").read_text()
        assert str(root / "token") in lines[1]
        assert not any(token in line for line in lines)
        assert stat.S_IMODE((root / "token").stat().st_mode) == 0o600
        client = WorkspaceClient(host=host, token=token)
        code = io.BytesIO(b"import time; print('up', flush=True); time.sleep(600)")
        client.files.upload(MAIN, code)
        cluster = {"spark_version": "19.0.x-scala2.13", "node_type_id": "i3.xlarge", "num_workers": 0}
        task = {"task_key": "a", "new_cluster": cluster, "spark_python_task": {"python_file": MAIN}}
        run_id = client.jobs.submit(tasks=[jobs.SubmitTask.from_dict(task)]).bind()["run_id"]
        task_id = client.jobs.get_run(run_id).as_dict()["tasks"][0]["run_id"]
        while client.jobs.get_run_output(task_id).logs != "up\n":
            assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 0)
    assert still_running(started, within_s=10) == []


def test_what_it_prints_is_all_that_a_launch_needs(tmp_path):
    with subprocess.Popen([*COMMAND, "--root", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = "".join(iter(process.stdout.readline, f"# tables are in {tmp_path / 'lake'}; Ctrl-C stops\n"))
        shell = ["bash", "-c", f"set -e\n{printed}\nenv -0"]
        told = subprocess.run(shell, env={}, capture_output=True, text=True, timeout=30, check=True).stdout
        given = dict(line.split("=", 1) for line in told.split("\0") if line)
        settings = Settings.model_validate({name: value for name, value in given.items() if "DATABRICKS" in name})
        assert given["CRYPTO_ASSETS_TARGET"] == "databricks"
        workspace = WorkspaceClient(host=settings.databricks_host, token=given["DATABRICKS_TOKEN"])
        config = launcher_config(settings, {}, str(tmp_path))
        travels = config["env_variables"]
        folder = staging_folder(settings)
        staging = staging_at(folder, workspace)
        Preflight(settings, workspace).require(staging, config["run_config"], [], travels, lambda _: None)
        Preflight(settings, workspace).require_serverless(folder, libraries(), [], travels)
        process.terminate()


@pytest.mark.slow
def test_the_token_of_a_folder_stays(tmp_path):
    tokens = set()
    for _ in range(2):
        with subprocess.Popen([*COMMAND, "--root", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            tokens.add((tmp_path / "token").read_text())
            process.terminate()
    assert len(tokens) == 1


def test_a_taken_port_is_named(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--root", str(tmp_path), "--port", port], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr
