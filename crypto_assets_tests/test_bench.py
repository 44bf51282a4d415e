"""The bench as people start it: its cheapest part prints what it measured."""

import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from bench import against, documents, duckdb_queries, scale, synthetic
from bench.__main__ import arguments
from bench.peers import comparison
from bench.ratios import compared, slope
from bench.report import Measure, Part
from bench.spent import reason_of

CHECKOUT = Path(__file__).parent.parent


def bench(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.slow
def test_the_cheap_part_prints_measured_values():
    done = bench("--quick", "--only", "import", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"machine: \d+ cores .* GB memory", done.stdout)
    measured = dict(re.findall(r"^import (\S+) +(\d+\.\d+) +s ", done.stdout, re.MULTILINE))
    assert set(measured) == {"crypto_assets.definitions", "dagster"}
    assert re.search(r"^processor time, definitions over dagster alone +\d", done.stdout, re.MULTILINE)
    # The definitions import Dagster first, so both figures can only be right together.
    assert all(0.05 < float(seconds) < 120 for seconds in measured.values())
    assert "heavy libraries loaded by it: none" in done.stdout


def test_an_unknown_part_is_refused_with_the_names_that_exist():
    done = bench("--only", "speed")
    assert done.returncode == 2
    for name in ("import", "throughput", "refresh", "ranges", "growth", "streaming"):
        assert name in done.stderr


def test_a_target_is_judged_in_its_own_direction(tmp_path):
    floor = Measure("rate", 150.0, "rows/s", 200.0, more_is_better=True)
    ceiling = Measure("time", 2.4, "s", 3.0)
    assert (floor.met, floor.margin) == (False, "25% worse")
    assert (ceiling.met, ceiling.margin) == (True, "20% better")
    assert floor.row()["met"] == "NO"
    assert Measure("runs", 3, "runs").met is None
    Part("title", [floor, ceiling], {"t": [{"a": 1}]}, ["n"]).save(tmp_path / "part.json")
    assert Part.load(tmp_path / "part.json") == Part("title", [floor, ceiling], {"t": [{"a": 1}]}, ["n"])


def test_ratios_are_of_pairs_and_judged_by_their_median():
    def runs(*walls: float) -> list[dict[str, dict[str, float]]]:
        return [{"refresh": {"wall": wall, "events": 300.0}} for wall in walls]

    base, head = runs(2.0, 4.0, 2.0), runs(1.0, 1.0, 1.8)
    (wall, events), alone = compared(base, head, {("refresh", "wall"): 0.5})
    assert (wall.middle, wall.ratios, wall.base, wall.head) == (0.5, (0.5, 0.25, 0.9), 2.0, 1.0)
    assert wall.row("old", "new") == {
        "figure": "refresh",
        "of": "wall",
        "old": "2.00 s",
        "new": "1.00 s",
        "ratio": "0.50",
        "pairs": "0.25 to 0.90",
        "target": "≤ 0.50",
        "met": "yes",
    }
    assert (events.middle, events.row("old", "new")["met"]) == (1.0, "")
    assert alone == []


def test_figures_of_one_side_only_are_named_and_not_compared():
    ratios, alone = compared([{"a": {"wall": 1.0, "runs": 3.0}}], [{"a": {"wall": 2.0}, "b": {"wall": 1.0}}], {})
    assert [(r.figure, r.quantity, r.middle) for r in ratios] == [("a", "wall", 2.0)]
    assert set(alone) == {"a, runs", "b, wall"}
    with pytest.raises(ValueError, match="1 runs of the base and 0 of the head"):
        compared([{}], [], {})


def test_the_slope_is_the_exponent_of_the_growth():
    assert slope([1, 30, 365], [7.0, 7.0, 7.0]) == pytest.approx(0)
    assert slope([10, 250, 1000], [0.1, 2.5, 10.0]) == pytest.approx(1)
    assert slope([10, 100], [1.0, 100.0]) == pytest.approx(2)
    with pytest.raises(ValueError, match="two sizes"):
        slope([10, 10], [1.0, 2.0])
    with pytest.raises(ValueError, match="above 0"):
        slope([10, 20], [0.0, 2.0])


def git(folder: Path, *arguments: str) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(folder), *named, *arguments], check=True, capture_output=True)


def test_what_cannot_be_compared_is_refused_with_the_fix(tmp_path, monkeypatch):
    with pytest.raises(against.CannotCompareError, match=r"is not a git checkout.*git clone"):
        against.commit_of("HEAD", tmp_path)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-m", "first")
    assert re.fullmatch("[0-9a-f]{40}", against.commit_of("HEAD", tmp_path))
    against.refuse_changes(tmp_path)
    for unknown in ("v99", "--help"):
        with pytest.raises(against.CannotCompareError, match=f"no commit '{unknown}'.*git fetch"):
            against.commit_of(unknown, tmp_path)
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("2")
    with pytest.raises(against.CannotCompareError, match=r"a.txt, b.txt, c.txt and 1 more differ .*git stash"):
        against.refuse_changes(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(against.CannotCompareError, match="install git"):
        against.commit_of("HEAD", tmp_path)


def test_an_unknown_revision_is_one_line_and_no_traceback():
    done = bench("--only", "import", "--against", "no-such-revision")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*(git fetch|git clone).*\n", done.stderr)


def test_pairs_and_parts_are_checked_before_anything_runs(capsys):
    with pytest.raises(SystemExit, match="2"):
        arguments(["--against", "HEAD", "--pairs", "0"])
    assert "--pairs 0: 1 or more" in capsys.readouterr().err
    assert arguments(["--only", "refresh", "ranges", "--only", "idle"]).only == ["refresh", "ranges", "idle"]


def test_tables_are_written_between_the_markers_of_a_page(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- refresh:begin -->\nold\n<!-- refresh:end -->\nb\n")
    documents.write(page, "refresh", documents.table([{"of": "a|b", "none": "", "n": 1200}]))
    assert page.read_text() == (
        "a\n<!-- refresh:begin -->\n| of | n |\n| --- | --- |\n| a\\|b | 1,200 |\n<!-- refresh:end -->\nb\n"
    )
    with pytest.raises(SystemExit, match="2"):
        arguments(["--only", "growth", "--write", str(page)])
    assert "no place for growth: add the lines <!-- growth:begin -->" in capsys.readouterr().err


def test_rows_of_other_systems_are_compared_whatever_they_call_their_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [f'{{"price":"{n}"}}' for n in range(3)]
    ours = {"message_key": ["a", "b", "c"], "raw_json": values, "kind": ["record"] * 3}
    gap = {"message_key": [None], "raw_json": [None], "kind": ["gap"]}
    theirs = {"_key": ["c", "b", "a"], "value": [v.encode() for v in reversed(values)]}
    lines = "".join(json.dumps({"key": k, "data": v}) + "\n" for k, v in zip("bac", values, strict=True))
    for name, columns in {"ours": ours, "gap": gap, "theirs": theirs}.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "rows.parquet")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "rows.jsonl").write_text(lines)

    own = comparison.digest("bronze", comparison.files_of(tmp_path / "ours"))
    both = [*comparison.files_of(tmp_path / "ours"), *comparison.files_of(tmp_path / "gap")]
    assert own[0] == 3
    assert comparison.digest("bronze", both) == own
    assert comparison.digest("bronze", comparison.files_of(tmp_path / "theirs")) == own
    # The same values under exchanged keys: as many rows, and not the same.
    other = comparison.digest("bronze", comparison.files_of(tmp_path / "lines"))
    assert other[0] == 3
    assert other != own


def test_a_system_that_fails_is_named_by_its_own_error():
    text = "Traceback (most recent call last):\nValueError: no such topic\n\nwarnings.warn(\n"
    assert reason_of(text) == "ValueError: no such topic"
    assert reason_of("a\nb\n") == "b"
    assert reason_of("") == "nothing said"


def test_decimals_of_the_reference_are_those_of_a_plain_cast():
    with duckdb_queries.connection() as database:
        for text in (
            "1",
            "-0.00000001",
            "61234.12345678",
            "1200000000000.25",
            "0.123456789012345678",
            "9" * 20,
            "1e-7",
            "1E3",
            "x",
            "",
        ):
            query = "SELECT exact($text), TRY_CAST($text AS DECIMAL(38,18))"
            narrow, plain = database.execute(query, {"text": text}).fetchone() or (1, 2)
            assert narrow == plain, text


def test_a_table_of_scale_judges_what_serves_a_refresh():
    by_days = {1: {"refresh": 1.0, "verify": 1.0}, 100: {"refresh": 10.0, "verify": 10.0}}
    refresh, verify = scale.table(by_days, "days", 0.15, ("refresh",))
    assert refresh == {
        "processor time of": "refresh",
        "1 day": "1.00 s",
        "100 days": "10.00 s",
        "exponent": "0.50",
        "≤ 0.15": "NO",
    }
    assert (verify["exponent"], verify["≤ 0.15"]) == ("0.50", "")
    (alone,) = scale.table({1: {"refresh": 1.0}}, "days", 0.15)
    assert alone["exponent"] == ""


def test_a_copied_day_is_the_same_day_earlier():
    import pyarrow as pa

    day, at = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 1, 10, 30, tzinfo=UTC)
    utc = pa.timestamp("us", "UTC")
    rows = pa.table(
        {
            "day": pa.array([day.date()], pa.date32()),
            "hour": pa.array([at], utc),
            "bronze_ingested_at": pa.array([at], utc),
            "topic_id": ["abc"],
            "raw_json": ['{"last_updated_at":"2024-03-01T10:30:00Z"}'],
            "poll_id": ["p-20240301T103000Z"],
            "offset": [7],
        }
    )
    (copy,) = synthetic.shifted(rows, day, 2).to_pylist()
    assert copy == {
        "day": date(2024, 2, 28),
        "hour": datetime(2024, 2, 28, 10, 30, tzinfo=UTC),
        "bronze_ingested_at": at,
        "topic_id": "abc-2",
        "raw_json": '{"last_updated_at":"2024-02-28T10:30:00Z"}',
        "poll_id": "p-20240228T103000Z",
        "offset": 7,
    }
