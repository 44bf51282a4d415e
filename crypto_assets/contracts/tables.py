"""Every table of the lakehouse, declared once, in the module of its layer, and gathered here for all who use one.

Schemas, DDL, the data dictionary and checks derive from `TABLES` (`contracts.arrow`, `contracts.render`, `checks`).
How rows are computed does not belong here (`transforms`).
"""

# ruff: noqa: F403 - a table that is declared in its layer can be imported from here without being named again

from __future__ import annotations

from crypto_assets.contracts import bronze, features, gold, ml, ops, silver
from crypto_assets.contracts.bronze import *
from crypto_assets.contracts.features import *
from crypto_assets.contracts.gold import *
from crypto_assets.contracts.ml import *
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.ops import *
from crypto_assets.contracts.silver import *

TABLES: dict[str, Table] = {
    table.full_name: table
    for layer in (bronze, silver, gold, features, ml, ops)
    for table in vars(layer).values()
    if isinstance(table, Table)
}
