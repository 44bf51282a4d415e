"""The runbook's section on alerts as a page, so that an alert on the dashboard links to what to do about it.

Rendered into the checkout (`rendered_files`) and shipped with the dashboard, which also runs where no documentation is.

Belongs here: Markdown to HTML with an anchor for every check. Does not belong here: the text (`docs/runbook.md`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

SOURCE = "docs/runbook.md"
TARGET = "crypto_assets/serving/dashboard/runbook.html"
SECTION = "An alert arrived"

_PAGE = """<!doctype html>
<!-- Rendered from {source}, {section}, by python -m crypto_assets.rendered_files; do not edit by hand. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{section} · crypto_assets</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<script src="theme.js"></script>
<script src="runbook.js" defer></script>
<link rel="stylesheet" href="style.css">
<link rel="stylesheet" href="tables.css">
<link rel="stylesheet" href="views.css">
</head>
<body>
<header class="top"><a class="brand" href="./">crypto_assets</a></header>
<main class="document">
<h1 id="an-alert-arrived">{section}</h1>
{body}<p class="hint">All other procedures: <code>{source}</code> of the repository.</p>
</main>
</body>
</html>
"""


def files(root: Path) -> Mapping[str, Callable[[], str]]:
    """The rendered file of a checkout."""
    return {TARGET: lambda: html((root / SOURCE).read_text(encoding="utf-8"))}


def html(runbook: str) -> str:
    """The page.

    Args:
        runbook: Text of `docs/runbook.md`.

    Raises:
        ValueError: It has no such section.
    """
    from markdown_it import MarkdownIt

    found = re.search(rf"^## {SECTION}\n(.*?)(?=^## |\Z)", runbook, re.M | re.S)
    if found is None:
        raise ValueError(f"{SOURCE} has no section {SECTION!r}")
    # Links to other documents lead nowhere on a server that has only this one.
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", found[1])
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r"<tr>\n<td>(.*?)</td>", _row, body)
    body = body.replace("<table>", '<div class="tablebox"><table>').replace("</table>", "</table></div>")
    return _PAGE.format(source=SOURCE, section=SECTION, body=body)


def _row(match: re.Match[str]) -> str:
    """A row whose first cell has an anchor for each check that it names."""
    anchored = re.sub(r"<code>(\w+)</code>", r'<code id="\1">\1</code>', match[1])
    return f"<tr>\n<td>{anchored}</td>"
