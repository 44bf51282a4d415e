"""`python -m crypto_assets.deployment`: the command line of `deployment.files`, nothing more."""

import sys

from crypto_assets.deployment.files import main

if __name__ == "__main__":
    from crypto_assets.faults import program

    program(lambda: main(sys.argv[1:]))
