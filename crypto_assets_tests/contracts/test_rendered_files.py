"""Rendered files of the checkout: current, written, and checked by the command that their headers name."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONE_OF = {
    "crypto_assets.rendered_files": "docs/data-dictionary.md",
    "crypto_assets.settings_docs": "docs/settings.md",
}
"""Modules that render, with one of their files."""


@pytest.fixture(params=ONE_OF)
def module(request: pytest.FixtureRequest) -> str:
    return request.param


def run(module: str, *arguments: object) -> int:
    return importlib.import_module(module).main([str(a) for a in arguments])


def test_those_of_this_checkout_are_current(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(module, "--check") == 0, capsys.readouterr().out


def test_writing_makes_stale_ones_current(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "runbook.md", tmp_path / "docs")  # the page's text on alerts is a part of it
    assert run(module, "--check", tmp_path) == 1
    told = capsys.readouterr().out
    assert f"stale: {ONE_OF[module]}" in told
    assert f"run: python -m {module}\n" in told
    assert run(module, tmp_path) == 0
    assert f"written: {ONE_OF[module]}" in capsys.readouterr().out
    assert run(module, "--check", tmp_path) == 0
    assert (tmp_path / ONE_OF[module]).read_text() == (ROOT / ONE_OF[module]).read_text()
    (tmp_path / ONE_OF[module]).write_text("edited by hand")
    assert run(module, "--check", tmp_path) == 1
    assert capsys.readouterr().out.startswith(f"stale: {ONE_OF[module]}\nrun: ")


@pytest.mark.parametrize("argument", ["--chek", "no-such-folder"])
def test_what_is_not_understood_is_refused_and_writes_nothing(
    module: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(module, argument)
    assert argument in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
