"""The staged copy: what is in it, what is refused."""

from __future__ import annotations

import pytest

from crypto_assets.databricks.launcher import staging_copy
from crypto_assets.databricks.launcher.launcher_config import PACKAGE
from crypto_assets.databricks.launcher.staging_copy import StagingRefused, stage


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "there" / "pack"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "inner" / "__init__.py").write_text("x = 1\n")
    return root


def test_only_source_and_small_package_data_are_copied(package, tmp_path):
    for name in (".env", ".git/config", "tests/test_it.py", "data/rows.json", "inner/__pycache__/x.pyc", "inner/a.csv"):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("SECRET=1")
    copied = stage([package], tmp_path / "out", {})
    assert copied.files == ("pack/__init__.py", "pack/inner/__init__.py")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["__init__.py", "__init__.py"]
    assert copied.size == len("x = 1\n")
    assert "2 files, 6 bytes" in copied.describe()
    assert copied.sha256 in copied.describe()


def test_the_hash_follows_the_content(package, tmp_path):
    first = stage([package], tmp_path / "one", {}).sha256
    assert stage([package], tmp_path / "two", {}).sha256 == first
    (package / "__init__.py").write_text("y = 2\n")
    assert stage([package], tmp_path / "three", {}).sha256 != first


def test_everything_that_is_wrong_is_named_at_once(package, tmp_path, monkeypatch):
    monkeypatch.setattr(staging_copy, "MOST_BYTES_OF_A_FILE", 100)
    monkeypatch.setattr(staging_copy, "MOST_BYTES", 150)
    (package / "planted.py").write_text("token = 'dapi-very-secret'\n")
    (package / "large.py").write_text("#" * 160)
    (tmp_path / "outside.py").write_text("")
    (package / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(StagingRefused) as refused:
        stage([package, tmp_path / "nothing"], tmp_path / "out", {"DATABRICKS_TOKEN": "dapi-very-secret"})
    said = str(refused.value)
    assert "pack/planted.py holds the value of DATABRICKS_TOKEN" in said
    assert "pack/large.py has 160 bytes" in said
    assert "pack/link.py is a link out of the package" in said
    assert "nothing is no package" in said
    assert "bytes in all" in said
    assert "dapi-very-secret" not in said
    assert not (tmp_path / "out").exists()


def test_our_own_package_can_be_shipped(tmp_path):
    copied = stage([PACKAGE], tmp_path / "out", {"COINGECKO_API_KEY": "CG-0123456789"})
    assert {"crypto_assets/definitions.py", "crypto_assets/databricks/launcher/remote_main.py"} <= set(copied.files)
    assert all(f.startswith("crypto_assets/") for f in copied.files)
    assert not [f for f in copied.files if "sample_data" in f]
