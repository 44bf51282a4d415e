"""`verify`: what it prints of tables and laws, in short and in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets.verify.report import Finding, Report
from crypto_assets_tests.cli.commands import invoke

HOLDS = Finding("keys_unique", "A key occurs once.", "holds", checked=1200, tables=("gold.bars_1d",), recomputed="SQL")
BROKEN = Finding(
    "bars_match", "Bars are those of Silver.", "broken", 7, 2, ("bitcoin 17:00",), "", ("gold.bars_1m",), "SQL"
)


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give a function that audits a home with some findings, and returns exit code and text."""
    monkeypatch.setenv("CRYPTO_ASSETS_TRANSPORT", "landing")
    home = open_home(Settings(source="simulator", home_path=tmp_path / "home"))  # type: ignore[call-arg]

    def run(findings: list[Finding], *options: str) -> tuple[int, str]:
        counted = {"gold.bars_1d": 6, "gold.bars_1m": 7}
        monkeypatch.setattr("crypto_assets.cli.verify.audit", lambda **_: Report(findings, counted))
        done = invoke("verify", "--home", str(home.path), *options)
        return done.exit_code, done.output

    return run


def test_in_short_it_names_what_is_broken_and_counts_what_holds(verify):
    code, told = verify([HOLDS, BROKEN])
    assert code == 1
    assert "bitcoin 17:00" in told
    assert "1 laws hold (checked 1,200 times); all of them: --verbose" in told
    assert "keys_unique" not in told
    assert "recomputed by" not in told


def test_in_full_it_lists_every_law_and_what_tables_are_compared_with(verify):
    code, told = verify([HOLDS, BROKEN], "--verbose")
    assert code == 1
    assert "keys_unique" in told
    assert "recomputed by" in told


def test_of_a_sound_lake_it_says_that_no_law_lacks_its_proof(verify):
    code, told = verify([HOLDS])
    assert code == 0
    assert "Laws without proof: none" in told
    assert told.endswith("every law holds\n")
