"""What is printed: on a terminal of any width no word is broken or cut, elsewhere every line stays whole."""

from __future__ import annotations

import io

import pytest
from typer.testing import CliRunner

from crypto_assets.cli import output
from crypto_assets.cli.main import app
from crypto_assets_tests.cli.commands import COMMANDS

WIDTHS = (60, 80, 120)
PATH = "/srv/lakes/crypto-assets/production/europe/.crypto_assets/coingecko/dagster/history/runs.db"
SENTENCE = f"error of {PATH}: the database is damaged, restore it from a backup or move it aside [once] and start again"
ROWS = [
    {"asset": "gold/latest_prices", "check": "fresh_enough", "rows": 12_345, "found": SENTENCE},
    {"asset": "ml/price_model", "check": "enough_data", "rows": None, "found": "needs 41 more days"},
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch):
    """Give a function that sends what is printed to a terminal of some width, or to none, and returns its text."""

    def to(width: int | None) -> io.StringIO:
        text = io.StringIO()
        console = type(output.console)(
            file=text,
            highlight=False,
            color_system=None,
            force_terminal=width is not None,
            width=width or output.PLAIN_WIDTH,
        )
        monkeypatch.setattr(output, "console", console)
        monkeypatch.setattr(output, "errors", console)
        return text

    return to


def words(*values: object) -> list[str]:
    return [word for value in values if isinstance(value, str) for word in value.split()]


def within(text: str, width: int) -> bool:
    """Whether no line is longer, but for one that is a word which is."""
    return all(len(line.rstrip()) <= width or len(words(line)[-1]) > width - 10 for line in text.splitlines())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_line_breaks_between_words(printed, width: int):
    text = printed(width)
    output.say(SENTENCE)
    output.fail(SENTENCE)
    assert text.getvalue().split() == [*words(SENTENCE), "error:", *words(SENTENCE)]
    assert within(text.getvalue(), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_breaks_no_word_and_loses_none(printed, width: int):
    text = printed(width)
    output.table("Checks that are not green", ROWS)
    told = text.getvalue()
    assert set(words(*(value for row in ROWS for value in row.values()))) <= set(told.split())
    assert "12,345" in told
    assert "…" not in told
    assert within(told, width)


def test_a_narrow_terminal_gets_a_block_for_each_row(printed):
    text = printed(60)
    output.table("Checks", ROWS)
    assert "gold/latest_prices\n  check: fresh_enough\n  rows: 12,345\n  found: error of\n" in text.getvalue()
    assert "ml/price_model\n  check: enough_data\n  found: needs 41 more days\n" in text.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_progress_leaves_out_the_bar_before_it_cuts_a_word(printed, width: int):
    text = printed(width)
    with output.progress("polling 2,880 times over HTTP, publishing", 2880) as advance:
        advance(2880)
    assert "polling 2,880 times over HTTP, publishing" in text.getvalue()
    assert "2880/2880" in text.getvalue()
    assert "…" not in text.getvalue()


def test_without_a_terminal_a_line_stays_whole(printed):
    text = printed(None)
    output.say(SENTENCE)
    output.fail(SENTENCE)
    assert text.getvalue() == f"{SENTENCE}\nerror: {SENTENCE}\n"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_never_cut(name: str, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert "…" not in done.output
