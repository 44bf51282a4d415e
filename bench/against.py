"""`python -m bench --against REV`: parts run by turns on a revision and on HEAD, and the ratios of what they cost.

Both sides are exported from git into a temporary folder, and each gets the bench of HEAD, so that the same code
measures both packages. Every run is a fresh process with the same load and the same installed libraries.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import documents, targets
from bench.ratios import Costs, compared
from bench.report import Part
from bench.spent import exit_code, reason_of
from crypto_assets.cli import output

CHECKOUT = Path(__file__).resolve().parent.parent


class CannotCompareError(Exception):
    """There is nothing to compare; names the reason and what to do."""


@dataclass(frozen=True)
class Side:
    """One of the two packages.

    Args:
        name: Column of the table: the revision as given, with its commit.
        folder: Where it was exported to.
    """

    name: str
    folder: Path


def run(revision: str, chosen: Mapping[str, Mapping[str, Any]], pairs: int, page: Path | None = None) -> int:
    """Compare HEAD with a revision and print a table per part.

    Args:
        revision: Anything that git resolves to a commit.
        chosen: Options of each part to run.
        pairs: Runs of each side.
        page: Page into which the tables are written too.

    Returns:
        0, also when targets are missed; 1 when a part could not be measured on both sides; 130 after Ctrl-C.

    Raises:
        CannotCompareError: No git, no such revision, or changes that are not committed.
    """
    base, head = (commit_of(revision, CHECKOUT), commit_of("HEAD", CHECKOUT))
    refuse_changes(CHECKOUT)
    failed: list[str] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crypto-assets-against-") as folder:
        try:
            sides = [
                _exported(
                    base, Path(folder) / "base", f"{revision} ({base[:7]})" if revision != base[:7] else revision
                ),
                _exported(head, Path(folder) / "head", f"HEAD ({head[:7]})"),
            ]
            for name, options in chosen.items():
                output.say(f"== {name}: {pairs} runs each, by turns ({_load(options)})", style="bold")
                runs, reason = _by_turns(sides, name, options, pairs, Path(folder))
                if reason:
                    failed.append(reason)
                    output.fail(reason)
                    continue
                missed += _show(name, sides, runs, page)
        except KeyboardInterrupt:
            output.say("stopped; the exported revisions are removed")
            return 130
    if missed:
        output.say(f"MISSED: {'; '.join(missed)}", style="bold")
    return 1 if failed else 0


def commit_of(revision: str, checkout: Path) -> str:
    """The full id of a commit.

    Raises:
        CannotCompareError: git is not installed, the folder is no checkout, or it has no such commit.
    """
    inside = _git(checkout, "rev-parse", "--git-dir")
    if inside.returncode:
        raise CannotCompareError(
            f"{checkout} is not a git checkout, so no other revision can be had: git clone the repository, and run "
            "python -m bench --against there"
        )
    found = _git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise CannotCompareError(
            f"git knows no commit {revision!r}: name one that git log shows, or fetch it first: git fetch origin"
        )
    return found.stdout.decode().strip()


def refuse_changes(checkout: Path) -> None:
    """Refuse changes that are not committed: HEAD is what is measured.

    Raises:
        CannotCompareError: There are some; names the first.
    """
    changed = _git(checkout, "status", "--porcelain").stdout.decode().splitlines()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        names = ", ".join(line[3:] for line in changed[:3])
        raise CannotCompareError(
            f"{names}{more} differ from HEAD, which is what is measured: commit them, or set them aside with: "
            "git stash --include-untracked"
        )


def _git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise CannotCompareError("git is not installed, or not on the PATH: install git") from None


def _exported(commit: str, folder: Path, name: str) -> Side:
    """The files of a commit in a folder, with today's bench in place of its own, and bytecode for both."""
    with tarfile.open(fileobj=io.BytesIO(_git(CHECKOUT, "archive", commit).stdout)) as files:
        files.extractall(folder, filter="data")
    today = _git(CHECKOUT, "archive", "HEAD", "bench").stdout
    shutil.rmtree(folder / "bench", ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(today)) as files:
        files.extractall(folder, filter="data")
    compiled = [sys.executable, "-m", "compileall", "-q", "crypto_assets", "bench"]
    subprocess.run(compiled, cwd=folder, check=True)
    return Side(name, folder)


def _by_turns(
    sides: Sequence[Side], name: str, options: Mapping[str, Any], pairs: int, folder: Path
) -> tuple[list[list[Part]], str]:
    """Parts of each side, or why there are none."""
    runs: list[list[Part]] = [[] for _ in sides]
    for number in range(pairs):
        for side, parts in zip(sides, runs, strict=True):
            output.say(f"{side.name}, run {number + 1} of {pairs} ...", style="dim")
            file = folder / f"{name}-{side.folder.name}-{number}.json"
            why = _run_part(side, name, options, file)
            if why:
                return runs, f"{name} cannot run on {side.name}: {why}"
            parts.append(Part.load(file))
    return runs, ""


def _run_part(side: Side, name: str, options: Mapping[str, Any], file: Path) -> str:
    """Run a part in a fresh process on one side; why it could not run, or nothing."""
    command = [sys.executable, "-m", "bench", "--part", name, str(file), "--options", json.dumps(options)]
    log = file.with_suffix(".log")
    environment = {**os.environ, "PYTHONPATH": str(side.folder)}
    with log.open("wb") as out:
        code = exit_code(command, cwd=side.folder, env=environment, stdout=out, stderr=out)
    if code == 0 and file.exists():
        return ""
    return f"code {code}, {reason_of(log.read_text(encoding='utf-8', errors='replace'))}"


def _show(name: str, sides: Sequence[Side], runs: Sequence[Sequence[Part]], page: Path | None) -> list[str]:
    """Print the ratios of a part; the targets that were missed."""
    costs: list[list[Costs]] = [[part.costs for part in parts] for parts in runs]
    ratios, alone = compared(*costs, targets.AGAINST)
    base, head = (side.name for side in sides)
    rows = [r.row(base, head) for r in ratios]
    output.table(f"{runs[1][0].title}: {head} over {base}", rows)
    if page is not None:
        documents.write(page, f"{name} against", [f"{runs[1][0].title}.", "", *documents.table(rows)])
    for figure in alone:
        output.say(f"note: only one side has: {figure}")
    if not ratios:
        output.say(f"note: {name} has no figure that can be compared")
    output.say("note: ratios below 1 are better; processor time includes children and excludes the broker")
    output.say()
    return [
        f"{r.figure}, {r.quantity}: {r.middle:.2f} of at most {r.target:.2f}"
        for r in ratios
        if r.target is not None and r.middle > r.target
    ]


def _load(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in options.items())
