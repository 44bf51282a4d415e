"""Runs `crypto-assets <command>` as a task of a job, from the package that the bundle has synchronized.

The first two arguments are `--package FOLDER`: the folder that holds the package; the others go to the command line.
"""

import sys


def main() -> None:
    """Put the package on the path and hand over."""
    if len(sys.argv) < 4 or sys.argv[1] != "--package":
        raise SystemExit("usage: command.py --package FOLDER COMMAND [ARGUMENT ...]")
    sys.path.insert(0, sys.argv[2])
    sys.argv = ["crypto-assets", *sys.argv[3:]]

    from crypto_assets.cli.main import app

    app()


if __name__ == "__main__":
    main()
