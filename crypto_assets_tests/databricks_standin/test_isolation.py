"""What a task sees: shipped code and a cluster's libraries, and nothing of this machine's checkout."""

from __future__ import annotations

import json
import zipfile

import pytest
from databricks.sdk.service import compute, jobs

from crypto_assets_tests.databricks_standin import Workspace

pytestmark = pytest.mark.jvm

LOOK = """
import importlib.metadata, json, os, pathlib, sys
checkout, found = sys.argv[1], {}
def refused(name, action):
    try:
        action()
        found[name] = "allowed"
    except Exception as error:
        found[name] = type(error).__name__
refused("open", lambda: open(f"{checkout}/pyproject.toml"))
refused("pathlib", lambda: pathlib.Path(checkout, "README.md").read_text())
refused("listdir", lambda: os.listdir(checkout))
refused("scandir", lambda: os.scandir(f"{checkout}/crypto_assets"))
refused("chdir", lambda: os.chdir(checkout))
refused("import", lambda: __import__("crypto_assets"))
refused("metadata", lambda: importlib.metadata.version("crypto_assets"))
sys.path.insert(0, checkout)
refused("import by path", lambda: __import__("crypto_assets"))
import dagster
print(json.dumps(found))
"""
WHEEL = """
import importlib.metadata, json, sys
def main():
    from databricks.sdk.runtime import dbutils
    print(json.dumps([sys.argv, __file__, importlib.metadata.version("shipped"), dbutils.secrets.get("s", "k")]))
"""


def _said(run):
    run.wait_for()
    assert run.result_state == "SUCCESS", run.stderr
    return json.loads(run.stdout)


def test_the_checkout_cannot_be_read_and_the_product_cannot_be_imported(ws, submit):
    found = _said(submit(LOOK, str(ws.checkout)))
    refused = dict.fromkeys(("open", "pathlib", "listdir", "scandir", "chdir"), "PermissionError")
    hidden = {"import": "ModuleNotFoundError", "metadata": "PackageNotFoundError"}
    assert found.pop("import by path") in ("PermissionError", "ModuleNotFoundError")
    assert found == refused | hidden


def test_the_product_is_what_was_shipped(ws, client, submit):
    """As the launcher does it: a zip in DBFS, unpacked and put on the path by the main script."""
    import io

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("crypto_assets/__init__.py", "SHIPPED = True")
    packed.seek(0)
    client.files.upload("/Volumes/crypto_analytics/ops/staging/code.zip", packed)
    code = """
import json, site, sys, tempfile, zipfile
place = tempfile.mkdtemp()
zipfile.ZipFile("/Volumes/crypto_analytics/ops/staging/code.zip").extractall(place)
site.addsitedir(place)
import crypto_assets
print(json.dumps([crypto_assets.SHIPPED, crypto_assets.__file__.startswith(place)]))
"""
    assert _said(submit(code)) == [True, True]


@pytest.mark.usefixtures("dbfs")
def test_a_file_of_dbfs_is_also_a_path_of_the_machine(ws, submit):
    code = """
import pathlib
pathlib.Path("/dbfs/b").write_text("b")
"""
    submit(code).wait_for()
    assert (ws.dbfs / "b").read_text() == "b"


def test_a_file_of_a_volume_is_also_a_path_of_the_machine(ws, submit):
    code = """
import errno, gzip, json, os, pathlib, shutil
root = "/Volumes/crypto_analytics/ops/staging/out"
os.makedirs(f"{root}/deep", exist_ok=True)
with gzip.open(f"{root}/deep/a.gz", "wb") as out:
    out.write(b"x")
pathlib.Path(f"{root}/b").write_text("b")
os.replace(f"{root}/b", f"{root}/c")
listed = sorted(os.listdir(root))
shutil.rmtree(f"{root}/deep")
try:
    open(f"{root}/c", "a")
except OSError as error:
    refused = error.errno == errno.EOPNOTSUPP
print(json.dumps([listed, os.path.exists(f"{root}/deep"), pathlib.Path(f"{root}/c").stat().st_size, refused]))
"""
    assert _said(submit(code)) == [["c", "deep"], False, 1, True]
    assert (ws.volumes / "crypto_analytics/ops/staging/out/c").read_text() == "b"


@pytest.mark.parametrize(("mode", "there"), [("SINGLE_USER", True), ("USER_ISOLATION", False), (None, False)])
@pytest.mark.usefixtures("dbfs")
def test_sc_and_dbfs_are_there_only_in_single_user_mode(submit, mode, there):
    code = "import json, os; print(json.dumps(['sc' in globals(), os.path.exists('/dbfs'), os.path.isdir('/Volumes')]))"
    assert _said(submit(code, cluster={"data_security_mode": mode})) == [there, there, True]


def test_the_environment_is_the_clusters(ws, submit, monkeypatch):
    monkeypatch.setenv("CRYPTO_ASSETS_SOURCE", "replay")
    monkeypatch.setenv("DATABRICKS_TOKEN", "mine")
    ws.secrets["s"] = {"k": "s3cret"}
    given = {"spark_env_vars": {"ROLE": "remote", "PASSWORD": "{{secrets/s/k}}"}}
    run = submit("import json, os; print(json.dumps(dict(os.environ)))", cluster=given)
    seen = _said(run)
    assert run.environment.items() <= seen.items()
    assert (seen["ROLE"], seen["PASSWORD"], seen["DATABRICKS_RUNTIME_VERSION"]) == ("remote", "s3cret", "19.0")
    assert not {"CRYPTO_ASSETS_SOURCE", "DATABRICKS_TOKEN", "VIRTUAL_ENV", "PYTHONPATH"} & seen.keys()


def test_dbutils(ws, submit):
    ws.secrets["s"] = {"k": "s3cret"}
    code = """
import json
root = "/Volumes/crypto_analytics/ops/staging/a"
dbutils.fs.put(f"{root}/b.txt", "text")
names = [f.name for f in dbutils.fs.ls(root)]
dbutils.fs.rm(f"dbfs:{root}", True)
try:
    dbutils.secrets.get(scope="s", key="absent")
except Exception as error:
    missing = str(error)
print(json.dumps([dbutils.secrets.get("s", "k"), names, missing]))
"""
    assert _said(submit(code)) == ["s3cret", ["b.txt"], "Secret does not exist with scope: s and key: absent"]
    assert not (ws.volumes / "crypto_analytics/ops/staging/a").exists()


def test_secrets_are_not_left_in_the_files_of_a_run(ws, submit):
    ws.secrets["s"] = {"k": "s3cret-value"}
    run = submit("dbutils.secrets.get('s', 'k')")
    run.wait_for()
    assert run.result_state == "SUCCESS"
    left = [p for p in ws.root.rglob("*") if p.is_file() and not p.is_symlink() and b"s3cret-value" in p.read_bytes()]
    assert left == []


def test_a_wheel_task_on_serverless(ws, client):
    import io

    volume = ws.volumes_api.create("crypto_analytics.ops.wheels")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("shipped/__init__.py", WHEEL)
        wheel.writestr("shipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shipped\nVersion: 1.0\n")
        wheel.writestr("shipped-1.0.dist-info/entry_points.txt", "[console_scripts]\nrun-it = shipped:main\n")
    path = "/Volumes/crypto_analytics/ops/wheels/abc/shipped-1.0-py3-none-any.whl"
    client.files.create_directory("/Volumes/crypto_analytics/ops/wheels/abc")
    client.files.upload(path, io.BytesIO(packed.getvalue()))
    ws.secrets["s"] = {"k": "v"}
    environment = compute.Environment(environment_version="4", client="4", dependencies=[path, "dagster-pipes>=1.13"])
    wheel_task = jobs.PythonWheelTask(package_name="shipped", entry_point="run-it", parameters=["--x", "1"])
    run_id = client.jobs.submit(
        tasks=[jobs.SubmitTask(task_key="main", python_wheel_task=wheel_task, environment_key="default")],
        environments=[jobs.JobEnvironment(environment_key="default", spec=environment)],
    ).bind()["run_id"]
    run = next(r for r in ws.runs if r.run_id == run_id)
    argv, file, version, secret = _said(run)
    assert (argv[1:], version, secret) == (["--x", "1"], "1.0", "v")
    assert file.startswith(str(run.tasks[0].folder))
    assert run.tasks[0].cluster_id is None
    assert volume.is_dir()


def test_a_task_of_another_checkout_may_read_this_one(tmp_path):
    """The checkout is what the workspace was told; this also shows that the refusal is not something else."""
    from databricks.sdk import WorkspaceClient

    with Workspace(tmp_path / "ws", spark=False, dbfs=True, checkout=tmp_path / "elsewhere") as ws:
        client = WorkspaceClient(host=ws.host, token=ws.token)
        with client.dbfs.open("/main.py", write=True) as out:
            out.write(f"print(len(open({__file__!r}).read()) > 0)".encode())
        python = jobs.SparkPythonTask(python_file="dbfs:/main.py")
        ws.clusters.add("c-1")
        client.jobs.submit(tasks=[jobs.SubmitTask("main", existing_cluster_id="c-1", spark_python_task=python)])
        ws.runs[0].wait_for()
        assert ws.runs[0].stdout == "True\n"
