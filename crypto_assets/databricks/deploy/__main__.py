"""`python -m crypto_assets.databricks.deploy`: the command line of `databricks.deploy.files`, nothing more."""

import sys

from crypto_assets.databricks.deploy.files import main

if __name__ == "__main__":
    from crypto_assets.faults import program

    program(lambda: main(sys.argv[1:]))
