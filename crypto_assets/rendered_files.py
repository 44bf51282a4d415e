"""Files of a checkout that are rendered: `python -m crypto_assets.rendered_files [--check] [ROOT]`.

Belongs here: writing them and detecting stale ones. Does not belong here: their contents (`contracts.render`,
`serving.reference`, `serving.render`, `settings_docs`, `databricks.deploy`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
Files = Mapping[str, Callable[[], str]]
"""Paths within a checkout, with the function that renders each."""


def stale(root: Path, files: Files) -> list[str]:
    """Paths below `root` that are missing or differ from the rendered text."""
    return [
        path
        for path, render in files.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != render()
    ]


def write(root: Path, files: Files) -> list[str]:
    """Write the stale files below `root`; returns their paths."""
    changed = stale(root, files)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path](), encoding="utf-8")
    return changed


def run(module: str, what: str, files: Callable[[Path], Files], arguments: Sequence[str]) -> int:
    """Entry point of `python -m MODULE [--check] [ROOT]`; returns 1 if a check finds a stale file.

    Args:
        module: Module name, for help and hints.
        what: Rendered content, for the help text.
        files: Returns the files of a checkout.
        arguments: Command-line arguments.

    Raises:
        SystemExit: 2 on invalid arguments.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Write {what}.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is stale")
    parser.add_argument("root", nargs="?", type=Path, default=CHECKOUT, help="the checkout (default: %(default)s)")
    given = parser.parse_args(arguments)
    if not given.root.is_dir():
        parser.error(f"{given.root} is not a folder; pass a checkout")
    found = (stale if given.check else write)(given.root, files(given.root))
    for path in found:
        print(f"{'stale' if given.check else 'written'}: {path}")
    if given.check and found:
        print(f"run: python -m {module}")
    return 1 if given.check and found else 0


def of_contracts(root: Path) -> Files:
    """Data dictionary, schemas, query catalogue, dashboards, rules, the page's runbook and SQL of a checkout."""
    from crypto_assets.assets.card import upstream
    from crypto_assets.contracts import render
    from crypto_assets.databricks.deploy import unity
    from crypto_assets.serving import reference, runbook_page
    from crypto_assets.serving.render import alerts_v2, boards, grafana, prometheus, sql

    of_catalogue = {
        **reference.files(),
        **sql.files(),
        **boards.files(),
        **alerts_v2.files(),
        **runbook_page.files(root),
    }
    of_metrics = {**prometheus.files(), **grafana.files()}
    return {**render.files(upstream), **of_catalogue, **of_metrics, **unity.files()}


def main(arguments: Sequence[str]) -> int:
    """Write or check the files rendered from contracts; returns 1 if a check finds a stale file."""
    return run("crypto_assets.rendered_files", "the files rendered from contracts", of_contracts, arguments)


if __name__ == "__main__":
    import sys

    from crypto_assets.faults import program

    program(lambda: main(sys.argv[1:]))
