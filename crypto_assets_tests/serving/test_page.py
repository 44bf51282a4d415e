"""How the page's files are sent, and the runbook that is rendered among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from crypto_assets.rendered_files import CHECKOUT
from crypto_assets.serving import page, runbook_page
from crypto_assets_tests.serving.lakes import Client


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A client of a folder with a page and a script."""
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "app.js").write_text("// " + "a" * 5_000)
    return Client(page.files(tmp_path))


def test_files_are_compressed_and_asked_for_again_before_each_use(client: Client) -> None:
    found = client.get("/app.js", headers={"Accept-Encoding": "gzip"})
    assert found.headers["Content-Encoding"] == "gzip"
    assert found.headers["Cache-Control"] == "no-cache"
    assert len(found.content) == 5_003
    again = client.get("/app.js", headers={"If-None-Match": found.headers["ETag"]})
    assert again.status_code == 304
    assert client.get("/").text == "<!doctype html>"


def test_the_runbook_has_an_anchor_for_every_check_that_it_names() -> None:
    table = "| check | do |\n|---|---|\n| `one`, `two` | see [x](y.md), run `three` |"
    text = f"# Runbook\n\n## An alert arrived\n\n{table}\n\n## Next\n\nno\n"
    found = runbook_page.html(text)
    assert '<code id="one">one</code>, <code id="two">two</code>' in found
    assert "see x, run <code>three</code>" in found
    assert "<p>no</p>" not in found


def test_a_runbook_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section 'An alert arrived'"):
        runbook_page.html("# Runbook\n")


def test_the_rendered_runbook_is_that_of_the_checkout() -> None:
    ((path, render),) = runbook_page.files(CHECKOUT).items()
    assert (CHECKOUT / path).read_text(encoding="utf-8") == render()
