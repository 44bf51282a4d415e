"""Running the product's command as a person does: as a process, in a folder, with a scrubbed environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from crypto_assets.settings import environment

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "PYTHONPATH")
MEASURING = "COVERAGE_"
"""Prefix of the variables by which coverage measures child processes."""
CODE = "import sys; from crypto_assets.cli.main import app; sys.argv[0] = 'crypto-assets'; app()"


def clean_environment() -> dict[str, str]:
    """What a person's shell has, without any variable of ours."""
    return {name: value for name, value in environment().items() if name in KEPT or name.startswith(MEASURING)}


def command(*arguments: str) -> list[str]:
    """The command line of `crypto-assets`."""
    return [sys.executable, "-c", CODE, *arguments]


def run(folder: Path, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `crypto-assets` to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
