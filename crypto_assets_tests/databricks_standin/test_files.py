"""DBFS and volumes, as the launcher's own client and Pipes use them."""

from __future__ import annotations

import base64
import io

import pytest
from dagster_databricks.databricks import DatabricksClient
from databricks.sdk.errors import BadRequest, NotFound, PermissionDenied, ResourceAlreadyExists, ResourceDoesNotExist
from databricks.sdk.errors.platform import AlreadyExists
from databricks.sdk.service.files import DbfsAPI


def test_a_large_file_goes_there_in_blocks_and_back(ws, dbfs):
    content = bytes(range(256)) * 10_000
    launcher = DatabricksClient(host=ws.host, token=ws.token)
    launcher.put_file(io.BytesIO(content), "dbfs:///staging/run/code.zip", overwrite=True)
    assert launcher.read_file("dbfs:///staging/run/code.zip") == content
    assert (ws.dbfs / "staging/run/code.zip").read_bytes() == content
    assert [(u.path, len(u.data)) for u in ws.uploads] == [("/staging/run/code.zip", len(content))]


def test_a_stream_shows_nothing_before_it_is_closed(ws, dbfs):
    handle = dbfs.create("/a/b").handle
    dbfs.add_block(handle, base64.b64encode(b"x").decode())
    assert not (ws.dbfs / "a/b").exists()
    dbfs.close(handle)
    assert (ws.dbfs / "a/b").read_bytes() == b"x"
    with pytest.raises(ResourceDoesNotExist, match="handle"):
        dbfs.close(handle)


def test_dbfs_refusals(client, dbfs):
    dbfs.upload("/a/b", io.BytesIO(b"x"))
    with pytest.raises(ResourceAlreadyExists):
        dbfs.create("/a/b", overwrite=False)
    with pytest.raises(ResourceDoesNotExist, match="/a/c") as refused:
        dbfs.read("/a/c")
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(BadRequest, match="not empty"):
        DbfsAPI(client.api_client).delete("/a")
    with pytest.raises(BadRequest, match="absolute"):
        dbfs.mkdirs("relative")
    with pytest.raises(BadRequest, match="leaves"):
        dbfs.get_status("/../../etc/passwd")
    with pytest.raises(BadRequest, match="1 MB"):
        dbfs.put("/a/large", contents=base64.b64encode(b"x" * 2**20 + b"y").decode())


def test_dbfs_folders(ws, dbfs):
    dbfs.upload("/a/b", io.BytesIO(b"12345"))
    dbfs.mkdirs("/a/folder")
    assert [(f.path, f.is_dir, f.file_size) for f in dbfs.list("/a")] == [
        ("/a/b", False, 5),
        ("/a/folder", True, 0),
    ]
    read = dbfs.read("/a/b", offset=5)
    assert (read.bytes_read, read.data) == (0, "")
    dbfs.move_("/a/b", "/a/c")
    assert dbfs.get_status("/a/c").file_size == 5
    dbfs.delete("/a", recursive=True)
    assert list(ws.dbfs.iterdir()) == []
    dbfs.delete("/a", recursive=True)


def test_a_workspace_has_no_dbfs_unless_it_is_asked_for(client):
    with pytest.raises(PermissionDenied, match=r"DBFS root is disabled\. Access is denied on path: /probe"):
        client.dbfs.mkdirs("/probe")


def test_a_volume_without_the_right_to_write_it(ws, client):
    ws.volumes_api.read_only.add("crypto_analytics.ops.staging")
    with pytest.raises(PermissionDenied, match=r"WRITE VOLUME on Volume 'crypto_analytics\.ops\.staging'"):
        client.files.upload("/Volumes/crypto_analytics/ops/staging/a", io.BytesIO(b""))
    assert list(client.files.list_directory_contents("/Volumes/crypto_analytics/ops/staging")) == []


@pytest.mark.parametrize("as_real_path", [False, True])
def test_volumes(ws, client, as_real_path):
    real = ws.volumes_api.create("crypto_analytics.ops.pipes")
    volume = str(real) if as_real_path else "/Volumes/crypto_analytics/ops/pipes"
    client.files.create_directory(f"{volume}/tmp/a b")
    client.files.upload(f"{volume}/tmp/a b/0.json", io.BytesIO(b"{}"), overwrite=True)
    assert (real / "tmp/a b/0.json").read_bytes() == b"{}"
    assert client.files.download(f"{volume}/tmp/a b/0.json").contents.read() == b"{}"
    assert client.files.get_metadata(f"{volume}/tmp/a b/0.json").content_length == 2
    client.files.get_directory_metadata(f"{volume}/tmp")
    assert [(e.name, e.is_directory) for e in client.files.list_directory_contents(f"{volume}/tmp")] == [("a b", True)]
    with pytest.raises(AlreadyExists):
        client.files.upload(f"{volume}/tmp/a b/0.json", io.BytesIO(b"{}"))
    with pytest.raises(BadRequest, match="not empty"):
        client.files.delete_directory(f"{volume}/tmp/a b")
    client.files.delete(f"{volume}/tmp/a b/0.json")
    client.files.delete_directory(f"{volume}/tmp/a b")
    with pytest.raises(NotFound):
        client.files.download(f"{volume}/tmp/a b/0.json")
    with pytest.raises(OSError, match="does not exist"):  # what Pipes waits for: no next message yet
        client.files.download(f"{volume}/tmp/1.json")


def test_volumes_that_were_not_made_do_not_exist(ws, client):
    with pytest.raises(NotFound, match=r"Volume 'a\.b\.c'"):
        client.files.create_directory("/Volumes/a/b/c/d")
    with pytest.raises(BadRequest):
        client.files.upload("/tmp/x", io.BytesIO(b""))
