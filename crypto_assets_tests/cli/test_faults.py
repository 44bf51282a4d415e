"""What people and machines do to a home, tried on every command: one line that names the file and what helps."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from crypto_assets import databases
from crypto_assets.cli.instance import open_instance
from crypto_assets.errors import CANNOT, USAGE, ReportedError
from crypto_assets.faults import explain, redacted
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets_tests.cli.commands import COMMANDS, OF_A_HOME, invoke, one_line

WRITTEN = {"format": 1, "source": "simulator", "partitions_start": "2024-05-01"}
RUNS, EVENTS, TICKS = (d.path for d in databases.DATABASES if d.package == "dagster")
READERS = [(c, d) for c in ("status", "maintain", "doctor") for d in (RUNS, EVENTS, TICKS)] + [("backfill", RUNS)]
"""Commands that use Dagster's storage without starting a broker first, with the databases that each needs."""

REFUSING = [c for c in OF_A_HOME if c != "doctor"]
"""Commands that a home which cannot be used ends; `doctor` reports it among its findings."""


def _binding(**changed: Any) -> bytes:
    return json.dumps({k: v for k, v in {**WRITTEN, **changed}.items() if v is not ...}).encode()


BINDINGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b" \n", "is empty"),
    "no fields": (b"{}", "source null"),
    "null": (b"null", "holds null"),
    "a list": (b"[1]", "holds [1]"),
    "text": (b'"x"', 'holds "x"'),
    "cut": (_binding()[:30], "is not JSON"),
    "zeros": (b"\0" * 76, "save it as UTF-8"),
    "UTF-16": (_binding().decode().encode("utf-16"), "save it as UTF-8"),
    "Latin-1": (b'{"source": "caf\xe9"}', "save it as UTF-8"),
    "newer": (_binding(format=99), "use the version that wrote it"),
    "format as text": (_binding(format="1"), 'format "1"'),
    "no source": (_binding(source=...), "source null"),
    "unknown source": (_binding(source="binance"), "source"),
    "source is a number": (_binding(source=7), "source 7"),
    "no day": (_binding(partitions_start="2026-02-30"), "partitions_start"),
    "day as a number": (_binding(partitions_start=20260501), "partitions_start"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bound simulator home; the working directory is the folder that holds it."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(source="simulator", home_path=tmp_path / "home", partitions_start=date(2024, 5, 1))
    return open_home(settings).path


@pytest.mark.parametrize("fault", BINDINGS)
@pytest.mark.parametrize("command", ["status", "up"])
def test_a_damaged_binding_is_named_with_what_to_do(command: str, fault: str, home: Path):
    data, said = BINDINGS[fault]
    (home / "home.json").write_bytes(data)
    done = invoke(command, "--home", str(home))
    line = one_line(done)
    assert done.exit_code == USAGE
    assert f"{home}/home.json" in line
    assert said in line
    assert (home / "home.json").read_bytes() == data


@pytest.mark.parametrize("command", REFUSING)
def test_every_command_refuses_a_damaged_binding(command: str, home: Path):
    (home / "home.json").write_bytes(b"")
    done = invoke(command, "--home", str(home))
    assert str(home) in one_line(done)
    assert done.exit_code == USAGE


def test_a_binding_with_a_byte_order_mark_counts(home: Path):
    (home / "home.json").write_bytes(b"\xef\xbb\xbf" + _binding())
    assert invoke("coins list", "--home", str(home)).exit_code == 0


def test_a_lost_binding_can_be_written_again_from_the_tables(home: Path):
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(str(home / "lake" / "silver" / "prices"), pa.table({"source": ["simulator"]}))
    days = pa.table({"day": pa.array([date(2024, 5, 2), date(2024, 5, 1)])})
    write_deltalake(str(home / "lake" / "gold" / "dim_date"), days)
    (home / "home.json").write_bytes(b"")
    line = one_line(invoke("status", "--home", str(home)))
    told = line[line.index("{") :]
    assert json.loads(told) == WRITTEN
    (home / "home.json").write_text(told)
    assert invoke("coins list", "--home", str(home)).exit_code == 0


def test_what_the_binding_still_says_is_kept_in_what_to_write(home: Path):
    (home / "home.json").write_bytes(_binding(source="binance", format=...))
    (home / "lake").mkdir()
    line = one_line(invoke("status", "--home", str(home)))
    assert '"partitions_start": "2024-05-01"' in line
    assert "<coingecko, replay or simulator>" in line


DOTENV: dict[str, tuple[bytes | None, str]] = {
    "UTF-16": ("CRYPTO_ASSETS_SOURCE=simulator\n".encode("utf-16"), "save it as UTF-8"),
    "UTF-16 without a mark": ("CRYPTO_ASSETS_SOURCE=simulator\n".encode("utf-16-be"), "save it as UTF-8"),
    "Latin-1": (b"# caf\xe9\nCRYPTO_ASSETS_SOURCE=simulator\n", "save it as UTF-8"),
    "binary": (bytes(range(256)), "save it as UTF-8"),
    "a folder": (None, "is a folder"),
    "a wrong value": (b"CRYPTO_ASSETS_REPLAY_SPEED=fast\n", "CRYPTO_ASSETS_REPLAY_SPEED"),
}


def _write_dotenv(folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    if data is None:
        (folder / ".env").mkdir()
    else:
        (folder / ".env").write_bytes(data)


@pytest.mark.parametrize("fault", DOTENV)
@pytest.mark.parametrize("command", ["status", "demo", "up"])
def test_a_dotenv_that_cannot_be_read_is_named(command: str, fault: str, tmp_path, monkeypatch):
    data, said = DOTENV[fault]
    _write_dotenv(tmp_path, monkeypatch, data)
    done = invoke(command)
    line = one_line(done)
    assert done.exit_code == USAGE
    assert ".env" in line
    assert said in line


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "doctor"])
def test_every_command_names_a_dotenv_in_utf_16(command: str, tmp_path, monkeypatch):
    _write_dotenv(tmp_path, monkeypatch, DOTENV["UTF-16"][0])
    assert ".env is UTF-16: save it as UTF-8" in one_line(invoke(command))
    assert [p.name for p in tmp_path.iterdir()] == [".env"]


def test_a_dotenv_with_a_byte_order_mark_counts(tmp_path, monkeypatch):
    _write_dotenv(tmp_path, monkeypatch, b"\xef\xbb\xbfCRYPTO_ASSETS_SOURCE=simulator\nKAFKA_PARTITIONS=\n")
    settings = Settings()
    assert (settings.source, settings.kafka_partitions) == ("simulator", 3)


def _errors_of_doctor(*arguments: str) -> list[dict[str, str]]:
    done = invoke("doctor", "--json", *arguments)
    assert done.exit_code == 1, done.output
    found = [f for f in json.loads(done.stdout)["findings"] if f["level"] == "error"]
    assert all(f["fix"] and not f["found"].rstrip(".").rstrip().endswith(":") for f in found)
    return found


@pytest.mark.parametrize("fault", DOTENV)
def test_doctor_reports_a_dotenv_that_cannot_be_read(fault: str, tmp_path, monkeypatch):
    data, said = DOTENV[fault]
    _write_dotenv(tmp_path, monkeypatch, data)
    (found,) = _errors_of_doctor()
    assert ".env" in found["found"]
    assert said in found["found"]


@pytest.mark.parametrize("fault", BINDINGS)
def test_doctor_reports_a_damaged_binding_and_looks_on(fault: str, home: Path):
    data, said = BINDINGS[fault]
    (home / "home.json").write_bytes(data)
    found = next(f for f in _errors_of_doctor("--home", str(home)) if f["area"] == "home")
    assert f"{home}/home.json" in found["found"]
    assert said in found["found"]


def test_doctor_reports_a_file_in_place_of_the_home(tmp_path: Path):
    place = tmp_path / "home"
    place.write_text("")
    assert any(str(place) in f["found"] for f in _errors_of_doctor("--home", str(place)))


def _corrupt(path: Path) -> None:
    path.write_bytes(b"\x93" * 4096)


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)")
        opened.execute("DELETE FROM alembic_version")
        opened.execute("INSERT INTO alembic_version VALUES ('f00dfeed0000')")
        opened.execute("DROP TABLE IF EXISTS secondary_indexes")
        opened.commit()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture
def with_storage(home: Path) -> Path:
    """The home with Dagster's storage."""
    settings = Settings(source="simulator", home_path=home)
    with open_instance(open_home(settings)):
        return home


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "said"), [(_corrupt, "not a database"), (_folder, "is a folder")])
@pytest.mark.parametrize(("command", "database"), READERS)
def test_a_database_that_cannot_be_used_is_named(
    command: str, database: str, broken: Callable[[Path], None], said: str, with_storage: Path
):
    for side in with_storage.glob("dagster/**/*.db-*"):
        side.unlink()
    broken(with_storage / database)
    done = invoke(command, "--home", str(with_storage))
    parts = done.exit_code != 0 and len(done.output.splitlines()) > 1  # of what is read for itself the others are shown
    text = done.output if parts else one_line(done)
    assert done.exit_code in (1, CANNOT)
    if command == "doctor":  # its table wraps long texts
        text = str(_errors_of_doctor("--home", str(with_storage)))
    assert str(with_storage / database) in text
    assert said in text
    assert "Traceback" not in done.output


def test_a_schema_of_a_newer_version_is_named(with_storage: Path):
    _newer(with_storage / "dagster/history/runs.db")
    (found,) = databases.troubles(with_storage)
    assert found.startswith(f"{with_storage}/dagster/history/runs.db: its schema f00dfeed0000 is unknown")


def test_the_holder_of_a_lock_is_named(with_storage: Path):
    path = with_storage / "dagster/schedules/schedules.db"
    holding = (
        "import sqlite3, sys\n"
        f"c = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
        "c.execute('PRAGMA locking_mode=EXCLUSIVE'); c.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (found,) = databases.troubles(with_storage)
        assert found.startswith(f"{path}: database is locked by process {holder.pid}")
        fault = explain(sqlite3.OperationalError("database is locked"), with_storage)
        assert fault is not None
        assert (fault.text, fault.exit_code) == (found, CANNOT)
        holder.communicate("")
    assert not list(databases.troubles(with_storage))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{: - [", "is not YAML"),
        (b"- 1", "a mapping is expected"),
        (b"nonsense: 1", "nonsense"),
        (b"\xff\xfea", "save it as UTF-8"),
    ],
)
def test_a_dagster_yaml_that_cannot_be_used_is_named(text: bytes, said: str, with_storage: Path):
    (with_storage / "dagster" / "dagster.yaml").write_bytes(text)
    line = one_line(invoke("maintain", "--home", str(with_storage)))
    assert str(with_storage / "dagster" / "dagster.yaml") in line
    assert said in line


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not use it"),
        (errno.ENOTDIR, "folder is expected"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "dmesg"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EADV, "doctor"),
    ],
)
def test_errors_of_the_system_say_where_and_what_helps(number: int, said: str, tmp_path: Path):
    fault = explain(OSError(number, os.strerror(number), str(tmp_path / "x")))
    assert fault is not None
    assert fault.text.startswith(f"{tmp_path}/x: {os.strerror(number)}; ")
    assert said in fault.text
    # From Rust's libraries the number comes as text, and an open file has no name.
    rust = explain(RuntimeError(f"Generic LocalFileSystem error: write {tmp_path}: (os error {number})"))
    unnamed = explain(OSError(number, os.strerror(number)), tmp_path / "home")
    assert rust is not None
    assert unnamed is not None
    assert said in rust.text or number == errno.EADV
    panic = explain(type("PanicException", (BaseException,), {})(f"no runtime: Os {{ code: {number}, kind: X }}"))
    assert panic is not None
    assert panic.text.endswith(rust.text.partition("; ")[2])
    named = explain(ReportedError(f"gold.bars_1m is damaged: read {tmp_path} (os error {number})"))
    assert named is not None
    assert said in named.text or number == errno.EADV
    assert unnamed.text.startswith(f"{tmp_path}/home: ")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, home: Path):
    from crypto_assets.cli import status

    def wrong(*_args: object, **_named: object) -> int:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(status, "run", wrong)
    done = invoke("status", "--home", str(home))
    assert type(done.exception) is ValueError


@pytest.mark.parametrize(
    ("text", "shown"),
    [("no answer: . Start it", "no answer. Start it"), ("lost:\n", "lost"), ("\x1b[31mred\x1b[0m: (x: )", "red: (x)")],
)
def test_no_line_ends_in_a_colon_without_a_reason(text: str, shown: str):
    fault = explain(ReportedError(text))
    assert fault is not None
    assert fault.text == shown
    silent = explain(ReportedError())
    assert silent is not None
    assert silent.text == "ReportedError"


def test_no_password_is_shown():
    text = redacted("proxy http://me:sesame@proxy:3128 refused KEY-1", {"COINGECKO_API_KEY": "KEY-1"})
    assert text == "proxy http://me:***@proxy:3128 refused <COINGECKO_API_KEY>"


def test_a_full_disk_is_named(home: Path):
    """Files may not grow beyond a few bytes: what a full disk does to a program, without filling one."""

    shutil.rmtree(home)
    program = [sys.executable, "-m", "crypto_assets.cli.main", "broker", "start", "--home", str(home)]
    # Set between two programs: `preexec_fn` would run gRPC's fork handlers in a copy of this process, and they abort.
    limit = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", limit, *program]
    # Coverage would write its own file under the same limit, and print that it could not.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, env=unmeasured, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == CANNOT, done.stderr
    assert done.stderr.startswith("error: ")
    assert "ulimit -f" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(home.glob("*.tmp"))


def test_a_reader_that_leaves_ends_the_command_quietly(home: Path):
    command = [sys.executable, "-m", "crypto_assets.cli.main", "coins", "list", "--home", str(home)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_output_that_is_full_is_named(home: Path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "crypto_assets.cli.main", "coins", "list", "--home", str(home)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.stderr.startswith("error: standard output")
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == CANNOT


@pytest.mark.parametrize("command", REFUSING)
def test_a_file_in_place_of_the_home_is_named(command: str, tmp_path: Path):
    place = tmp_path / "home"
    place.write_text("")
    done = invoke(command, "--home", str(place))
    assert str(place) in one_line(done)
    assert done.exit_code == USAGE
