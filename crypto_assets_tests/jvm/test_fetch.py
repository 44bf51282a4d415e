from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crypto_assets.jvm import fetch
from crypto_assets.jvm.fetch import JvmError
from crypto_assets.jvm.jars import KAFKA_BROKER, SPARK_JARS, JarSet


def test_the_jars_are_the_pinned_ones_and_a_damaged_one_is_named(tmp_path):
    folder = fetch.ensure_jars(KAFKA_BROKER)
    assert fetch.check_jars(KAFKA_BROKER, folder) == []
    coordinate = "org.apache.kafka:kafka-clients:4.1.0"
    (tmp_path / "kafka-clients-4.1.0.jar").write_bytes(b"not the jar")
    problems = fetch.check_jars(KAFKA_BROKER, tmp_path)
    assert len(problems) == len(KAFKA_BROKER.jars)
    assert f"{coordinate}: sha256 " in "\n".join(problems)
    assert "org.apache.kafka:kafka_2.13:4.1.0: absent" in problems


def test_two_first_starts_at_once_download_once_and_leave_only_the_complete_folder(tmp_path, monkeypatch):
    """The fetching itself is replaced by a copy of the cached jars: the network lies outside."""
    source = fetch.ensure_jars(KAFKA_BROKER)
    fetched: list[Path] = []

    def copy(_jar_set: JarSet, work: Path) -> None:
        fetched.append(work)
        (work / "jars").mkdir()
        for jar in source.glob("*.jar"):
            (work / "jars" / jar.name).hardlink_to(jar)

    monkeypatch.setattr(fetch, "_retrieve", copy)
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: fetch.ensure_jars(KAFKA_BROKER, cache=tmp_path), range(2)))
    assert len(fetched) == 1
    assert folders == {tmp_path / "kafka-4.1.0"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kafka-4.1.0", "kafka-4.1.0.lock"]

    def damaged(jar_set: JarSet, work: Path) -> None:
        copy(jar_set, work)
        victim = work / "jars" / "kafka-clients-4.1.0.jar"
        victim.unlink()
        victim.write_bytes(b"")

    (tmp_path / "kafka-4.1.0" / "COMPLETE").unlink()
    monkeypatch.setattr(fetch, "_retrieve", damaged)
    with pytest.raises(JvmError, match=r"kafka-clients:4\.1\.0: sha256"):
        fetch.ensure_jars(KAFKA_BROKER, cache=tmp_path)
    # what was there is untouched
    assert fetch.check_jars(KAFKA_BROKER, tmp_path / "kafka-4.1.0") == []


def test_java_trusts_the_authorities_that_python_trusts(tmp_path):
    options = fetch._trust_options(tmp_path / "trust.jks")
    if not options:
        pytest.skip("this Python has no certificate authorities of its own")
    content = (tmp_path / "trust.jks").read_bytes()
    assert struct.unpack(">III", content[:12])[:2] == (0xFEEDFEED, 2)
    assert options[0] == f"-Djavax.net.ssl.trustStore={tmp_path / 'trust.jks'}"


def test_the_jars_of_spark_are_the_pinned_ones_and_none_is_one_that_pyspark_has():
    import pyspark

    folder = fetch.ensure_jars(SPARK_JARS)
    assert fetch.check_jars(SPARK_JARS, folder) == []
    shipped = {jar.stem.rsplit("-", 1)[0] for jar in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    assert not shipped & {jar.stem.rsplit("-", 1)[0] for jar in folder.glob("*.jar")}
